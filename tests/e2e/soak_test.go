package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// soak is the length of TestSoak. `make soak` sets ten minutes.
var soak = flag.Duration("soak", 0, "how long TestSoak goes on; 0: it is left out")

// TestSoak has all kinds of clients in one pod, and random faults for a long time. In the first
// third of the time the sidecar is also restarted and killed. After that a single process gets all
// faults. At the end it must not have more goroutines, open files and memory than before. The
// clients must have the state of the server, and the watchers the events of a shadow. The verdict is
// due within a minute after the last fault.
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("it takes long: make soak")
	}
	s := newSite(t)
	s.customResources()
	s.allow(
		rbacv1.PolicyRule{APIGroups: []string{customGroup}, Resources: []string{"widgets"}, Verbs: []string{"get", "list", "watch"}},
		rbacv1.PolicyRule{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
		rbacv1.PolicyRule{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update"}},
	)
	random := randomOf(t)
	v := newSurvival(s, random, 24, clientsOfWatcher)
	all := corners(s, random)
	p := s.pod(withEveryLine, withAllPrograms, withCorners(all))
	v.runs(p, "app")
	for _, c := range all {
		c.runs(p, c.container())
	}
	v.corners = all
	others := v.otherPrograms()
	v.write(20)
	v.settle()
	others.settle()
	for _, c := range all {
		c.listOnce()
	}

	end := time.Now().Add(*soak)
	rough, faults := time.Now().Add(*soak/3), append(v.faults(), fault{"an outage in which the pod reads what it was told", v.outage})
	for time.Now().Before(rough) {
		v.apply(pick(v.random, faults...))
	}
	v.settle()
	others.settle()

	faults = slices.DeleteFunc(faults, func(f fault) bool { return strings.Contains(f.name, "of the sidecar") })
	restarts := v.pod.restarts("rockpool-sidecar")
	v.awaitIdle()
	before := v.pod.usage()
	t.Logf("after the restarts: %v", before)
	series := v.pod.sample(10 * time.Second)
	for time.Now().Before(end) {
		v.apply(pick(v.random, faults...))
	}
	samples := series.stop()
	last := time.Now()
	v.outage()
	s.configMap("end", "of the test")
	v.settle()
	others.settle()
	v.awaitIdle()
	after := v.pod.usage()
	t.Logf("at the end: %v", after)
	if n := v.pod.restarts("rockpool-sidecar"); n != restarts {
		t.Errorf("the sidecar has crashed %d times", n-restarts)
	}
	before.checkGrowth(t, after)
	checkMemory(t, samples)
	v.check()
	if n := s.refusedLists(); n > 0 {
		t.Errorf("the API server has refused %d lists, which no program has asked for", n)
	}
	took := time.Since(last)
	t.Logf("the verdict took %.1f s after the last fault", took.Seconds())
	if took > time.Minute {
		t.Errorf("the verdict took %s, due within a minute", took)
	}
}

// withAllPrograms adds one container of each program to a pod.
func withAllPrograms(p *corev1.Pod) {
	p.Annotations["rockpool.dev/offline-events"], p.Annotations["rockpool.dev/offline-leases"] = "true", "true"
	p.Spec.Containers[0].Image = "watcher:dev"
	for name, command := range map[string]string{
		"typed":    "/informer",
		"lists":    "/informer",
		"dynamic":  "/informer -client=dynamic",
		"metadata": "/informer -client=metadata",
		"manager":  "/manager",
		"leader":   "/leader -lease=main -tick=1s",
	} {
		command := strings.Fields(command)
		c := corev1.Container{Name: name, Image: strings.TrimPrefix(command[0], "/") + ":dev", Command: command}
		if name == "lists" {
			c.Env = []corev1.EnvVar{{Name: "KUBE_FEATURE_WatchListClient", Value: "false"}}
		}
		p.Spec.Containers = append(p.Spec.Containers, c)
	}
}

// apply applies a fault between writes.
func (v *survival) apply(f fault) {
	v.t.Helper()
	began := time.Now()
	f.happen()
	v.write(1 + v.random.IntN(10))
	if v.random.IntN(2) == 0 {
		v.settle()
	}
	v.t.Logf("%5.1f s  %s", time.Since(began).Seconds(), f.name)
}

// awaitIdle waits until the numbers of goroutines and open files no longer change.
func (v *survival) awaitIdle() {
	v.t.Helper()
	v.pod.online()
	quiet := 0
	last := usage{}
	v.until("the sidecar is idle", func() bool {
		now := v.pod.usage()
		if now.goroutines == last.goroutines && now.files == last.files {
			quiet++
		} else {
			quiet = 0
		}
		last = now
		return quiet >= 5
	})
}

// programs are all programs but the watcher.
type programs struct {
	*survival
	outputs map[string]*tail
	have    map[string]map[string]string // ConfigMaps by program
	leading bool
}

func (v *survival) otherPrograms() *programs {
	c := &programs{survival: v, outputs: map[string]*tail{}, have: map[string]map[string]string{}}
	for _, name := range []string{"typed", "lists", "dynamic", "metadata", "manager", "leader"} {
		c.outputs[name] = &tail{pod: v.pod, container: name}
		if name != "leader" {
			c.have[name] = map[string]string{}
		}
	}
	return c
}

// read reads what the programs have printed since the last call.
func (c *programs) read() {
	c.t.Helper()
	for name, output := range c.outputs {
		for _, line := range output.next() {
			var l programLine
			if json.Unmarshal([]byte(line), &l) != nil {
				continue // a log line
			}
			switch {
			case l.Event == "leading", l.Event == "stopped":
				c.leading = l.Event == "leading"
			case name == "leader", l.Kind != "" && l.Kind != "ConfigMap":
			case slices.Contains([]string{"present", "added", "updated", "reconciled"}, l.Event):
				c.have[name][l.Name] = l.UID + "/" + l.ResourceVersion
			case l.Event == "deleted", l.Event == "absent":
				delete(c.have[name], l.Name)
			}
		}
	}
}

// settle waits until all programs have the ConfigMaps of the server. After many failures a reflector
// of client-go waits for up to a minute before it lists again.
func (c *programs) settle() {
	c.t.Helper()
	_, want := c.shadows[""].list()
	var behind string
	defer func() {
		if c.t.Failed() {
			c.t.Log(behind)
		}
	}()
	c.untilWithin(time.Minute+patience, "all programs have the ConfigMaps of the server", func() bool {
		c.read()
		for name, have := range c.have {
			if !maps.Equal(have, want) {
				behind = fmt.Sprintf("%s has %v, want %v", name, have, want)
				return false
			}
		}
		return true
	})
	c.until("there is a leader", func() bool { c.read(); return c.leading })
}

// usage is the sidecar's use of resources, which must not grow.
type usage struct{ goroutines, files, bytes int }

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d open files, %.1f MiB RSS", u.goroutines, u.files, float64(u.bytes)/(1<<20))
}

func (p *testPod) usage() usage {
	p.site.t.Helper()
	all, err := p.metrics()
	p.site.must(err)
	return usage{all["go_goroutines"], all["process_open_fds"], all["process_resident_memory_bytes"]}
}

// checkGrowth compares the usage of an idle sidecar before and after. The bounds leave room for
// connections, which come and go, and for the memory of the race detector.
func (u usage) checkGrowth(t *testing.T, after usage) {
	t.Helper()
	if after.goroutines > u.goroutines+u.goroutines/10+10 {
		t.Errorf("%d goroutines, %d before", after.goroutines, u.goroutines)
	}
	if after.files > u.files+8 {
		t.Errorf("%d open files, %d before", after.files, u.files)
	}
	if after.bytes > u.bytes+u.bytes/2 {
		t.Errorf("%d bytes of RSS, %d before", after.bytes, u.bytes)
	}
}
