package e2e

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/pod"
)

func TestAnUnmodifiedInformerSurvivesOutagesAndRestarts(t *testing.T) {
	t.Parallel()
	for _, mode := range []struct {
		name  string
		env   []corev1.EnvVar
		lists bool
	}{
		{"with watch lists", nil, false},
		{"with lists", []corev1.EnvVar{{Name: "KUBE_FEATURE_WatchListClient", Value: "false"}}, true},
	} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.configMap("greeting", "hello")
			p := s.pod(withDebugLog, func(p *corev1.Pod) { p.Spec.Containers[0].Env = mode.env })

			p.sees("present", "greeting", "hello")
			p.sees("synced", `"count":2`) // one ConfigMap is the cluster's CA
			changed := s.configMap("greeting", "hello again")
			p.sees("updated", "greeting", "hello again")
			s.until("the change is recorded", func() bool {
				return s.sql("SELECT resource_version FROM v_object WHERE name = 'greeting'") == changed.ResourceVersion
			})

			if lists := strings.Contains(mustLogs(t, p, "rockpool-sidecar"), `"verb":"list"`); lists != mode.lists {
				t.Errorf("the informer has listed: %v", lists)
			}
			p.offline()
			p.restart("app")
			p.sees("present", "greeting", "hello again")
			p.sees("synced", `"count":2`)
			p.restart("rockpool-sidecar")
			p.restart("app")
			p.sees("present", "greeting", "hello again")
			p.sees("synced", `"count":2`)

			s.configMap("greeting", "good morning")
			s.configMap("new", "arrived")
			p.online()
			p.sees("updated", "greeting", "good morning")
			p.sees("added", "new", "arrived")
			if n := strings.Count(mustLogs(t, p, "app"), `"event":"synced"`); n != 3 {
				t.Errorf("the informer synced %d times, want once per start, and not when the link returns", n)
			}
			if err := cluster.Client().CoreV1().ConfigMaps(s.namespace).Delete(t.Context(), "new", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			p.sees("deleted", "new")
		})
	}
}

func mustLogs(t *testing.T, p *testPod, container string) string {
	t.Helper()
	text, err := p.Logs(container)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAWatchStaysOpenWhileTheLinkIsDown(t *testing.T) {
	t.Parallel()
	for name, breakLink := range map[string]func(*testPod){
		"cut":        func(p *testPod) { p.site.Link.Cut() },
		"black hole": func(p *testPod) { p.site.Link.BlackHole() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			p := s.pod(withDebugLog)
			p.sees("synced")
			breakLink(p)
			p.linkIs("offline")
			s.configMap("meanwhile", "in the cloud")
			p.online()
			p.sees("added", "meanwhile")
			if n := strings.Count(mustLogs(t, p, "rockpool-sidecar"), `"verb":"watch"`); n != 0 {
				t.Errorf("%d watches have ended, want the only one still open", n)
			}
		})
	}
}

func TestThePythonClientRunsUnmodified(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configMap("greeting", "hello")
	p := s.pod()
	if a := p.python("get", "greeting"); a.Data["value"] != "hello" {
		t.Fatalf("online: %+v", a)
	}
	if a := p.python("create", "mine"); a.Name != "mine" {
		t.Fatalf("a write: %+v", a)
	}
	online := p.python("list")
	if len(online.Items) != 3 {
		t.Fatalf("online: %+v", online)
	}
	p.offline()
	offline := p.python("list")
	if offline.ResourceVersion == "" || len(offline.Items) != 3 {
		t.Fatalf("offline: %+v", offline)
	}
	for i := range online.Items {
		if a, b := online.Items[i], offline.Items[i]; a.Name != b.Name || a.ResourceVersion != b.ResourceVersion {
			t.Errorf("%+v offline, %+v online", b, a)
		}
	}
	p.restart("rockpool-sidecar")
	if a := p.python("get", "greeting"); a.Data["value"] != "hello" {
		t.Errorf("an object: %+v", a)
	}
	if a := p.python("get", "nope"); a.Status != 404 || a.Reason != "NotFound" {
		t.Errorf("an object that is not in the recorded list: %+v", a)
	}
	if a := p.python("create", "offline"); a.Status != 503 || a.Reason != "ServiceUnavailable" || !strings.Contains(a.Message, "link") {
		t.Errorf("a write: %+v", a)
	}
	p.online()
	if a := p.python("create", "after"); a.Name != "after" {
		t.Errorf("a write after the link is back: %+v", a)
	}
}

// kubectlOutputs are commands whose output stays the same while the objects do not change.
var kubectlOutputs = [][]string{
	{"get", "configmaps", "-o", "name"},
	{"get", "configmap", "greeting", "-o", "jsonpath={.data.value}"},
	{"get", "configmap", "greeting", "-o", "yaml"},
	{"get", "configmaps", "-l", "app=greeting", "-o", "name"},
	{"get", "configmaps", "--field-selector", "metadata.name=greeting", "-o", "name"},
	{"get", "configmaps", "-o", "json"},
	{"get", "configmaps", "-A", "-o", "name"},
	{"get", "--raw", "/version"},
	{"describe", "configmap", "greeting"},
	{"api-resources"},
	{"api-versions"},
	{"explain", "configmap.data"},
	{"version", "-o", "json"},
}

