package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSecretsStayOffTheDisk(t *testing.T) {
	t.Parallel()
	const (
		password = "correct horse battery staple, planted by a test"
		changed  = "Tr0ub4dor&3, planted by a test, too"
	)
	s := newSite(t)
	s.configMap("greeting", "this may be on the disk")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "planted"}, StringData: map[string]string{"password": password}}
	if _, err := cluster.Client().CoreV1().Secrets(s.namespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.allow(rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, Verbs: []string{"create"}})
	p := s.pod(func(p *corev1.Pod) {
		// The most verbose level: other levels log less.
		p.Annotations["rockpool.dev/log-level"] = "debug"
		p.Spec.Containers = append(p.Spec.Containers,
			corev1.Container{Name: "typed", Image: "informer:dev", Command: []string{"/informer", "-resource=secrets.v1."}},
			corev1.Container{Name: "dynamic", Image: "informer:dev", Command: []string{"/informer", "-client=dynamic", "-resource=secrets.v1."}},
			corev1.Container{Name: "lists", Image: "informer:dev", Command: []string{"/informer", "-resource=secrets.v1."},
				Env: []corev1.EnvVar{{Name: "KUBE_FEATURE_WatchListClient", Value: "false"}}})
	})
	p.sees("synced")
	informers := []*program{p.program("typed"), p.program("dynamic"), p.program("lists")}
	for _, c := range informers {
		c.await(`"synced"`)
		if n := c.count("present", "planted"); n != 1 {
			t.Fatalf("the informer %s has the secret %d times", c.container, n)
		}
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(password))
	secrets := "/api/v1/namespaces/" + s.namespace + "/secrets"
	read := func() {
		for _, args := range [][]string{
			{"get", "secret", "planted", "-o", "yaml"},
			{"get", "secrets", "-o", "json"},
			{"get", "secrets"},
			{"describe", "secret", "planted"},
			{"get", "--raw", secrets + "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"},
			{"get", "configmaps", "-o", "yaml"},
			{"get", "configmaps"},
			{"api-resources"},
		} {
			p.run(append([]string{"/kubectl"}, args...)...)
		}
		p.ask(get(secrets), get(secrets+"/planted"), with("GET", secrets, map[string]string{"Accept": "application/vnd.kubernetes.protobuf"}),
			with("GET", secrets+"/planted", map[string]string{"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}),
			with("GET", "/api/v1/namespaces/"+s.namespace+"/secrets/", nil), with("GET", s.configMaps(), map[string]string{"Authorization": "Bearer nonsense"}))
	}
	if out := p.kubectl("get", "secret", "planted", "-o", "yaml"); !strings.Contains(out, encoded) {
		t.Fatalf("online: %s", out)
	}
	read()
	// The answer to this request is a token.
	tokens := []string{p.token(), strings.TrimSpace(p.kubectl("create", "token", "default")), s.requestToken("default")}
	p.ask(with("GET", s.configMaps(), map[string]string{"Authorization": "Bearer " + tokens[2]}))
	secret.StringData["password"] = changed
	if _, err := cluster.Client().CoreV1().Secrets(s.namespace).Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range informers {
		c.await(`"updated"`, base64.StdEncoding.EncodeToString([]byte(changed)))
	}
	encoded = base64.StdEncoding.EncodeToString([]byte(changed))

	t.Run("the app gets a rotated token, and requests continue", func(t *testing.T) {
		p := p.in(t)
		if err := p.RotateTokens(t.Context()); err != nil {
			t.Fatal(err)
		}
		kubelets := strings.TrimSpace(p.shell("rockpool-sidecar", "cat /var/run/secrets/kubernetes.io/serviceaccount/token"))
		if kubelets == tokens[0] {
			t.Fatal("the token was not rotated, so this test shows nothing")
		}
		p.site.until("the app's copy is the new token", func() bool { return p.token() == kubelets })
		tokens = append(tokens, kubelets)
		p.site.configMap("greeting", "behind the rotation")
		p.sees("updated", "behind the rotation")
		if out := p.kubectl("get", "configmap", "greeting", "-o", "yaml"); !strings.Contains(out, "behind the rotation") {
			t.Error(out)
		}
	})
	p.offline()
	p.restart("rockpool-sidecar")
	if out := p.kubectl("get", "configmap", "greeting", "-o", "yaml"); !strings.Contains(out, "behind the rotation") {
		t.Errorf("offline with the new token: %s", out)
	}
	// From the pod's memory, not from the node's disk.
	if out := p.kubectl("get", "secret", "planted", "-o", "yaml"); !strings.Contains(out, encoded) {
		t.Errorf("the secret offline, after a restart: %s", out)
	}
	for _, c := range informers {
		c.restartAndSync()
		if n := c.count("present", "planted"); n != 1 || !strings.Contains(mustLogs(t, p, c.container)[c.begun:], encoded) {
			t.Errorf("the informer %s, restarted offline, has the secret %d times", c.container, n)
		}
	}
	for _, v := range p.Pod().Spec.Volumes {
		if memory := v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory; v.Name == "rockpool-private" && !memory {
			t.Errorf("keys and secrets are on %+v", v.VolumeSource)
		}
	}
	read()

	private := p.private(tokens, password, changed)
	t.Run("private data is neither on the disk nor in the log", func(t *testing.T) {
		disk := s.disk()
		if !bytes.Contains(disk, []byte("behind the rotation")) || !bytes.Contains(disk, []byte("this may be on the disk")) || !bytes.Contains(disk, []byte("/rockpool.db-wal")) {
			t.Error("the disk does not even have public data, so this test shows nothing")
		}
		absent(t, private, "the node's disk", disk)
		absent(t, private, "the sidecar's log", []byte(mustLogs(t, p, "rockpool-sidecar")))
	})
	t.Run("other users cannot read the directories on the node", func(t *testing.T) { closedToOthers(t, s) })
	t.Run("private data is not on the disk after the pod has ended", func(t *testing.T) {
		p := p.in(t)
		p.online()
		read() // the sidecar writes the last answers at its end
		p.remove()
		absent(t, private, "the node's disk", s.disk())
	})
}

// private is the private data, by name, in the forms in which it could leak.
func (p *testPod) private(tokens []string, passwords ...string) map[string][]byte {
	p.site.t.Helper()
	private := map[string][]byte{}
	for i, password := range passwords {
		private[fmt.Sprintf("secret %d", i)] = []byte(password)
		private[fmt.Sprintf("secret %d in base64", i)] = []byte(base64.StdEncoding.EncodeToString([]byte(password)))
	}
	for i, token := range tokens {
		private[fmt.Sprintf("token %d", i)] = []byte(token)
		private[fmt.Sprintf("the signature of token %d", i)] = []byte(token[strings.LastIndexByte(token, '.')+1:])
	}
	for name, key := range p.privateKeys() {
		private[name] = key
	}
	return private
}

// absent fails the test if a place has private data.
func absent(t *testing.T, private map[string][]byte, place string, content []byte) {
	t.Helper()
	for name, needle := range private {
		if bytes.Contains(content, needle) {
			t.Errorf("%s is in %s", name, place)
		}
	}
}

// privateKeys returns the pod's keys in the two forms in which they could leak.
func (p *testPod) privateKeys() map[string][]byte {
	p.site.t.Helper()
	keys := map[string][]byte{}
	rest := []byte(p.shell("rockpool-sidecar", "find /var/run/rockpool/private -maxdepth 1 -type f -exec cat {} +"))
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "PRIVATE KEY" {
			keys["a key "+string('0'+rune(len(keys)))] = block.Bytes
			keys["a key "+string('0'+rune(len(keys)))+" in base64"] = []byte(base64.StdEncoding.EncodeToString(block.Bytes)[:64])
		}
	}
	if len(keys) != 4 {
		p.site.t.Fatalf("%d forms of keys, want two of the CA's key and two of the server's", len(keys))
	}
	return keys
}

