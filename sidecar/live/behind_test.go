package live

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"testing"
	"time"

	"rockpool.dev/store"
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
				if selector != "metadata.name=c" {
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

// After a restore from a backup, a client may know a version that the API server has not reached.
// It is told so by the API server alone.
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

// A remainingItemCount need not be exact. If it differs from a new list, too, it is only an
// estimate.
func TestANumberThatIsAnEstimateProvesNothing(t *testing.T) {
	h := newHarness(t)
	h.server.answer = func(r *http.Request) *http.Response {
		if r.URL.Query().Get("limit") != "1" || r.URL.Query().Has("fieldSelector") {
			return nil
		}
		return text(http.StatusOK, `{"kind":"PartialObjectMetadataList","apiVersion":"v1","metadata":{"resourceVersion":"10","continue":"c","remainingItemCount":9},"items":[`+object("a", 5)+`]}`)
	}
	h.list("").passed()
	for range 2 {
		h.record()
		h.list("").saved(10, "a@5", "b@6", "c@7")
	}
}

// A client that reads a large list slowly would find no end of it, as often as it asks again.
func TestTheAPIServerAnswersAClientThatIsTooSlow(t *testing.T) {
	h := newHarness(t)
	for i := range 1500 {
		h.server.objects[fmt.Sprintf("o%04d", i)] = 8
	}
	h.record()
	var slow []*http.Response
	for range 3 { // more than can be pinned
		resp := h.List(t.Context(), h.get(""))
		if resp == nil {
			t.Fatal("the API server is to answer")
		}
		slow = append(slow, resp)
	}
	h.server.set("a", nil)
	h.record()
	last := slow[len(slow)-1]
	if _, err := io.Copy(io.Discard, last.Body); !errors.Is(err, store.ErrChanged) {
		t.Fatalf("the answer ends with %v, so this test shows nothing", err)
	}
	for _, resp := range slow {
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	h.list("").passed()
	h.clock.Step(slowTime + time.Second)
	list := h.list("")
	w := h.server.watch(1) // the list is of long ago by now
	_, _ = io.WriteString(w.w, `{"type":"MODIFIED","object":`+object("a", 11)+"}\n")
	h.server.bookmark(w)
	resp := <-list.done
	if resp == nil {
		t.Fatal("it stays the API server's")
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
}

// An object that changes often proves nothing of the others. Another one does.
func TestWhatHasNotChangedProvesThatNothingElseHas(t *testing.T) {
	for name, c := range map[string]struct {
		b     int
		saved bool
	}{
		"the next one is as recorded": {6, true},
		"it is not":                   {4, false}, // the cluster was restored to before its last change
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.server.mu.Lock()
			h.server.revision, h.server.objects["b"] = 19, c.b
			h.server.mu.Unlock()
			h.server.set("c", nil)
			list, read := h.list(""), h.get("")
			w := h.server.watch(1)
			_, _ = io.WriteString(w.w, `{"type":"MODIFIED","object":`+object("c", 20)+"}\n")
			if c.saved {
				list.saved(20, "a@5", "b@6", "c@20")
				return
			}
			list.passed()
			if _, err := h.recorded(t.Context(), &read); err == nil {
				t.Error("what is recorded is left")
			}
		})
	}
}
