package record

import (
	"context"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"rockpool.dev/sidecar/api/wire"
)

// bookmark sends a bookmark of a version.
func (h *harness) bookmark(w *Watch, version int) {
	h.t.Helper()
	object := fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"%d"}}`, version)
	m, err := wire.JSON.ParseMeta([]byte(object))
	if err != nil {
		h.t.Fatal(err)
	}
	w.Event(wire.Event{Type: wire.Bookmark, Object: []byte(object)}, m)
}

// queued waits until the queue has a number of operations for a moment, which is longer than a group
// gathers, and no group is being written.
func (h *harness) queued(n int) bool {
	h.t.Helper()
	since := time.Now()
	err := wait.PollUntilContextTimeout(h.t.Context(), time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.queue) != n || h.busy {
			since = time.Now()
		}
		return time.Since(since) > 4*groupDelay, nil
	})
	return err == nil
}

func TestBookmarksOfAQuietWatchWaitForOtherOperations(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(10, configMap("a", 1)))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	h.bookmark(w, 11)
	if !h.queued(0) {
		t.Fatal("the first bookmark, which shows whether the list is recorded, waits")
	}
	h.bookmark(w, 12)
	h.bookmark(w, 13)
	if !h.queued(2) {
		t.Fatal("the next ones do not wait")
	}
	h.events(w, "MODIFIED a 14")
	if !h.queued(0) {
		t.Fatal("an event waits")
	}
	h.want("complete shop/@14: a@14")

	h.bookmark(w, 15)
	h.want("complete shop/@15: a@14") // who reads does not wait
}

func TestABookmarkAfterALostEventDoesNotWait(t *testing.T) {
	h := newHarness(t, 64<<10)
	h.list(configmaps, listOf(10, configMap("a", 1)))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	h.bookmark(w, 11)
	h.flush()
	release := h.blockStore()
	for i := range 600 { // more than the queue takes
		h.events(w, fmt.Sprintf("ADDED x%d %d", i, 12+i))
	}
	release()
	if !h.queued(0) { // or there is no room for the bookmark, either
		t.Fatal("the events wait")
	}
	h.bookmark(w, 700)
	if !h.queued(0) {
		t.Fatal("it waits")
	}
	if h.mustBeListed() == 0 {
		t.Error("nothing is listed again")
	}
}