// disk is the content of the node's disk: names, databases with their free pages, write-ahead logs.
func (s *site) disk() (all []byte) {
	s.t.Helper()
	err := filepath.WalkDir(s.Root, func(path string, entry fs.DirEntry, err error) error {
		all = append(all, path...)
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		all = append(all, content...)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

func closedToOthers(t *testing.T, s *site) {
	// If the pod runner is not root, all users of a pod are the present user.
	sidecar, root := os.Geteuid(), os.Geteuid()
	if root == 0 {
		sidecar = 65532
	}
	volume := filepath.Join(s.Root, "var/lib/rockpool")
	pod := filepath.Join(volume, s.namespace, "default", "pod.web")
	files := 0
	err := filepath.WalkDir(volume, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == volume {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode, owner := fs.FileMode(0o600), sidecar
		if filepath.Dir(path) == volume && !entry.IsDir() {
			owner = root // of rockpool-prepare
		}
		if entry.IsDir() {
			mode = 0o700
			if !strings.HasPrefix(path, pod) {
				owner = root
			}
		} else {
			files++
		}
		if uid := int(info.Sys().(*syscall.Stat_t).Uid); info.Mode().Perm() != mode || uid != owner {
			t.Errorf("%s: %s of user %d, want %s of user %d", strings.TrimPrefix(path, s.Root), info.Mode(), uid, mode, owner)
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Errorf("%d files: %v", files, err)
	}
}
