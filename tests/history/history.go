// Package history knows what the objects of a watched collection were at each resourceVersion, and
// checks whether the events that a client has received tell the same. It knows nothing of HTTP and
// of the cluster; each event costs the logarithm of the length of the history.
package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Event is an event of a watch, or another line that a test program prints for a client: "listed",
// "watch" (a stream has begun), "absent" (404 for the only object) and "gone" (410).
type Event struct {
	Client, Event, Name, UID, ResourceVersion string
	Objects                                   map[string]string // UID/resourceVersion by name
}

// Version is the resourceVersion, 0 if there is none.
func (e Event) Version() uint64 {
	n, _ := strconv.ParseUint(e.ResourceVersion, 10, 64) // an empty one is 0
	return n
}

func (e Event) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %.8s@%s", e.Event, e.Name, e.UID, e.ResourceVersion))
}

// same reports whether two events tell the same, whoever got them.
func (e Event) same(o Event) bool {
	return e.Event == o.Event && e.Name == o.Name && e.UID == o.UID && e.ResourceVersion == o.ResourceVersion
}

// object is the object of the event, UID/resourceVersion.
func (e Event) object() string { return e.UID + "/" + e.ResourceVersion }

// Fold returns the state of a client after an event. It may change state.
func Fold(state map[string]string, e Event) map[string]string {
	switch e.Event {
	case "ADDED", "MODIFIED":
		state[e.Name] = e.object()
	case "DELETED":
		delete(state, e.Name)
	case "listed", "absent":
		state = map[string]string{} // Objects is nil for an empty list
		maps.Copy(state, e.Objects)
	case "watch":
		if e.ResourceVersion == "" { // it begins with the present state
			return map[string]string{}
		}
	}
	return state
}

// History are the objects at a version, and all events after it.
type History struct {
	mu       sync.Mutex
	events   []Event
	versions []uint64            // of events
	objects  map[string][]change // by name, in order of versions
	size     int                 // number of objects now
	bySize   map[int][]int       // by number of objects: the indices of the events before which it was so
}

// change is a version at which an object changed. Its object is empty if it was deleted.
type change struct {
	version uint64
	object  string
}

// New returns the history of a collection that begins with objects, UID/resourceVersion by name.
func New(objects map[string]string) *History {
	h := &History{objects: map[string][]change{}, bySize: map[int][]int{}}
	for name, object := range objects {
		h.objects[name] = []change{{versionOf(object), object}}
	}
	h.size = len(objects)
	h.bySize[h.size] = []int{0}
	return h
}

func versionOf(object string) uint64 {
	return Event{ResourceVersion: object[strings.Index(object, "/")+1:]}.Version()
}

func uidOf(object string) string { return object[:strings.Index(object, "/")] }

// Append adds the next event.
func (h *History) Append(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := change{version: e.Version()}
	h.events, h.versions = append(h.events, e), append(h.versions, c.version)
	switch e.Event {
	case "ADDED":
		c.object = e.object()
		h.size++
	case "MODIFIED":
		c.object = e.object()
	case "DELETED":
		h.size--
	}
	h.objects[e.Name] = append(h.objects[e.Name], c)
	h.bySize[h.size] = append(h.bySize[h.size], len(h.events))
}

// At returns the objects at a version, UID/resourceVersion by name.
func (h *History) At(version uint64) map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	state := map[string]string{}
	for name := range h.objects {
		if object := h.object(name, version); object != "" {
			state[name] = object
		}
	}
	return state
}

// object is an object at a version, empty if it was not there.
func (h *History) object(name string, version uint64) string {
	changes := h.objects[name]
	i, _ := slices.BinarySearchFunc(changes, version+1, func(c change, v uint64) int { return cmp.Compare(c.version, v) })
	if i == 0 {
		return ""
	}
	return changes[i-1].object
}

// after returns the index of the first event after a version.
func (h *History) after(version uint64) int {
	i, _ := slices.BinarySearch(h.versions, version+1)
	return i
}

// changed reports whether there was an event after one version, and up to another one.
func (h *History) changed(after, upTo uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.after(after) < h.after(upTo)
}

// index returns the index of an event, or false if there was no such event.
func (h *History) index(e Event) (int, bool) {
	i := h.after(e.Version()) - 1
	return i, i >= 0 && h.events[i].same(e)
}

// span returns between which events (indices of the first and of the last event before which) an
// object was as e tells, or false if it never was.
func (h *History) span(e Event) (first, last int, ok bool) {
	changes := h.objects[e.Name]
	i, ok := slices.BinarySearchFunc(changes, e.Version(), func(c change, v uint64) int { return cmp.Compare(c.version, v) })
	if !ok || changes[i].object != e.object() {
		return 0, 0, false
	}
	last = len(h.events)
	if i+1 < len(changes) {
		last = h.after(changes[i+1].version) - 1
	}
	return h.after(e.Version()), last, true
}

// ofSize returns the last event, of those from first to last, before which there were n objects, or
// false if there is none.
func (h *History) ofSize(n, first, last int) (int, bool) {
	at := h.bySize[n]
	i, _ := slices.BinarySearch(at, last+1)
	if i == 0 || at[i-1] < first {
		return 0, false
	}
	return at[i-1], true
}

// difference returns the events that a watch gets when the sidecar resumes it with a list: see
// sidecar/watch.
func (h *History) difference(c CatchUp, bookmarks bool) (sent []Event) {
	var now []Event
	seen := map[string]bool{}
	for _, e := range h.events[h.after(c.From):h.after(c.To)] {
		if seen[e.Name] {
			continue
		}
		seen[e.Name] = true
		was, is := h.object(e.Name, c.From), h.object(e.Name, c.To)
		if was != "" && (is == "" || uidOf(is) != uidOf(was)) {
			sent = append(sent, Event{Event: "DELETED", Name: e.Name, UID: uidOf(was), ResourceVersion: fmt.Sprint(c.From)})
		}
		if is != "" && is != was {
			n := Event{Event: "ADDED", Name: e.Name, UID: uidOf(is), ResourceVersion: fmt.Sprint(versionOf(is))}
			if was != "" && uidOf(was) == uidOf(is) {
				n.Event = "MODIFIED"
			}
			now = append(now, n)
		}
	}
	slices.SortFunc(sent, func(a, b Event) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(now, func(a, b Event) int { return cmp.Compare(a.Version(), b.Version()) })
	sent = append(sent, now...)
	if bookmarks {
		sent = append(sent, Event{Event: "BOOKMARK", ResourceVersion: fmt.Sprint(c.To)})
	}
	return sent
}
