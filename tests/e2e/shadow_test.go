package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// watchEvent is an output line of tests/programs/watcher, or an event of a shadow.
type watchEvent struct {
	Client, Event, Name, UID, ResourceVersion string
	Objects                                   map[string]string // UID/resourceVersion by name
}

func (s watchEvent) version() uint64 {
	n, _ := strconv.ParseUint(s.ResourceVersion, 10, 64) // an empty one is 0
	return n
}

// listed is a copy of the objects of a list.
func (s watchEvent) listed() map[string]string {
	objects := map[string]string{} // Objects is nil for an empty list
	maps.Copy(objects, s.Objects)
	return objects
}

func (s watchEvent) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %.8s@%s", s.Event, s.Name, s.UID, s.ResourceVersion))
}

// shadow watches the API server directly and records all events.
type shadow struct {
	site     *site
	selector string
	base     map[string]string
	from     uint64 // version of base
	mu       sync.Mutex
	events   []watchEvent // after from
	ended    chan struct{}
}

func (s *site) shadow(selector string) *shadow {
	s.t.Helper()
	h := &shadow{site: s, selector: selector}
	h.from, h.base = h.list()
	h.follow(h.from)
	return h
}

// list returns the objects of the server.
func (h *shadow) list() (version uint64, objects map[string]string) {
	t := h.site.t
	t.Helper()
	list, err := cluster.Client().CoreV1().ConfigMaps(h.site.namespace).List(h.site.ctx, metav1.ListOptions{LabelSelector: h.selector})
	if err != nil {
		t.Fatal(err)
	}
	objects = map[string]string{}
	for _, o := range list.Items {
		objects[o.Name] = string(o.UID) + "/" + o.ResourceVersion
	}
	return watchEvent{ResourceVersion: list.ResourceVersion}.version(), objects
}

// follow watches from a version on until the stream ends.
func (h *shadow) follow(version uint64) {
	t := h.site.t
	t.Helper()
	w, err := cluster.Client().CoreV1().ConfigMaps(h.site.namespace).Watch(h.site.ctx, metav1.ListOptions{LabelSelector: h.selector, ResourceVersion: fmt.Sprint(version)})
	if err != nil {
		t.Fatal(err)
	}
	h.ended = make(chan struct{})
	t.Cleanup(w.Stop)
	go func() {
		defer close(h.ended)
		for event := range w.ResultChan() {
			o, ok := event.Object.(*corev1.ConfigMap)
			if !ok {
				return // an error; resume checks whether an event is missing
			}
			h.mu.Lock()
			h.events = append(h.events, watchEvent{Event: string(event.Type), Name: o.Name, UID: string(o.UID), ResourceVersion: o.ResourceVersion})
			h.mu.Unlock()
		}
	}()
}

// sync waits until the shadow has all events. No one writes at the same time.
func (h *shadow) sync() {
	h.site.t.Helper()
	version, want := h.list()
	h.site.until("the shadow has all events", func() bool { return maps.Equal(h.at(version), want) })
}

// resume follows again after a restart of the server, during which no one has written.
func (h *shadow) resume() {
	h.site.t.Helper()
	<-h.ended
	version, want := h.list()
	if have := h.at(version); !maps.Equal(have, want) {
		h.site.t.Fatalf("the shadow has missed an event: it has %v, the server has %v", have, want)
	}
	h.follow(version)
}

// at returns the state at a version.
func (h *shadow) at(version uint64) map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	state := maps.Clone(h.base)
	for _, e := range h.events[:h.after(version)] {
		fold(state, e)
	}
	return state
}

// after returns the index of the first event after a version.
func (h *shadow) after(version uint64) int {
	i, _ := slices.BinarySearchFunc(h.events, version+1, func(e watchEvent, v uint64) int { return cmp.Compare(e.version(), v) })
	return i
}

// fold applies an event to a client's state.
func fold(state map[string]string, e watchEvent) {
	switch e.Event {
	case "ADDED", "MODIFIED":
		state[e.Name] = e.UID + "/" + e.ResourceVersion
	case "DELETED":
		delete(state, e.Name)
	}
}

