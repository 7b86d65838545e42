package live

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A list with a selector has no remainingItemCount, so that only the history tells of a deletion
// that the recorded list has not shown.
func TestADeletionBeforeTheListThatItDidNotShowIsAnotherHistory(t *testing.T) {
	for name, c := range map[string]struct {
		deleted string // an object that the watch shows to be deleted at version 9
		saved   bool
	}{
		"it came and went":         {"d", true},
		"the recorded list has it": {"b", false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			const query = "?labelSelector=app%3Dx"
			h.server.selects = true
			h.recordAs(query)
			h.clock.Step(24 * time.Hour)
			h.server.mu.Lock()
			h.server.revision = 20
			delete(h.server.objects, c.deleted)
			h.server.mu.Unlock()
			list := h.list(query)
			w := h.server.watch(1)
			h.server.asked(1)
			h.server.event(w, "7")
			_, _ = io.WriteString(w.w, `{"type":"DELETED","object":`+object(c.deleted, 9)+"}\n")
			h.server.bookmark(w)
			if !c.saved {
				list.passed()
				return
			}
			list.saved(20, "a@5", "b@6", "c@7")
		})
	}
}

// An API server that was restored twice counts other numbers twice, and is right each time.
func TestANumberThatHasAgreedSinceIsNoEstimate(t *testing.T) {
	h := newHarness(t)
	remaining := "9"
	h.server.answer = func(r *http.Request) *http.Response {
		if r.URL.Query().Get("limit") != "1" || r.URL.Query().Has("fieldSelector") {
			return nil
		}
		return text(http.StatusOK, strings.ReplaceAll(`{"kind":"PartialObjectMetadataList","apiVersion":"v1","metadata":{"resourceVersion":"10","continue":"c","remainingItemCount":N},"items":[`+object("a", 5)+`]}`, "N", remaining))
	}
	h.list("").passed()
	h.record()
	remaining = "2"
	h.list("").saved(10, "a@5", "b@6", "c@7")
	remaining = "9"
	h.list("").passed()
}
