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

// seen is a line of tests/programs/watcher, or an event that a shadow has seen.
type seen struct {
	Client, Event, Name, UID, ResourceVersion string
	Objects                                   map[string]string // UID/resourceVersion by name
}

func (s seen) version() uint64 {
	n, _ := strconv.ParseUint(s.ResourceVersion, 10, 64) // 0 is none
	return n
}

// listed are the objects of a list, to be changed.
func (s seen) listed() map[string]string {
	objects := map[string]string{} // none are not printed
	maps.Copy(objects, s.Objects)
	return objects
}

func (s seen) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %.8s@%s", s.Event, s.Name, s.UID, s.ResourceVersion))
}

// shadow watches the API server directly and remembers all that happens.
type shadow struct {
	site     *site
	selector string
	base     map[string]string
	from     uint64 // version of base
	mu       sync.Mutex
	events   []seen // behind from
	ended    chan struct{}
}

func (s *site) shadow(selector string) *shadow {
	s.t.Helper()
	h := &shadow{site: s, selector: selector}
	h.from, h.base = h.list()
	h.follow(h.from)
	return h
}

// list is what the server has.
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
	return seen{ResourceVersion: list.ResourceVersion}.version(), objects
}

// follow watches behind a version until the stream ends.
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
				return // an error; again says what is missing
			}
			h.mu.Lock()
			h.events = append(h.events, seen{Event: string(event.Type), Name: o.Name, UID: string(o.UID), ResourceVersion: o.ResourceVersion})
			h.mu.Unlock()
		}
	}()
}

// sync waits until the shadow has seen everything; nobody writes meanwhile.
func (h *shadow) sync() {
	h.site.t.Helper()
	version, want := h.list()
	h.site.until("the shadow has seen everything", func() bool { return maps.Equal(h.at(version), want) })
}

// again follows on after a restart of the server, during which nobody has written.
func (h *shadow) again() {
	h.site.t.Helper()
	<-h.ended
	version, want := h.list()
	if have := h.at(version); !maps.Equal(have, want) {
		h.site.t.Fatalf("the shadow has lost an event: %v, and the server has %v", have, want)
	}
	h.follow(version)
}

// at is the state at a version.
func (h *shadow) at(version uint64) map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	state := maps.Clone(h.base)
	for _, e := range h.events[:h.after(version)] {
		fold(state, e)
	}
	return state
}

// after is where the events behind a version begin.
func (h *shadow) after(version uint64) int {
	i, _ := slices.BinarySearchFunc(h.events, version+1, func(e seen, v uint64) int { return cmp.Compare(e.version(), v) })
	return i
}

// fold is what a client does with an event.
func fold(state map[string]string, e seen) {
	switch e.Event {
	case "ADDED", "MODIFIED":
		state[e.Name] = e.UID + "/" + e.ResourceVersion
	case "DELETED":
		delete(state, e.Name)
	}
}

// difference is what a watch is told that goes on behind a list, see sidecar/flow.
func (h *shadow) difference(from, to uint64, bookmarks bool) (told []seen) {
	was, is := h.at(from), h.at(to)
	version := func(object string) string { return object[strings.Index(object, "/")+1:] }
	uid := func(object string) string { return object[:strings.Index(object, "/")] }
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if now, ok := is[name]; !ok || uid(now) != uid(was[name]) {
			told = append(told, seen{Event: "DELETED", Name: name, UID: uid(was[name]), ResourceVersion: fmt.Sprint(from)})
		}
	}
	gone := len(told)
	for name, object := range is {
		e := seen{Event: "ADDED", Name: name, UID: uid(object), ResourceVersion: version(object)}
		switch before, had := was[name]; {
		case had && before == object:
			continue
		case had && uid(before) == uid(object):
			e.Event = "MODIFIED"
		}
		told = append(told, e)
	}
	slices.SortFunc(told[gone:], func(a, b seen) int { return cmp.Compare(a.version(), b.version()) })
	if bookmarks {
		told = append(told, seen{Event: "BOOKMARK", ResourceVersion: fmt.Sprint(to)})
	}
	return told
}

// leap is a difference that the sidecar says it has told somebody.
type leap struct{ from, to uint64 }

// leaps are those that the sidecar's log tells of.
func leaps(log string) (all []leap) {
	for line := range strings.Lines(log) {
		var l struct{ Path, From, To string }
		if json.Unmarshal([]byte(line), &l) == nil && l.Path != "" && l.To != "" {
			all = append(all, leap{seen{ResourceVersion: l.From}.version(), seen{ResourceVersion: l.To}.version()})
		}
	}
	return all
}

// place is where a client may be: it has heard everything up to a version, and is
// being told a difference that leads to it.
type place struct {
	version uint64
	owed    []seen
}

// follower checks that a client hears what the shadow does: everything, once, and in that
// order, or else a difference that the sidecar says it has told.
type follower struct {
	*shadow
	bookmarks bool
	leaps     []leap
	places    []place // one of them; none: nothing was listed
	state     map[string]string
	counts    map[string]int
}

// take checks a line.
func (f *follower) take(t *testing.T, l seen) {
	t.Helper()
	f.counts[l.Event]++
	switch l.Event {
	case "gone":
		f.places = nil
		return
	case "listed":
		f.state = l.listed()
		if want := f.at(l.version()); !maps.Equal(f.state, want) {
			t.Fatalf("%s: a list at %s has %v, and the server had %v", l.Client, l.ResourceVersion, l.Objects, want)
		}
		fallthrough
	case "watch":
		f.places = []place{{version: l.version()}}
		return
	}
	before := f.places
	f.places = nil
	for _, p := range before {
		f.next(p, l)
	}
	if len(f.places) == 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		around := f.events[max(0, f.after(before[0].version)-3):]
		t.Fatalf("%s hears %v behind %d, and the shadow has %v; it may have been owed %v; the sidecar told of %v", l.Client, l, before[0].version, around[:min(8, len(around))], before[0].owed, f.leaps)
	}
	fold(f.state, l)
}

// next adds the places that a client at p may be at when it has heard e.
func (f *follower) next(p place, e seen) {
	if len(p.owed) > 0 {
		if o := p.owed[0]; o.Event == e.Event && o.Name == e.Name && o.UID == e.UID && o.ResourceVersion == e.ResourceVersion {
			f.places = append(f.places, place{p.version, p.owed[1:]})
		}
		return
	}
	f.mu.Lock()
	i := f.after(p.version)
	switch {
	case e.Event == "BOOKMARK":
		if e.version() >= p.version && f.after(e.version()) == i {
			f.places = append(f.places, place{version: e.version()})
		}
	case i < len(f.events) && f.events[i].String() == e.String():
		f.places = append(f.places, place{version: e.version()})
	}
	f.mu.Unlock()
	for _, l := range f.leaps {
		if l.from == p.version && l.to > l.from {
			f.next(place{l.to, f.difference(l.from, l.to, f.bookmarks)}, e)
		}
	}
}
