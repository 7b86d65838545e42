// Package e2e tests all of Rockpool with a real API server and with unmodified clients, over a link
// that the tests break. Every pod is a pod that the API server has returned after admission.
package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"rockpool.dev/tests/bed/link"
	"rockpool.dev/tests/bed/pod"
	"rockpool.dev/tests/edge"
)

// race builds Rockpool and the test programs with the race detector, whose memory grows with time.
var race = flag.Bool("race-detector", true, "build Rockpool with the race detector")

// cluster is shared by all tests. Each test has its own namespace and node.
var cluster *edge.Edge

func TestMain(m *testing.M) {
	flag.Parse()
	if err := runTogether(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	images, err := serverImages(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	options := edge.Options{Race: *race, Programs: []string{"asker", "leader", "manager", "socket", "watcher"}, Images: images}
	if cluster, err = edge.Start(ctx, options); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := cluster.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// runTogether runs three parallel tests for each processor, unless -parallel says otherwise: they
// wait for links and timers most of the time. A test that disturbs others is not parallel: one that
// restarts the injector or the API server, changes the cluster's RBAC rules, or lists all namespaces.
func runTogether() error {
	const name = "test.parallel"
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return nil
	}
	return flag.Set(name, strconv.Itoa(3*runtime.GOMAXPROCS(0)))
}

// patience bounds each wait. A test that passes does not wait that long.
const patience = 60 * time.Second

// site is a namespace, a node and the pods on it.
type site struct {
	*edge.Node
	cluster   *edge.Edge
	t         *testing.T
	ctx       context.Context
	namespace string
}

func newSite(t *testing.T) *site {
	t.Helper()
	return newSiteIn(t, cluster)
}

func newSiteIn(t *testing.T, cluster *edge.Edge) *site {
	t.Helper()
	name := strings.ToLower(strings.Map(func(r rune) rune {
		if r == '/' || r == '_' {
			return '-'
		}
		return r
	}, t.Name()))
	return newSiteNamed(t, cluster, strings.TrimRight(name[:min(len(name), 60)], "-"))
}

// newSiteNamed is for tests whose output shows the name of the namespace to a person.
func newSiteNamed(t *testing.T, cluster *edge.Edge, name string) *site {
	t.Helper()
	if err := cluster.Namespace(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	node, err := cluster.NewNode(root, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	return &site{Node: node, cluster: cluster, t: t, ctx: t.Context(), namespace: name}
}

// linkAt adds a link to a server, which the pods of this site reach at address (host:port).
func (s *site) linkAt(address, server string) *link.Link {
	s.t.Helper()
	l, err := link.New(server)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(l.Close)
	s.Links[address] = l
	return l
}

// until waits for a condition.
func (s *site) until(what string, f func() bool) {
	s.t.Helper()
	s.untilWithin(patience, what, f)
}

func (s *site) untilWithin(most time.Duration, what string, f func() bool) {
	s.t.Helper()
	err := wait.PollUntilContextTimeout(s.ctx, 20*time.Millisecond, most, true, func(context.Context) (bool, error) { return f(), nil })
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

// pod creates a pod and waits until it runs.
func (s *site) pod(change ...func(*corev1.Pod)) *testPod {
	s.t.Helper()
	spec := edge.Pod(s.namespace, "web")
	for _, f := range change {
		f(spec)
	}
	runner, err := s.Create(s.ctx, spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.started(runner)
}

// withDebugLog makes the sidecar log each request.
func withDebugLog(p *corev1.Pod) { p.Annotations["rockpool.dev/log-level"] = "debug" }

// started waits until a pod runs.
func (s *site) started(runner *pod.Runner) *testPod {
	s.t.Helper()
	p := &testPod{Runner: runner, site: s, output: edge.NewOutput(runner, "app")}
	s.t.Cleanup(p.end)
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := p.WaitRunning(ctx); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// configMap creates or changes a ConfigMap, not over the link.
func (s *site) configMap(name, value string) *corev1.ConfigMap {
	s.t.Helper()
	api := s.cluster.Client().CoreV1().ConfigMaps(s.namespace)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}, Data: map[string]string{"value": value}}
	out, err := api.Update(s.ctx, cm, metav1.UpdateOptions{})
	if err != nil {
		out, err = api.Create(s.ctx, cm, metav1.CreateOptions{})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// testPod is a running pod.
type testPod struct {
	*pod.Runner
	site   *site
	output *edge.Output // of the app
}

// shownOutput bounds what a failed test shows of each container's output, in bytes.
const shownOutput = 256 << 10

func (p *testPod) end() {
	if p.site.t.Failed() {
		p.site.t.Logf("cache:\n%s", p.site.sql("SELECT * FROM v_collection; SELECT collection_id, name, resource_version FROM v_object; SELECT path, accept FROM response; SELECT * FROM v_link"))
		for _, c := range p.Statuses() {
			text, _ := p.Logs(c.Name)
			p.site.t.Logf("--- %s %+v\n%s", c.Name, c, text[max(0, len(text)-shownOutput):])
		}
	}
	if err := p.Stop(); err != nil {
		p.site.t.Error(err)
	}
	// The race detector writes to the sidecar's output.
	if text, _ := p.Logs("rockpool-sidecar"); strings.Contains(text, "DATA RACE") {
		p.site.t.Errorf("race in the sidecar:\n%s", text)
	}
}

// sees waits until the app prints a line with all words, after the line that the last call found.
func (p *testPod) sees(words ...string) {
	p.site.t.Helper()
	ctx, cancel := context.WithTimeout(p.site.ctx, patience)
	defer cancel()
	if _, err := p.output.Await(ctx, words...); err != nil {
		p.site.t.Fatal(err)
	}
}

// restart restarts a container. After a restart of the app, sees looks only at new lines.
func (p *testPod) restart(container string) {
	p.site.t.Helper()
	if container == "app" {
		if err := p.output.Skip(); err != nil {
			p.site.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(p.site.ctx, patience)
	defer cancel()
	if err := p.RestartContainer(ctx, container); err != nil {
		p.site.t.Fatal(err)
	}
}

// run runs a command in the shell container.
func (p *testPod) run(argv ...string) pod.ExecResult {
	p.site.t.Helper()
	ctx, cancel := context.WithTimeout(p.site.ctx, patience)
	defer cancel()
	result, err := p.Exec(ctx, "shell", argv...)
	if err != nil {
		p.site.t.Fatal(err)
	}
	return result
}

// kubectl runs kubectl in the pod and returns its output. It must succeed.
func (p *testPod) kubectl(args ...string) string {
	p.site.t.Helper()
	result := p.run(append([]string{"/kubectl"}, args...)...)
	if result.ExitCode != 0 {
		p.site.t.Fatalf("kubectl %v: %d\n%s%s", args, result.ExitCode, result.Stdout, result.Stderr)
	}
	return result.Stdout
}

// answer is the output of client.py.
type answer struct {
	Status          int
	Reason, Message string
	Name            string
	ResourceVersion string
	Data            map[string]string
	Items           []answer
}

func (p *testPod) python(args ...string) (a answer) {
	p.site.t.Helper()
	result := p.run(append([]string{"/usr/bin/python3", "/client.py"}, args...)...)
	if err := json.Unmarshal([]byte(result.Stdout), &a); err != nil || result.ExitCode != 0 {
		p.site.t.Fatalf("client.py %v: %d %v\n%s%s", args, result.ExitCode, err, result.Stdout, result.Stderr)
	}
	return a
}

// sidecarSays waits for a line of the sidecar's log.
func (p *testPod) sidecarSays(text string) {
	p.site.t.Helper()
	ctx, cancel := context.WithTimeout(p.site.ctx, patience)
	defer cancel()
	if err := p.WaitLog(ctx, "rockpool-sidecar", text); err != nil {
		p.site.t.Fatal(err)
	}
}

// offline cuts the link and waits until the sidecar is offline.
func (p *testPod) offline() {
	p.site.t.Helper()
	p.site.Link.Cut()
	p.linkIs("offline")
}

// online restores the link and waits until the sidecar is online.
func (p *testPod) online() {
	p.site.t.Helper()
	p.site.Link.Restore()
	p.linkIs("online")
}

// linkIs waits until the last recorded state of the link is state.
func (p *testPod) linkIs(state string) {
	p.site.t.Helper()
	ctx, cancel := context.WithTimeout(p.site.ctx, patience)
	defer cancel()
	if err := p.site.AwaitLink(ctx, p.Runner, state); err != nil {
		p.site.t.Fatal(err)
	}
}

// sql queries the cache with the sqlite3 shell.
func (s *site) sql(query string) string {
	s.t.Helper()
	out, err := s.SQL(context.WithoutCancel(s.ctx), query)
	if err != nil {
		s.t.Log(err)
	}
	return out
}
