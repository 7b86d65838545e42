package record

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"rockpool.dev/sidecar/api/wire"
)

// server stands for the API server: a history of ConfigMaps with one change per version.
type server struct {
	rand    *rand.Rand
	version int
	states  []map[string]int // by version: the version of each object
	changes []string         // by version: "TYPE name version", for harness.events
}

func newServer(r *rand.Rand) *server {
	return &server{rand: r, states: []map[string]int{{}}, changes: []string{""}}
}

// change makes one change to one of four objects.
func (s *server) change() {
	s.version++
	name := string(rune('a' + s.rand.IntN(4)))
	next := map[string]int{}
	for k, v := range s.states[s.version-1] {
		next[k] = v
	}
	kind := wire.Modified
	switch _, there := next[name]; {
	case !there:
		kind, next[name] = wire.Added, s.version
	case s.rand.IntN(4) == 0:
		kind = wire.Deleted
		delete(next, name)
	default:
		next[name] = s.version
	}
	s.states = append(s.states, next)
	s.changes = append(s.changes, fmt.Sprintf("%s %s %d", kind, name, s.version))
}

func (s *server) list() string {
	var items []string
	for name, version := range s.states[s.version] {
		items = append(items, configMap(name, version))
	}
	return listOf(s.version, items...)
}

// state is the complete collection at a version.
func (s *server) state(version int) string {
	line := fmt.Sprintf("complete shop/@%d:", version)
	for _, name := range []string{"a", "b", "c", "d"} {
		if rv, ok := s.states[version][name]; ok {
			line += fmt.Sprintf(" %s@%d", name, rv)
		}
	}
	return line
}

// difference returns the changes since a version.
func (s *server) difference(t *testing.T, since int) (changes []Change) {
	before, now := s.states[since], s.states[s.version]
	add := func(kind, name string, rv int) {
		object := []byte(cm(name, rv))
		m, err := wire.JSON.ParseMeta(object)
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, Change{wire.Event{Type: kind, Object: object}, m})
	}
	for name := range before {
		if _, ok := now[name]; !ok {
			add(wire.Deleted, name, since)
		}
	}
	for name, rv := range now {
		if before[name] != rv {
			add(wire.Modified, name, rv)
		}
	}
	return changes
}

// TestACompleteCollectionIsTheServersStateAtEveryCommit drives two watches of one scope. Each has
// its own pace and skips versions. There are lists between them, a queue that is sometimes too
// small, and groups that fail. The test checks the collection after every group.
func TestACompleteCollectionIsTheServersStateAtEveryCommit(t *testing.T) {
	dir := t.TempDir()
	superseded := counter(t, eventsTotal.WithLabelValues("superseded"))
	lost := counter(t, droppedTotal.WithLabelValues("queue"))
	contradictions := counter(t, eventsTotal.WithLabelValues("contradiction"))
	applied := 0
	for seed := range uint64(25) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := newServer(r)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		h := idleHarness(t, dir, 0)
		h.groupOps = 1 + r.IntN(12)
		type client struct {
			*Watch
			at int
		}
		open := func() client {
			return client{h.Watch(h.source(fmt.Sprintf("%s?watch=true&resourceVersion=%d", configmaps, s.version)), wire.JSON), s.version}
		}
		list := func() { h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(s.list())))) }
		s.change()
		list()
		clients := []client{open(), open()}
		for range 400 {
			h.now = h.now.Add(time.Millisecond)
			switch n := r.IntN(100); {
			case n < 30:
				s.change()
			case n < 75:
				c := &clients[r.IntN(2)]
				for range 1 + r.IntN(4) {
					if c.at < s.version {
						c.at++
						h.events(c.Watch, s.changes[c.at])
					} else if r.IntN(10) == 0 {
						h.events(c.Watch, fmt.Sprintf("BOOKMARK x %d", s.version))
					}
				}
			case n < 79:
				list()
			case n < 81:
				i := r.IntN(2)
				clients[i].Close()
				clients[i] = open()
			case n < 83:
				h.enqueue(poison{})
			case n < 84:
				h.enqueue(broken{})
			case n < 86: // room for a few more, until the next group
				h.max = h.pending + 600
			case n < 88:
				c := &clients[r.IntN(2)]
				c.Difference(s.difference(t, c.at), fmt.Sprint(s.version))
				c.at = s.version
			default:
				h.write(t.Context(), h.take())
				h.max = DefaultMaxPending
				for _, got := range h.recorded("configmaps") {
					if strings.HasPrefix(got, "seen") {
						continue // told alone, behind a gap
					}
					var version int
					if _, err := fmt.Sscanf(got, "complete shop/@%d:", &version); err != nil {
						t.Fatal(got, err)
					}
					if want := s.state(version); got != want {
						t.Fatalf("seed %d: recorded\n %s\nand the server had\n %s", seed, got, want)
					}
					applied = max(applied, version)
				}
			}
		}
		h.drain(t.Context())
		for _, c := range clients {
			if n := len(c.waiting); n != 0 {
				t.Fatalf("%d events still wait, but the queue is empty", n)
			}
			c.Close()
		}
		if h.pending != 0 || h.writing != 0 {
			t.Fatalf("an empty queue has %d bytes, and %d are being written", h.pending, h.writing)
		}
		if err := h.db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := counter(t, eventsTotal.WithLabelValues("superseded")) - superseded; n < 100 {
		t.Errorf("only %v events were superseded: this tests too little", n)
	}
	if n := counter(t, droppedTotal.WithLabelValues("queue")) - lost; n < 100 {
		t.Errorf("only %v operations did not fit", n)
	}
	if n := counter(t, eventsTotal.WithLabelValues("contradiction")) - contradictions; n != 0 {
		t.Errorf("%v events are contradictions, but the server never went back", n)
	}
	if applied < 50 {
		t.Errorf("the collections reached only version %d", applied)
	}
}

