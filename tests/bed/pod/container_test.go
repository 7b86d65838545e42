package pod

import (
	"encoding/base64"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/cluster"
	"rockpool.dev/tests/bed/link"
)

func TestAPodReachesTheAPIServerOnlyOverItsLink(t *testing.T) {
	c := controlPlane(t)
	wan, err := link.New(c.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer wan.Close()
	_, err = c.Client().RbacV1().Roles("default").Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "services"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"get"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Client().RbacV1().RoleBindings("default").Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "services"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "services"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "default", Namespace: "default"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p := runPod(t, "spec: {containers: [{name: app, image: client, command: [sleep, '1000']}]}", Options{
		Links:       map[string]*link.Link{cluster.DefaultPublicAddress: wan},
		Images:      map[string]Image{"client": {Files: map[string]string{"/kubectl": c.Tools().Kubectl}}},
		GracePeriod: time.Millisecond,
	})
	wantRunning(t, p)
	const kubectl = `/kubectl --server=$SERVER --certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt ` +
		`--token=$(cat /var/run/secrets/kubernetes.io/serviceaccount/token) --request-timeout=5s get service kubernetes -o name`
	list := func() (string, string, int) {
		result, err := p.Exec(limited(t), "app", "sh", "-c", "SERVER=https://"+cluster.DefaultPublicAddress+"; "+kubectl)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(result.Stdout), result.Stderr, result.ExitCode
	}
	if got, stderr, _ := list(); got != "service/kubernetes" {
		t.Errorf("through the link: %q, %s", got, stderr)
	}
	wan.Cut()
	if _, stderr, code := list(); code == 0 || !strings.Contains(stderr, "refused") {
		t.Errorf("through the cut link: exit code %d, %s, want it refused", code, stderr)
	}
	wan.Restore()
	if got, stderr, _ := list(); got != "service/kubernetes" {
		t.Errorf("through the restored link: %q, %s", got, stderr)
	}
	result, err := p.Exec(limited(t), "app", "sh", "-c", "SERVER=https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT; "+kubectl)
	if err != nil || result.ExitCode == 0 || !strings.Contains(result.Stderr, "network is unreachable") {
		t.Errorf("address in the cluster: %v, %s, want it unreachable", err, result.Stderr)
	}
}

func TestAPodHasItsOwnLoopback(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	p := runPod(t, "spec: {containers: [{name: app, image: none, command: [sleep, '1000']}]}", Options{GracePeriod: time.Millisecond})
	wantRunning(t, p)
	result, err := p.Exec(limited(t), "app", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/"+port)
	if err != nil || !strings.Contains(result.Stderr, "refused") {
		t.Errorf("port of the host: %v, %q, want it refused", err, result.Stderr)
	}
}

func TestTokensAreProjectedAsSpecifiedAndRotated(t *testing.T) {
	p := runPod(t, `
spec:
  securityContext: {fsGroup: 2000}
  volumes:
  - name: own
    projected:
      sources:
      - serviceAccountToken: {audience: elsewhere, expirationSeconds: 1200, path: deep/token}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
  containers:
  - name: app
    image: none
    command: [sleep, "1000"]
    volumeMounts: [{name: own, mountPath: /own}]
`, Options{GracePeriod: time.Millisecond})
	wantRunning(t, p)
	read := func() (claims struct {
		Aud        []string `json:"aud"`
		Exp, Iat   int64
		Kubernetes struct {
			Pod struct{ Name string } `json:"pod"`
		} `json:"kubernetes.io"`
	}, token string) {
		token = output(t, p, "app", "cat /own/deep/token")
		parts := strings.Split(token, ".")
		if len(parts) != 3 {
			t.Fatalf("token with %d parts", len(parts))
		}
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(payload, &claims); err != nil {
			t.Fatal(err)
		}
		return claims, token
	}
	claims, before := read()
	if len(claims.Aud) != 1 || claims.Aud[0] != "elsewhere" || claims.Exp-claims.Iat != 1200 || claims.Kubernetes.Pod.Name != p.Pod().Name {
		t.Errorf("claims %+v", claims)
	}
	data := output(t, p, "app", "readlink /own/..data")
	if err := p.RotateTokens(limited(t)); err != nil {
		t.Fatal(err)
	}
	if _, after := read(); after == before {
		t.Error("the token is the same after a rotation")
	}
	if after := output(t, p, "app", "readlink /own/..data; ls -A /own | wc -l"); strings.HasPrefix(after, data) || !strings.HasSuffix(after, "\n5") {
		t.Errorf("..data was %s and is %s; want another, and no old files", data, after)
	}
	if !strings.Contains(output(t, p, "app", "cat /own/ca.crt"), "BEGIN CERTIFICATE") || output(t, p, "app", "cat /own/namespace") != "default" {
		t.Error("the other sources are missing")
	}
	if singleUser() {
		return
	}
	if got := output(t, p, "app", "stat -L -c '%a %g' /own/deep/token /own/ca.crt | tr '\\n' ' '"); got != "640 2000 644 2000" {
		t.Errorf("modes and groups %q, want 640 2000 644 2000", got)
	}
}

func TestHostPathVolumesAreBelowTheHostRoot(t *testing.T) {
	root := t.TempDir()
	specification := `
spec:
  volumes: [{name: node, hostPath: {path: /var/lib/thing, type: DirectoryOrCreate}}]
  initContainers:
  - name: prepare
    image: none
    command: [sh, -c, "mkdir -m 0700 -p /all/a/b; echo $(POD) >/all/a/b/file"]
    env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    volumeMounts: [{name: node, mountPath: /all}]
  containers:
  - name: app
    image: none
    command: [sleep, "1000"]
    volumeMounts:
    - {name: node, mountPath: /part, subPath: a/b}
    - {name: node, mountPath: /made, subPath: not/yet}
    - {name: node, mountPath: /fixed, readOnly: true}
`
	p := runPod(t, specification, Options{HostRoot: root, GracePeriod: time.Millisecond})
	wantRunning(t, p)
	if got := output(t, p, "app", "cat /part/file; touch /made/x; touch /fixed/x 2>/dev/null || echo fixed"); got != p.Pod().Name+"\nfixed" {
		t.Errorf("in the container: %q", got)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	thing := filepath.Join(root, "var/lib/thing")
	if content, err := os.ReadFile(filepath.Join(thing, "a/b/file")); err != nil || strings.TrimSpace(string(content)) != p.Pod().Name {
		t.Errorf("on the node after the end of the pod: %q, %v", content, err)
	}
	if info, err := os.Stat(filepath.Join(thing, "not/yet")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("created sub-path: %v, %v, want the mode of the volume", info, err)
	}
}

func TestContainersHaveTheSpecifiedUserAndCapabilities(t *testing.T) {
	const status = `grep -E '^(Cap(Inh|Prm|Eff|Bnd)|NoNewPrivs)' /proc/self/status | tr '\n\t' '  '`
	const none = "0000000000000000"
	tests := []struct {
		name, security, want string
		user                 string // and its groups, as `id` prints them
	}{
		{"root by default, with the default capabilities", `{}`, "CapInh: " + none + " CapPrm: 00000000a80425fb CapEff: 00000000a80425fb CapBnd: 00000000a80425fb NoNewPrivs: 0", "0 0 2000 3000"},
		{"root with one capability", `{allowPrivilegeEscalation: false, capabilities: {drop: [ALL], add: [CHOWN]}}`, "CapInh: " + none + " CapPrm: 0000000000000001 CapEff: 0000000000000001 CapBnd: 0000000000000001 NoNewPrivs: 1", "0 0 2000 3000"},
		{"a user without capabilities", `{runAsUser: 65532, runAsGroup: 65532, runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}`, "CapInh: " + none + " CapPrm: " + none + " CapEff: " + none + " CapBnd: " + none + " NoNewPrivs: 1", "65532 2000 3000 65532"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := runPod(t, `
spec:
  securityContext: {fsGroup: 3000, supplementalGroups: [2000]}
  volumes: [{name: v, emptyDir: {}}, {name: m, emptyDir: {medium: Memory}}]
  containers:
  - name: app
    image: none
    command: [sh, -c, "`+strings.ReplaceAll(strings.ReplaceAll(status, `\`, `\\`), `"`, `\"`)+`; exec sleep 1000"]
    volumeMounts: [{name: v, mountPath: /v}, {name: m, mountPath: /m}]
    securityContext: `+test.security, Options{GracePeriod: time.Millisecond})
			wantRunning(t, p)
			for _, where := range []string{"container", "command"} {
				var got string
				if where == "command" {
					got = output(t, p, "app", status)
				} else if err := p.WaitLog(limited(t), "app", "NoNewPrivs"); err == nil {
					got, _ = p.Logs("app")
				}
				if got := strings.Join(strings.Fields(got), " "); got != test.want {
					t.Errorf("%s: %s\nwant %s", where, got, test.want)
				}
			}
			if singleUser() {
				return
			}
			if got := output(t, p, "app", "echo $(id -u; id -G | tr ' ' '\\n' | sort -n)"); got != test.user {
				t.Errorf("user and groups %q, want %q", got, test.user)
			}
			if got := output(t, p, "app", "touch /v/x /m/x; stat -c %u:%g /v/x /m/x | tr '\\n' ' '"); got != strings.Fields(test.user)[0]+":3000 "+strings.Fields(test.user)[0]+":3000" {
				t.Errorf("files made in volumes belong to %s, want the group 3000", got)
			}
		})
	}
}

func TestTheRootFileSystemIsReadOnlyIfSpecified(t *testing.T) {
	p := runPod(t, `
spec:
  containers:
  - {name: fixed, image: none, command: [sleep, "1000"], securityContext: {readOnlyRootFilesystem: true}}
  - {name: free, image: none, command: [sleep, "1000"], workingDir: /tmp}
`, Options{GracePeriod: time.Millisecond})
	wantRunning(t, p)
	if got := output(t, p, "fixed", "touch /x /tmp/x 2>&1 | grep -c 'Read-only'; echo x >/dev/null && echo ok"); got != "2\nok" {
		t.Errorf("read-only root: %q", got)
	}
	if got := output(t, p, "free", "touch /x x && ls /tmp; test -w /usr || echo fixed"); got != "x\nfixed" {
		t.Errorf("writable root: %q", got)
	}
}

func TestTheEnvironmentIsAsFromAKubelet(t *testing.T) {
	p := runPod(t, `
metadata: {labels: {app: x}, annotations: {example.com/note: "a b"}}
spec:
  containers:
  - name: app
    image: img
    args: ["$(GREETING)", "$$(GREETING)", "$(UNKNOWN)"]
    resources: {limits: {memory: 64Mi, cpu: 1500m}}
    env:
    - {name: WHO, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['example.com/note']"}}}
    - {name: GREETING, value: "hello $(WHO) at $(KUBERNETES_SERVICE_HOST)"}
    - {name: KUBERNETES_SERVICE_PORT, value: "1"}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
`, Options{
		Images:      map[string]Image{"img": {Entrypoint: []string{"sh", "-c", `printf '%s|' "$@"; env; exec sleep 1000`, "sh"}, Env: []string{"FROM_IMAGE=yes"}}},
		NodeName:    "n1",
		GracePeriod: time.Millisecond,
	})
	wantRunning(t, p)
	if err := p.WaitLog(limited(t), "app", "NODE="); err != nil {
		t.Fatal(err)
	}
	log, err := p.Logs("app")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"hello a b at 10.96.0.1|$(GREETING)|$(UNKNOWN)|", "FROM_IMAGE=yes\n", "KUBERNETES_SERVICE_PORT=1\n", "KUBERNETES_SERVICE_PORT_HTTPS=443\n",
		"KUBERNETES_PORT=tcp://10.96.0.1:443\n", "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1\n", "MEMORY=64\n", "CPU=2\n", "NODE=n1\n", "ACCOUNT=default\n", "HOSTNAME=" + p.Pod().Name + "\n",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
}

func TestAKilledPodLeavesNoProcessAndNoFiles(t *testing.T) {
	p := runPod(t, "spec: {containers: [{name: app, image: none, command: [sh, -c, 'sleep 1000 & sleep 1000']}]}", Options{})
	wantRunning(t, p)
	pid, err := p.PID("app")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("process of the container: %v, want it gone", err)
	}
	if _, err := os.Stat(p.directory); !os.IsNotExist(err) {
		t.Errorf("directory of the pod: %v, want it gone", err)
	}
}
