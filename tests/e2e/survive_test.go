package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rounds sets the length of the test.
var rounds = flag.Int("rounds", 1, "how often the faults of TestWatchesMissNoEventThroughFaults are gone through")

// selected is the label selector of one of the watcher's clients.
const selected = "half=a"

// clientsOfWatcher are the clients of tests/programs/watcher.
var clientsOfWatcher = []string{"json", "twin", "protobuf", "without bookmarks", selectedClient, "metadata", "for a while"}

const selectedClient = "selected"

// TestWatchesMissNoEventThroughFaults breaks the link, restarts the sidecar and drops the server's
// history, at random, during writes. Clients that list and watch through the sidecar must get the
// same events as a shadow that watches the API server directly, each once and in order. For events
// that the server has dropped before they reconnect, they must get the difference.
func TestWatchesMissNoEventThroughFaults(t *testing.T) {
	s := newSite(t)
	random := randomOf(t)
	v := &survival{site: s, random: random, made: map[string]bool{}}
	for i := range 520 { // more than a page of the sidecar's own list
		s.configMap(fmt.Sprintf("still-%03d", i), "unchanged")
	}
	v.shadows = map[string]*shadow{"": s.shadow(""), selected: s.shadow(selected)}
	v.pod = s.pod(func(p *corev1.Pod) { p.Spec.Containers[0].Image = "watcher:dev" })
	v.write(20)
	v.settle()
	for range *rounds {
		faults := v.faults()
		for _, i := range random.Perm(len(faults)) {
			v.apply(faults[i])
		}
	}
	v.write(10)
	s.configMap("end", "of the test")
	v.settle()
	v.check()
}

// survival is a run of the test.
type survival struct {
	*site
	random  *rand.Rand
	pod     *testPod
	shadows map[string]*shadow // by selector
	made    map[string]bool    // by name: whether a changing object exists
	written int
}

// write makes n random changes, as fast as the server accepts them.
func (v *survival) write(n int) {
	v.t.Helper()
	api := cluster.Client().CoreV1().ConfigMaps(v.namespace)
	for range n {
		v.written++
		name := fmt.Sprintf("changing-%02d", v.random.IntN(24))
		o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"half": pick(v.random, "a", "b")}},
			Data: map[string]string{"n": fmt.Sprint(v.written), "pad": strings.Repeat("x", v.random.IntN(2000))}}
		var err error
		switch {
		case !v.made[name]:
			_, err = api.Create(v.ctx, o, metav1.CreateOptions{})
			v.made[name] = true
		case v.random.IntN(4) == 0:
			err = api.Delete(v.ctx, name, metav1.DeleteOptions{})
			v.made[name] = false
		default:
			_, err = api.Update(v.ctx, o, metav1.UpdateOptions{})
		}
		if err != nil {
			v.t.Fatal(err)
		}
	}
}

// dropHistory makes the API server drop its history.
func (v *survival) dropHistory() {
	v.t.Helper()
	for _, h := range v.shadows {
		h.sync()
	}
	if err := cluster.DropHistory(v.ctx); err != nil {
		v.t.Fatal(err)
	}
	for _, h := range v.shadows {
		h.resume()
	}
}

// fault is an action during writes.
type fault struct {
	name   string
	happen func()
}

