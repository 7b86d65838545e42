package live

import (
	"maps"
	"net/http"
	"testing"
)

// The list of one item that checks a caller may show what is still on its way to the watch. That is
// no contradiction.
func TestAChangeThatIsOnItsWayIsNoContradiction(t *testing.T) {
	for name, change := range map[string]func(map[string]int){
		"a new object":                   func(o map[string]int) { o["d"] = 21 },
		"a new object before the others": func(o map[string]int) { o["0"] = 21 },
		"the first object has changed":   func(o map[string]int) { o["a"] = 21 },
		"the first object is gone":       func(o map[string]int) { delete(o, "a") },
		"all objects are gone":           func(o map[string]int) { clear(o) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.server.revision = 20
			list := h.list("?resourceVersion=0")
			w := h.server.watch(1)
			h.server.asked(1)
			h.server.bookmark(w)
			list.saved(20, "a@5", "b@6", "c@7")
			h.server.mu.Lock()
			h.server.revision = 21
			change(h.server.objects)
			h.server.mu.Unlock()
			list = h.list("?resourceVersion=0")
			resp := <-list.done
			list.done <- resp
			read := h.get("")
			if _, err := h.recorded(t.Context(), &read); err != nil {
				t.Errorf("what is recorded: %v", err)
			}
			list.saved(20, "a@5", "b@6", "c@7")
		})
	}
}

// The two lists of a proof are asked for at once, and one may show a later state than the other.
func TestTheNewestObjectMayChangeDuringAProof(t *testing.T) {
	for name, change := range map[string]func(map[string]int){
		"it has changed": func(o map[string]int) { o["c"] = 21 },
		"it is gone":     func(o map[string]int) { delete(o, "c") },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.server.revision = 20
			h.server.answer = func(r *http.Request) *http.Response {
				selector := r.URL.Query().Get("fieldSelector")
				if selector == "" {
					return nil
				}
				later := &server{revision: 21, objects: maps.Clone(h.server.objects)}
				change(later.objects)
				return later.named("c")
			}
			list := h.list("")
			w := h.server.watch(1)
			h.server.asked(1)
			h.server.bookmark(w)
			list.saved(20, "a@5", "b@6", "c@7")
		})
	}
}

// An object that ought to be recorded, because it has not changed since, is one all the same.
func TestAnObjectThatACollectionLacksIsAContradiction(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	list := h.list("?resourceVersion=0")
	w := h.server.watch(1)
	h.server.asked(1)
	h.server.bookmark(w)
	list.saved(20, "a@5", "b@6", "c@7")
	h.server.mu.Lock()
	h.server.revision, h.server.objects["a"] = 21, 9
	h.server.mu.Unlock()
	h.list("?resourceVersion=0").passed()
}

// After a restore from a backup, a client may know a version that the API server has not reached. It
// is told so by the API server alone.
func TestTheAPIServerAnswersAVersionThatIsNotReached(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	list := h.list("?resourceVersion=30")
	w := h.server.watch(1)
	h.server.asked(1)
	h.server.bookmark(w)
	list.passed()
}

// A compressed answer could not be read: Upstream decompresses only what it has asked for itself.
func TestAProofIsNotAskedForCompressed(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	h.server.answer = func(r *http.Request) *http.Response {
		if r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("%s is asked for compressed", r.URL)
		}
		return nil
	}
	read := h.get("")
	read.HTTP.Header.Set("Accept-Encoding", "gzip")
	list := h.listAs(t.Context(), read)
	w := h.server.watch(1)
	h.server.asked(1)
	h.server.bookmark(w)
	list.saved(20, "a@5", "b@6", "c@7")
}

// A page must not have more objects than its client asks for.
func TestAListThatGrowsBeyondItsPageIsTheAPIServers(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	list := h.list("?limit=3")
	w := h.server.watch(1)
	h.server.asked(1)
	h.server.set("d", w)
	h.server.bookmark(w)
	list.passed()
}