// difference returns the events that a watch gets when the sidecar resumes it with a list: see
// sidecar/dispatch.
func (h *shadow) difference(from, to uint64, bookmarks bool) (sent []watchEvent) {
	was, is := h.at(from), h.at(to)
	version := func(object string) string { return object[strings.Index(object, "/")+1:] }
	uid := func(object string) string { return object[:strings.Index(object, "/")] }
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if now, ok := is[name]; !ok || uid(now) != uid(was[name]) {
			sent = append(sent, watchEvent{Event: "DELETED", Name: name, UID: uid(was[name]), ResourceVersion: fmt.Sprint(from)})
		}
	}
	deleted := len(sent)
	for name, object := range is {
		e := watchEvent{Event: "ADDED", Name: name, UID: uid(object), ResourceVersion: version(object)}
		switch before, had := was[name]; {
		case had && before == object:
			continue
		case had && uid(before) == uid(object):
			e.Event = "MODIFIED"
		}
		sent = append(sent, e)
	}
	slices.SortFunc(sent[deleted:], func(a, b watchEvent) int { return cmp.Compare(a.version(), b.version()) })
	if bookmarks {
		sent = append(sent, watchEvent{Event: "BOOKMARK", ResourceVersion: fmt.Sprint(to)})
	}
	return sent
}

// catchUp is a difference between two versions that the sidecar has sent to a client.
type catchUp struct{ from, to uint64 }

// catchUps are the differences in the sidecar's log.
func catchUps(log string) (all []catchUp) {
	for line := range strings.Lines(log) {
		var l struct{ Path, From, To string }
		if json.Unmarshal([]byte(line), &l) == nil && l.Path != "" && l.To != "" {
			all = append(all, catchUp{watchEvent{ResourceVersion: l.From}.version(), watchEvent{ResourceVersion: l.To}.version()})
		}
	}
	return all
}

// position is a possible position of a client: it has all events up to a version, except for the
// pending events of a difference.
type position struct {
	version uint64
	pending []watchEvent
}

// eventChecker checks that a client gets the same events as the shadow, each once and in order, or
// a difference that is in the sidecar's log.
type eventChecker struct {
	*shadow
	bookmarks bool
	catchUps  []catchUp
	positions []position // the client is at one of them; empty: it has not listed
	state     map[string]string
	counts    map[string]int
}

// check checks the next line of the client.
func (f *eventChecker) check(t *testing.T, l watchEvent) {
	t.Helper()
	f.counts[l.Event]++
	switch l.Event {
	case "gone":
		f.positions = nil
		return
	case "listed":
		f.state = l.listed()
		if want := f.at(l.version()); !maps.Equal(f.state, want) {
			t.Fatalf("%s: a list at %s has %v, want %v", l.Client, l.ResourceVersion, l.Objects, want)
		}
		fallthrough
	case "watch":
		f.positions = []position{{version: l.version()}}
		return
	}
	before := f.positions
	f.positions = nil
	for _, p := range before {
		f.next(p, l)
	}
	if len(f.positions) == 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		around := f.events[max(0, f.after(before[0].version)-3):]
		t.Fatalf("%s gets %v after %d, the shadow %v; pending may be %v; the sidecar has sent the differences %v", l.Client, l, before[0].version, around[:min(8, len(around))], before[0].pending, f.catchUps)
	}
	fold(f.state, l)
}

// next adds the positions at which a client that was at p may be after e.
func (f *eventChecker) next(p position, e watchEvent) {
	if len(p.pending) > 0 {
		if o := p.pending[0]; o.Event == e.Event && o.Name == e.Name && o.UID == e.UID && o.ResourceVersion == e.ResourceVersion {
			f.positions = append(f.positions, position{p.version, p.pending[1:]})
		}
		return
	}
	f.mu.Lock()
	i := f.after(p.version)
	switch {
	case e.Event == "BOOKMARK":
		if e.version() >= p.version && f.after(e.version()) == i {
			f.positions = append(f.positions, position{version: e.version()})
		}
	case i < len(f.events) && f.events[i].String() == e.String():
		f.positions = append(f.positions, position{version: e.version()})
	}
	f.mu.Unlock()
	for _, l := range f.catchUps {
		if l.from == p.version && l.to > l.from {
			f.next(position{l.to, f.difference(l.from, l.to, f.bookmarks)}, e)
		}
	}
}