func TestOnlyTheLastEventOfAnObjectKeepsItsPayload(t *testing.T) {
	h := idleHarness(t, t.TempDir(), 0)
	h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(10, configMap("a", 1))))))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	defer w.Close()
	h.write(t.Context(), h.take())
	for i := range 1000 {
		h.events(w, fmt.Sprintf("MODIFIED a %d", 11+i))
	}
	if most := 1000*stepOverhead + 1000; h.pending > most {
		t.Errorf("%d bytes are pending, want at most %d", h.pending, most)
	}
	h.groupOps = 10
	h.write(t.Context(), h.take()) // one group: no commit in between would be correct
	if got := strings.Join(h.recorded("configmaps"), "\n"); got != "complete shop/@1010: a@1010" {
		t.Errorf("recorded %s", got)
	}
}

func TestAnEventAfterAGapSupersedesNoneBeforeIt(t *testing.T) {
	h := idleHarness(t, t.TempDir(), 0)
	h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(10)))))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	defer w.Close()
	h.write(t.Context(), h.take())
	h.events(w, "ADDED a 11")
	h.max = h.pending
	h.events(w, "ADDED b 12") // does not fit
	h.max = DefaultMaxPending
	h.events(w, "MODIFIED a 13")
	h.write(t.Context(), h.take())
	if got := strings.Join(h.recorded("configmaps"), "\n"); got != "complete shop/@11: a@11\nseen /@: a@13" {
		t.Errorf("recorded %s", got)
	}
	select {
	case <-h.Stale():
	default:
		t.Error("the collection is not reported as stale")
	}
}

// BenchmarkHotObjects writes 2000 events of 20 objects of 3 KiB. arrived is the number of events
// that are queued before each group: it grows with the slowness of the disk.
func BenchmarkHotObjects(b *testing.B) {
	for _, mode := range []struct {
		arrived  int
		coalesce bool
	}{{1, true}, {100, false}, {100, true}, {2000, false}, {2000, true}} {
		b.Run(fmt.Sprintf("arrived=%d/coalesce=%v", mode.arrived, mode.coalesce), func(b *testing.B) {
			h := idleHarness(b, b.TempDir(), 64<<20)
			var items []string
			object := func(i, rv int) string {
				return strings.Replace(cm(fmt.Sprintf("hot%02d", i), rv), `"data"`, fmt.Sprintf(`"text":%q,"data"`, strings.Repeat(fmt.Sprintf("%08d", rv), 3<<10/8)), 1)
			}
			for i := range 20 {
				items = append(items, object(i, 1))
			}
			h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(10, items...)))))
			h.write(b.Context(), h.take())
			w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
			defer w.Close()
			h.write(b.Context(), h.take())
			rv, payload, before := 10, 0, written(b)
			for b.Loop() {
				for n := range 2000 {
					rv++
					raw := object(n%20, rv)
					payload += len(raw)
					m, err := wire.JSON.ParseMeta([]byte(raw))
					if err != nil {
						b.Fatal(err)
					}
					if !mode.coalesce {
						h.mu.Lock()
						clear(w.waiting)
						h.mu.Unlock()
					}
					w.Event(wire.Event{Type: wire.Modified, Object: []byte(raw)}, m)
					if n%mode.arrived == mode.arrived-1 {
						h.drain(b.Context())
					}
				}
			}
			b.ReportMetric(float64(written(b)-before)/float64(payload), "written/payload")
			if got := h.recorded("configmaps"); len(got) != 1 || !strings.HasPrefix(got[0], fmt.Sprintf("complete shop/@%d:", rv)) {
				b.Fatalf("recorded %.100s, want version %d", got, rv)
			}
		})
	}
}

// written returns the bytes that this process has passed to write system calls, on any file system.
// SQLite's writes are all among them, because it does not use mmap.
func written(tb testing.TB) (n int64) {
	tb.Helper()
	raw, err := os.ReadFile("/proc/self/io")
	if err != nil {
		tb.Skip("no /proc/self/io:", err)
	}
	for line := range strings.Lines(string(raw)) {
		if _, err := fmt.Sscanf(line, "wchar: %d", &n); err == nil {
			return n
		}
	}
	tb.Fatalf("no wchar in %q", raw)
	return 0
}

func TestPendingBytesAreBoundedWhileTheStoreIsBlocked(t *testing.T) {
	const most = 256 << 10
	h := newHarness(t, most)
	h.list(configmaps, listOf(10))
	release := h.blockStore()
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	defer w.Close()
	other := h.Watch(h.source("/api/v1/configmaps?watch=true&resourceVersion=10"), wire.JSON)
	defer other.Close()
	// The store is blocked, so the test would hang if one of these calls waited for it.
	for i := range 5000 {
		h.events(w, fmt.Sprintf("MODIFIED o%d %d", i%3, 11+i))
		h.events(other, fmt.Sprintf("MODIFIED o%d %d", i, 11+i))
		h.read(h.teeList(h.source("/api/v1/namespaces/other/configmaps"), wire.JSON, answer(strings.NewReader(listOf(20+i, configMap("x", 1))))))
		h.mu.Lock()
		pending := h.pending + h.writing
		h.mu.Unlock()
		if pending > most {
			t.Fatalf("%d bytes are pending", pending)
		}
	}
	release()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := h.Flush(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