func (v *survival) faults() []fault {
	link, p := v.Link, v.pod
	some := func() { v.write(1 + v.random.IntN(30)) }
	// during calls down and up between writes.
	during := func(down, up func()) func() {
		return func() { some(); down(); some(); up(); some() }
	}
	restart := func() { p.restart("rockpool-sidecar") }
	return []fault{
		{"a cut", during(link.Cut, link.Restore)},
		{"a cut that is noticed", during(p.offline, p.online)},
		{"a black hole", during(link.BlackHole, link.Restore)},
		{"a black hole that is noticed", during(func() { link.BlackHole(); p.linkIs("offline") }, p.online)},
		{"connections that are reset", during(link.Reset, link.Reset)},
		{"a delay", during(func() { link.Delay(time.Duration(v.random.IntN(200)) * time.Millisecond) }, func() { link.Delay(0) })},
		{"a flapping link", func() {
			for range 8 {
				link.Cut()
				v.write(v.random.IntN(6))
				link.Restore()
				v.write(v.random.IntN(6))
			}
		}},
		{"a restart of the sidecar", during(restart, func() {})},
		{"a restart of the sidecar offline", during(func() { p.offline(); restart() }, p.online)},
		{"a crash of the sidecar", func() {
			some()
			n := p.restarts("rockpool-sidecar")
			if err := p.KillContainer("rockpool-sidecar", syscall.SIGKILL); err != nil {
				v.t.Fatal(err)
			}
			some()
			ctx, cancel := context.WithTimeout(v.ctx, patience)
			defer cancel()
			if err := p.WaitRestarted(ctx, "rockpool-sidecar", n+1); err != nil {
				v.t.Fatal(err)
			}
			some()
		}},
		{"a server that drops its history", func() { some(); v.dropHistory(); some() }},
		{"an outage longer than the server's history", during(func() { p.offline(); some(); v.dropHistory() }, p.online)},
		{"two of them without a pause", func() {
			v.settle()
			during(func() { p.offline(); v.dropHistory() }, p.online)()
			during(func() { link.BlackHole(); p.linkIs("offline"); some(); v.dropHistory() }, p.online)()
		}},
		{"a restart of the sidecar in an outage longer than the server's history", during(func() { p.offline(); some(); restart(); v.dropHistory() }, p.online)},
	}
}

// received are the events that the watcher has printed, by client.
func (v *survival) received() map[string][]watchEvent {
	v.t.Helper()
	all := map[string][]watchEvent{}
	for line := range bytes.Lines([]byte(mustLogs(v.t, v.pod, "app"))) {
		var l watchEvent
		if json.Unmarshal(line, &l) == nil && l.Client != "" { // others are log lines or incomplete
			all[l.Client] = append(all[l.Client], l)
		}
	}
	return all
}

// settle waits until all clients have the state of the server.
func (v *survival) settle() {
	v.t.Helper()
	want := map[string]map[string]string{}
	for selector, h := range v.shadows {
		h.sync()
		_, want[selector] = h.list()
	}
	var behind string
	defer func() {
		if v.t.Failed() {
			v.t.Log(behind)
		}
	}()
	v.until("all clients have the state of the server", func() bool {
		received := v.received()
		behind = ""
		for _, name := range clientsOfWatcher {
			state := map[string]string{}
			for _, l := range received[name] {
				if l.Event == "listed" {
					state = l.listed()
				}
				fold(state, l)
			}
			if !maps.Equal(state, want[selectorOf(name)]) {
				behind = fmt.Sprintf("%s has not what the server has (-):\n%s", name, cmp.Diff(want[selectorOf(name)], state))
				return false
			}
		}
		return true
	})
}

func selectorOf(client string) string {
	if client == selectedClient {
		return selected
	}
	return ""
}

// reasons are the reasons why watches ended with 410, by the sidecar's log, and how often.
func (v *survival) reasons() map[string]int {
	counts := map[string]int{}
	for line := range strings.Lines(mustLogs(v.t, v.pod, "rockpool-sidecar")) {
		var l struct{ Why string }
		if json.Unmarshal([]byte(line), &l) == nil && l.Why != "" {
			counts[l.Why]++
		}
	}
	return counts
}

// check checks all events of the clients.
func (v *survival) check() {
	v.t.Helper()
	sent := catchUps(mustLogs(v.t, v.pod, "rockpool-sidecar"))
	received := v.received()
	if names := slices.Sorted(maps.Keys(received)); len(names) != len(clientsOfWatcher) {
		v.t.Fatalf("clients %v", names)
	}
	for _, name := range clientsOfWatcher {
		f := &eventChecker{shadow: v.shadows[selectorOf(name)], bookmarks: name != "without bookmarks", catchUps: sent, counts: map[string]int{}}
		for _, l := range received[name] {
			f.check(v.t, l)
		}
		_, want := f.list()
		if !maps.Equal(f.state, want) {
			v.t.Errorf("%s has %v at the end, want %v", name, f.state, want)
		}
		v.t.Logf("%-18s %v", name, f.counts)
	}
	v.t.Logf("%d changes; %d differences were sent; clients had to list again because %v", v.written, len(sent), v.reasons())
	if len(sent) < len(clientsOfWatcher) {
		v.t.Errorf("only %d differences were sent, too few for this test", len(sent))
	}
}
