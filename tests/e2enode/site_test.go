package e2enode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"rockpool.dev/tests/bed/node"
	"rockpool.dev/tests/edge"
)

// patience bounds each wait. A test that passes does not wait that long.
const patience = 2 * time.Minute

// poll calls ask until it succeeds. The error has the last error of ask.
func poll(ctx context.Context, ask func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		last = ask(ctx)
		return last == nil, nil
	})
	if err != nil && last != nil {
		return fmt.Errorf("%w: %w", err, last)
	}
	return err
}

// site is a namespace on the node.
type site struct {
	t         *testing.T
	ctx       context.Context
	namespace string
}

// newSite creates a namespace with a ConfigMap and a Secret. The link is up, also after the test.
func newSite(t *testing.T, name string) *site {
	t.Helper()
	if testEnv == nil {
		t.Skip(notRun)
	}
	s := &site{t: t, ctx: t.Context(), namespace: name}
	s.try(edge.Namespace(s.ctx, testEnv.ControlPlane, name))
	s.configMap("hello")
	_, err := testEnv.Client().CoreV1().Secrets(name).Create(s.ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "hush"}, StringData: map[string]string{"value": secretValue},
	}, metav1.CreateOptions{})
	s.try(err)
	t.Cleanup(func() {
		testEnv.node.Link.Restore()
		if t.Failed() {
			s.logState()
		}
	})
	return s
}

// secretValue is in a Secret that applications read, and must not be on the node's disk.
const secretValue = "only-in-memory-please"

func (s *site) try(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// until waits for a condition.
func (s *site) until(what string, ask func(context.Context) error) {
	s.t.Helper()
	if err := poll(s.ctx, ask); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

// logState logs the state and the logs of the pods.
func (s *site) logState() {
	ctx := context.WithoutCancel(s.ctx)
	for _, args := range [][]string{{"get", "pods", "-o", "wide"}, {"get", "events"}, {"describe", "pods"}} {
		out, err := testEnv.command(ctx, append([]string{testEnv.Tools().Kubectl, "-n", s.namespace}, args...)...)
		s.t.Logf("kubectl %v: %v\n%s", args, err, out)
	}
	pods, err := testEnv.Client().CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		s.t.Log(err)
		return
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			lines, err := lines(p, c.Name)
			text := ""
			for _, l := range lines[max(0, len(lines)-50):] {
				text += l.Time.Format(time.StampMilli) + " " + l.Text + "\n"
			}
			s.t.Logf("--- %s %s: %v\n%s", p.Name, c.Name, err, text)
		}
	}
}

// configMap creates or changes the ConfigMap greeting, not over the link.
func (s *site) configMap(value string) {
	s.t.Helper()
	api := testEnv.Client().CoreV1().ConfigMaps(s.namespace)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "greeting"}, Data: map[string]string{"value": value}}
	_, err := api.Update(s.ctx, cm, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(s.ctx, cm, metav1.CreateOptions{})
	}
	s.try(err)
}

// kubectl runs kubectl in the namespace. It must succeed.
func (s *site) kubectl(args ...string) string {
	s.t.Helper()
	return s.admin(append([]string{"-n", s.namespace}, args...)...)
}

// admin runs kubectl without a namespace. It must succeed.
func (s *site) admin(args ...string) string {
	s.t.Helper()
	out, err := testEnv.command(context.WithoutCancel(s.ctx), append([]string{testEnv.Tools().Kubectl}, args...)...)
	s.try(err)
	return out
}

// pod waits until the only pod with the label app that is not being deleted is ready.
func (s *site) pod(app string) *pod {
	s.t.Helper()
	var found *corev1.Pod
	s.until("pod of "+app, func(ctx context.Context) error {
		var err error
		if found, err = s.find(ctx, app); err != nil {
			return err
		}
		if !ready(found) {
			return fmt.Errorf("%s is not ready: %s", found.Name, found.Status.Phase)
		}
		return nil
	})
	return &pod{Pod: found, site: s}
}

// find returns that pod, ready or not.
func (s *site) find(ctx context.Context, app string) (*corev1.Pod, error) {
	pods, err := testEnv.Client().CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		return nil, err
	}
	var found []*corev1.Pod
	for i := range pods.Items {
		if pods.Items[i].DeletionTimestamp == nil {
			found = append(found, &pods.Items[i])
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%d pods of %s, want 1", len(found), app)
	}
	return found[0], nil
}

func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// pod is a pod on the node.
type pod struct {
	*corev1.Pod
	site *site
}

// sees waits until a container prints a line with all words after its last start.
func (p *pod) sees(container string, words ...string) { p.seesAfter(time.Time{}, container, words...) }

// seesAfter is sees for lines printed after a time.
func (p *pod) seesAfter(after time.Time, container string, words ...string) {
	p.site.t.Helper()
	p.site.until(fmt.Sprintf("%s of %s prints %q", container, p.Name, words), func(context.Context) error {
		lines, err := lines(p.Pod, container)
		if err != nil {
			return err
		}
		for _, l := range lines {
			if l.Time.After(after) && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(l.Text, w) }) {
				return nil
			}
		}
		return fmt.Errorf("%d lines, none with all words", len(lines))
	})
}

// lines are the lines of a container since its last start.
func lines(pod *corev1.Pod, container string) ([]node.Line, error) {
	return testEnv.node.Lines(pod, container)
}

// file returns the content of a file of a running container.
func (p *pod) file(container, path string) string {
	p.site.t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", p.pid(container), path))
	p.site.try(err)
	return string(content)
}

// pid is the process id of a running container.
func (p *pod) pid(container string) int {
	p.site.t.Helper()
	pid, err := testEnv.node.PID(p.site.ctx, p.Pod, container)
	p.site.try(err)
	return pid
}

// kill kills a container and waits until the kubelet has restarted it.
func (p *pod) kill(container string) {
	p.site.t.Helper()
	p.site.try(testEnv.node.Kill(p.site.ctx, p.Pod, container))
}

// linkIs waits until the sidecar has recorded a state of the link.
func (p *pod) linkIs(state string) {
	p.site.t.Helper()
	p.site.until("the sidecar of "+p.Name+" is "+state, func(ctx context.Context) error {
		got, err := p.sql(ctx, "SELECT state FROM link ORDER BY id DESC LIMIT 1")
		if err == nil && got != state {
			err = fmt.Errorf("the link is %s", got)
		}
		return err
	})
}

// slots are the cache directories of the pod's workload on the node's disk.
func (p *pod) slots() ([]string, error) {
	return filepath.Glob(filepath.Join("/var/lib/rockpool", p.Namespace, p.Spec.ServiceAccountName, "*"+p.Labels["app"]+"*", "*"))
}

// sql queries the newest cache of the workload with the sqlite3 shell.
func (p *pod) sql(ctx context.Context, query string) (string, error) {
	slots, err := p.slots()
	if err == nil && len(slots) == 0 {
		err = errors.New("no slot on the node's disk")
	}
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "sqlite3", "-readonly", filepath.Join(slots[len(slots)-1], "rockpool.db"), query).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// recorded waits until the ConfigMap is on the disk.
func (p *pod) recorded() {
	p.site.t.Helper()
	p.site.until("the ConfigMap is recorded", func(ctx context.Context) error {
		got, err := p.sql(ctx, "SELECT count(*) FROM v_object WHERE name = 'greeting'")
		if err == nil && got == "0" {
			err = errors.New("it is not there")
		}
		return err
	})
}
