package e2e

import (
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

	"rockpool.dev/tests/history"
)

// rounds sets the length of the test.
var rounds = flag.Int("rounds", 1, "how often the faults of TestWatchesMissNoEventThroughFaults are gone through")

// selected is the label selector of one of the watcher's clients.
const selected = "half=a"

// clientsOfWatcher are the clients of tests/programs/watcher, and their label selectors.
var clientsOfWatcher = map[string]string{
	"json": "", "twin": "", "protobuf": "", "without bookmarks": "", "selected": selected, "metadata": "", "for a while": "",
}

// withoutBookmarks are the clients that do not ask for bookmarks.
var withoutBookmarks = []string{"without bookmarks", "python", "ruby", "single"}

// TestWatchesMissNoEventThroughFaults breaks the link, restarts the sidecar and drops the server's
// history, at random, during writes. Clients that list and watch through the sidecar must get the
// same events as a shadow that watches the API server directly, each once and in order. For events
// that the server has dropped before they reconnect, they must get the difference.
func TestWatchesMissNoEventThroughFaults(t *testing.T) {
	s := newSite(t)
	random := randomOf(t)
	for i := range 520 { // more than a page of the sidecar's own list
		s.configMap(fmt.Sprintf("still-%03d", i), "unchanged")
	}
	v := newSurvival(s, random, 24, clientsOfWatcher)
	v.runs(s.pod(withEveryLine, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "watcher:dev" }), "app")
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
	if n := len(catchUps(mustLogs(t, v.pod, "rockpool-sidecar"), s.namespace)); n < len(v.clients) {
		t.Errorf("only %d differences were sent, too few for this test", n)
	}
}

// survival is a run of the test: the objects of a namespace, the clients that read them, and a
// shadow for each selector.
type survival struct {
	*site
	random  *rand.Rand
	pod     *testPod
	clients map[string]string  // their selectors, by name
	shadows map[string]*shadow // by selector
	made    map[string]bool    // by name: whether a changing object exists
	names   int                // of changing objects
	written int
	corners []*corner

	output   tail // of the clients
	received map[string][]history.Event
	state    map[string]map[string]string // by client
}

func newSurvival(s *site, random *rand.Rand, names int, clients map[string]string) *survival {
	s.t.Helper()
	v := &survival{
		site: s, random: random, clients: clients, shadows: map[string]*shadow{}, made: map[string]bool{}, names: names,
		received: map[string][]history.Event{}, state: map[string]map[string]string{},
	}
	for client, selector := range clients {
		v.state[client] = map[string]string{}
		if v.shadows[selector] == nil {
			v.shadows[selector] = s.shadow(metav1.ListOptions{LabelSelector: selector})
		}
	}
	return v
}

// runs sets the pod and the container of the clients.
func (v *survival) runs(p *testPod, container string) {
	v.pod, v.output = p, tail{pod: p, container: container}
}

// changing is the name of a changing object.
func changing(i int) string { return fmt.Sprintf("changing-%02d", i) }

// write makes n random changes, as fast as the server accepts them, and some in each corner.
func (v *survival) write(n int) {
	v.t.Helper()
	for _, c := range v.corners {
		c.write((n + 3) / 4)
	}
	api := cluster.Client().CoreV1().ConfigMaps(v.namespace)
	for range n {
		v.written++
		name := changing(v.random.IntN(v.names))
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
	all := slices.Collect(maps.Values(v.shadows))
	for _, c := range v.corners {
		all = slices.AppendSeq(all, maps.Values(c.shadows))
	}
	for _, h := range all {
		h.sync()
	}
	if err := cluster.DropHistory(v.ctx); err != nil {
		v.t.Fatal(err)
	}
	for _, h := range all {
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

// read reads what the clients have printed since the last call.
func (v *survival) read() {
	v.t.Helper()
	for _, line := range v.output.next() {
		var l history.Event
		if json.Unmarshal([]byte(line), &l) != nil {
			continue // a log line
		}
		if _, ok := v.clients[l.Client]; ok {
			v.received[l.Client] = append(v.received[l.Client], l)
			v.state[l.Client] = history.Fold(v.state[l.Client], l)
		}
	}
}

// settle waits until all clients have the state of the server.
func (v *survival) settle() {
	v.t.Helper()
	want := map[string]map[string]string{}
	for selector, h := range v.shadows {
		want[selector] = h.sync()
	}
	var behind string
	defer func() {
		if v.t.Failed() {
			v.t.Log(behind)
		}
	}()
	v.until("all clients have the state of the server", func() bool {
		v.read()
		for name, selector := range v.clients {
			if !maps.Equal(v.state[name], want[selector]) {
				behind = fmt.Sprintf("%s has not what the server has (-):\n%s", name, cmp.Diff(want[selector], v.state[name]))
				return false
			}
		}
		return true
	})
	for _, c := range v.corners {
		c.settle()
	}
}

// withEveryLine has the sidecar log each difference that it sends. At other levels it counts them.
func withEveryLine(p *corev1.Pod) { p.Annotations["rockpool.dev/log-level"] = "debug" }

// reasons are the reasons why watches ended with 410, by the sidecar's log, and how often.
func (v *survival) reasons() map[string]int {
	counts := map[string]int{}
	for line := range strings.Lines(mustLogs(v.t, v.pod, "rockpool-sidecar")) {
		var l struct{ Msg, Error string }
		if json.Unmarshal([]byte(line), &l) == nil && strings.HasSuffix(l.Msg, "so that its client lists again") {
			counts[l.Error]++
		}
	}
	return counts
}

// check checks all events of the clients. Of each it reports the first violation.
func (v *survival) check() {
	v.t.Helper()
	sent := catchUps(mustLogs(v.t, v.pod, "rockpool-sidecar"), v.namespace)
	for _, name := range slices.Sorted(maps.Keys(v.clients)) {
		h := v.shadows[v.clients[name]]
		f := history.NewChecker(h.History, !slices.Contains(withoutBookmarks, name), sent)
		for i, l := range v.received[name] {
			if err := f.Check(l); err != nil {
				before := v.received[name][max(0, i-10):i]
				v.t.Errorf("line %d of %d: %v; before it %v; the sidecar has sent the differences %v", i, len(v.received[name]), err, before, sent)
				break
			}
		}
		if _, want := h.list(); !maps.Equal(v.state[name], want) {
			v.t.Errorf("%s has %v at the end, want %v", name, v.state[name], want)
		}
		v.t.Logf("%-18s %v", name, f.Counts)
	}
	v.t.Logf("%d changes; %d differences were sent; clients had to list again because %v", v.written, len(sent), v.reasons())
	for _, c := range v.corners {
		c.check()
	}
}