// kubectlTables are commands that print a Table, whose last column is the age.
var kubectlTables = [][]string{
	{"get", "configmaps"},
	{"get", "configmap", "greeting"},
	{"get", "configmaps", "-o", "wide"},
	{"get", "configmaps", "-A"},
	{"get", "configmaps", "-l", "app=greeting"},
}

// kubectlSays runs all these commands. kubectl's own cache is empty, so that it requests each
// document.
func (p *testPod) kubectlSays(phase string) (outputs, tables []string) {
	p.site.t.Helper()
	fresh := "--cache-dir=/tmp/kube-" + phase
	for _, args := range kubectlOutputs {
		outputs = append(outputs, p.kubectl(append(args[:len(args):len(args)], fresh)...))
	}
	for _, args := range kubectlTables {
		table := ""
		for line := range strings.Lines(p.kubectl(append(args[:len(args):len(args)], fresh)...)) {
			columns := strings.Fields(line)
			table += strings.Join(columns[:len(columns)-1], " ") + "\n"
		}
		tables = append(tables, table)
	}
	return outputs, tables
}

// kubectlStreams starts kubectl, which runs until stop is called.
func (p *testPod) kubectlStreams(args ...string) (stream *output, stop func()) {
	p.site.t.Helper()
	ctx, cancel := context.WithCancel(p.site.ctx)
	stream = &output{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = p.ExecStream(ctx, "shell", pod.ExecOptions{Argv: append([]string{"/kubectl"}, args...), Stdout: stream, Stderr: stream})
	}()
	return stream, func() { cancel(); <-ended }
}

// kubectlWatches starts kubectl get --watch, which runs until stop is called.
func (p *testPod) kubectlWatches(args ...string) (stream *output, stop func()) {
	p.site.t.Helper()
	stream, stop = p.kubectlStreams(append([]string{"get", "--watch"}, args...)...)
	p.site.until("kubectl get --watch prints the existing objects", func() bool {
		return strings.Contains(stream.String(), "greeting") && strings.Contains(stream.String(), "kube-root-ca.crt")
	})
	return stream, stop
}

func TestKubectlRunsUnmodified(t *testing.T) {
	s := newSite(t)
	s.allowEverywhere(rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list", "watch"}})
	s.configMap("greeting", "hello")
	p := s.pod()
	p.sees("synced")
	online, tables := p.kubectlSays("online")
	if !strings.Contains(tables[0], "NAME DATA") || !strings.Contains(tables[0], "greeting 1") {
		t.Fatalf("a table: %s", tables[0])
	}
	_, stop := p.kubectlWatches("configmaps")
	stop()
	same := func(phase string) {
		outputs, rows := p.kubectlSays(phase)
		for i, got := range outputs {
			if got != online[i] {
				t.Errorf("kubectl %v, %s:\n%s\nonline:\n%s", kubectlOutputs[i], phase, got, online[i])
			}
		}
		for i, got := range rows {
			if got != tables[i] {
				t.Errorf("kubectl %v, %s:\n%s\nonline:\n%s", kubectlTables[i], phase, got, tables[i])
			}
		}
	}
	p.offline()
	same("offline")
	_, stop = p.kubectlWatches("configmaps")
	stop()
	p.restart("rockpool-sidecar")
	same("restarted")

	// Tables that were not requested online have only the columns name and age, since only the
	// server knows the others.
	if out := p.kubectl("get", "configmaps", "-l", "app in (greeting)"); !strings.HasPrefix(out, "NAME") || strings.Contains(out, "DATA") || !strings.Contains(out, "greeting") || strings.Contains(out, "kube-root-ca.crt") {
		t.Errorf("a table that was not recorded: %s", out)
	}
	refusals := []struct {
		args []string
		want string
	}{
		{[]string{"get", "configmap", "nope"}, "NotFound"},
		{[]string{"get", "services"}, "not recorded"},
		{[]string{"create", "configmap", "x"}, "link to the API server is down"},
		{[]string{"delete", "configmap", "greeting"}, "link to the API server is down"},
	}
	for _, tt := range refusals {
		result := p.run(append([]string{"/kubectl"}, tt.args...)...)
		if result.ExitCode == 0 || !strings.Contains(result.Stderr, tt.want) {
			t.Errorf("kubectl %v offline: %d %s%s, want %q", tt.args, result.ExitCode, result.Stdout, result.Stderr, tt.want)
		}
	}

	stream, stop := p.kubectlWatches("configmaps", "-o", "jsonpath={.metadata.name} {.data.value}{'\\n'}")
	defer stop()
	p.online()
	same("back")
	s.configMap("greeting", "good morning")
	s.until("kubectl get --watch continues", func() bool { return strings.Contains(stream.String(), "greeting good morning") })
	if n := strings.Count(stream.String(), "kube-root-ca.crt"); n != 1 {
		t.Errorf("kubectl get --watch prints an unchanged object %d times: %s", n, stream)
	}
}
