package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/edge"
)

// program is a container that prints a line for each event.
type program struct {
	*testPod
	container string
	output    *edge.Output
	begun     int // length of its output at its last start
}

func (p *testPod) program(container string) *program {
	return &program{testPod: p, container: container, output: edge.NewOutput(p.Runner, container)}
}

// programLine is an output line of a test program.
type programLine struct {
	Event, Resource, Kind      string
	Name, UID, ResourceVersion string
	Data                       map[string]string
}

// lines are the lines since the program's last start.
func (c *program) lines() (all []programLine) {
	c.site.t.Helper()
	for line := range strings.Lines(mustLogs(c.site.t, c.testPod, c.container)[c.begun:]) {
		var l programLine
		if json.Unmarshal([]byte(line), &l) == nil { // others are log lines
			all = append(all, l)
		}
	}
	return all
}

// await waits for a line with all words, after the line that the last await found.
func (c *program) await(words ...string) {
	c.site.t.Helper()
	ctx, cancel := context.WithTimeout(c.site.ctx, patience)
	defer cancel()
	if _, err := c.output.Await(ctx, words...); err != nil {
		c.site.t.Fatal(err)
	}
}

// restartAndSync restarts the program and waits until it has synced.
func (c *program) restartAndSync() {
	c.site.t.Helper()
	if err := c.output.Skip(); err != nil {
		c.site.t.Fatal(err)
	}
	c.begun = len(mustLogs(c.site.t, c.testPod, c.container))
	c.restart(c.container)
	c.await(`"event":"synced"`)
}

// present are the objects that the program had when it synced.
func (c *program) present() map[string]string {
	c.site.t.Helper()
	all := map[string]string{}
	for _, l := range c.lines() {
		if l.Event == "present" {
			all[l.Resource+l.Kind+" "+l.Name] = fmt.Sprint(l.UID, " at ", l.ResourceVersion, " ", l.Data)
		}
	}
	return all
}

// count counts the lines about one kind of event of an object.
func (c *program) count(event, name string) (n int) {
	c.site.t.Helper()
	for _, l := range c.lines() {
		if l.Event == event && l.Name == name {
			n++
		}
	}
	return n
}

// TestUnmodifiedClientsSurviveOutagesAndRestarts runs a controller-runtime manager and dynamic and
// metadata informers, each in both modes of client-go.
func TestUnmodifiedClientsSurviveOutagesAndRestarts(t *testing.T) {
	t.Parallel()
	for _, mode := range []struct {
		name string
		env  []corev1.EnvVar
	}{
		{"with watch lists", nil},
		{"with lists", []corev1.EnvVar{{Name: "KUBE_FEATURE_WatchListClient", Value: "false"}}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.customResources()
			s.allow(rbacv1.PolicyRule{APIGroups: []string{customGroup}, Resources: []string{"widgets"}, Verbs: []string{"get", "list", "watch"}})
			s.configMap("greeting", "hello")
			s.configMap("steady", "as it was")
			s.widget("gear", "hello")
			s.widget("steady", "as it was")
			service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "steady"}, Spec: corev1.ServiceSpec{ClusterIP: "None"}}
			_, err := cluster.Client().CoreV1().Services(s.namespace).Create(s.ctx, service, metav1.CreateOptions{})
			s.must(err)
			clientsOutlive(t, s, mode.env)
		})
	}
}

func clientsOutlive(t *testing.T, s *site, env []corev1.EnvVar) {
	informer := func(name string, args ...string) corev1.Container {
		return corev1.Container{Name: name, Image: "informer:dev", Command: append([]string{"/informer"}, args...), Env: env}
	}
	p := s.pod(func(p *corev1.Pod) {
		p.Spec.Containers[0] = corev1.Container{Name: "manager", Image: "manager:dev", Env: env}
		p.Spec.Containers = append(p.Spec.Containers,
			informer("dynamic", "-client=dynamic", "-resource=configmaps.v1.,widgets.v1."+customGroup),
			informer("metadata", "-client=metadata", "-resource=configmaps.v1.,services.v1.,widgets.v1."+customGroup))
	})
	programs := []*program{p.program("manager"), p.program("dynamic"), p.program("metadata")}
	objects := []int{6, 5, 6} // one ConfigMap is the cluster's CA

	online := make([]map[string]string, len(programs))
	for i, c := range programs {
		c.await(`"event":"synced"`)
		if online[i] = c.present(); len(online[i]) != objects[i] {
			t.Errorf("%s has %d objects, want %d: %v", c.container, len(online[i]), objects[i], online[i])
		}
	}
	restarted := func(when string) {
		for i, c := range programs {
			c.restartAndSync()
			if diff := cmp.Diff(online[i], c.present()); diff != "" {
				t.Errorf("%s, %s (-online +offline):\n%s", c.container, when, diff)
			}
		}
	}
	p.offline()
	restarted("restarted offline")
	p.restart("rockpool-sidecar")
	restarted("restarted offline, behind a restart of the sidecar")

	cm, w := s.configMap("greeting", "good morning"), s.widget("gear", "good morning")
	s.configMap("new", "arrived")
	p.online()
	for _, c := range programs {
		c.await(`"greeting"`, cm.ResourceVersion)
	}
	for _, c := range programs {
		s.until(c.container+" sees the Widget and the new ConfigMap", func() bool {
			return strings.Contains(mustLogs(t, p, c.container)[c.begun:], w.GetResourceVersion()) && c.count("added", "new")+c.count("reconciled", "new") > 0
		})
	}
	s.must(cluster.Client().CoreV1().ConfigMaps(s.namespace).Delete(t.Context(), "new", metav1.DeleteOptions{}))
	for _, c := range programs {
		s.until(c.container+" sees the deletion", func() bool { return c.count("deleted", "new")+c.count("absent", "new") > 0 })
		seen := 0
		for _, l := range c.lines() {
			if l.Name == "steady" && (l.Event == "updated" || l.Event == "added") {
				t.Errorf("%s gets an event of an unchanged object, as after another list: %+v", c.container, l)
			}
			if l.Name == "steady" && l.Event == "reconciled" {
				seen++
			}
		}
		if c.container == "manager" && seen != 3 {
			t.Errorf("the manager has reconciled three unchanged objects %d times, want once each", seen)
		}
		if n := c.count("synced", ""); n != 1 || p.restarts(c.container) != 2 {
			t.Errorf("%s: %d syncs since its last start and %d restarts, want 1 and 2", c.container, n, p.restarts(c.container))
		}
	}
}
