package live

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/tests/eventually"
)

func TestAListIsAnsweredWhenItsCollectionHasReachedThePresent(t *testing.T) {
	h := newHarness(t)
	h.server.set("x", nil) // at 11, of something else as it were
	delete(h.server.objects, "x")
	list := h.list("")
	w := h.server.watch(1)
	h.server.asked(1)
	h.server.set("b", w)
	h.server.bookmark(w)
	list.saved(12, "a@5", "b@12", "c@7")
	if lists, ones, _ := h.server.counts(); lists != 0 || ones != 1 {
		t.Errorf("%d lists, %d of one item", lists, ones)
	}
}

func TestListsOfOneMomentShareAWatch(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	var all []answers
	for range 5 {
		all = append(all, h.list(""))
	}
	w := h.server.watch(1)
	h.server.asked(5)
	h.server.bookmark(w)
	for _, list := range all {
		list.saved(20, "a@5", "b@6", "c@7")
	}
	if _, ones, watches := h.server.counts(); ones != 5 || watches != 1 {
		t.Errorf("%d lists of one item, %d watches", ones, watches)
	}
}

func TestALaterListDoesNotWaitForTheNextOrdinaryBookmark(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	list := h.list("")
	w := h.server.watch(1)
	h.server.asked(1)
	h.server.bookmark(w)
	list.saved(20, "a@5", "b@6", "c@7")
	h.server.mu.Lock()
	h.server.revision = 30
	h.server.mu.Unlock()
	list = h.list("")
	next := h.server.watch(2)
	if !next.prompt || h.server.opened[1] != "20" {
		t.Errorf("prompt %v, from %v", next.prompt, h.server.opened)
	}
	h.server.asked(2)
	h.server.bookmark(next)
	list.saved(30, "a@5", "b@6", "c@7")
}

func TestALiveCollectionAnswersAnyVersionOnceTheCallerIsAccepted(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	list := h.list("?resourceVersion=0")
	w := h.server.watch(1)
	h.server.asked(1)
	h.server.bookmark(w)
	list.saved(20, "a@5", "b@6", "c@7")
	h.list("?resourceVersion=0").saved(20, "a@5", "b@6", "c@7")
	if _, _, watches := h.server.counts(); watches != 1 {
		t.Errorf("%d watches", watches)
	}
	refuse := text(http.StatusForbidden, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":403}`)
	h.server.mu.Lock()
	h.server.answer = func(r *http.Request) *http.Response { return refuse }
	h.server.mu.Unlock()
	h.list("?resourceVersion=0").passed()
}

// Nothing that is doubtful is answered from the cache.
func TestTheAPIServerAnswersWhatIsDoubtful(t *testing.T) {
	status := func(code int) func(*http.Request) *http.Response {
		return func(*http.Request) *http.Response {
			return text(code, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure"}`)
		}
	}
	of := func(watch bool, answer func(*http.Request) *http.Response) func(*harness) {
		return func(h *harness) {
			h.server.revision = 20
			h.server.answer = func(r *http.Request) *http.Response {
				if (r.URL.Query().Get("watch") != "") == watch {
					return answer(r)
				}
				return nil
			}
		}
	}
	for name, c := range map[string]struct {
		before func(*harness)
		during func(*harness, *stream) // with the watch, if it opens; nil: it does not
	}{
		"the caller may not list":    {of(false, status(http.StatusForbidden)), nil},
		"the token is not accepted":  {of(false, status(http.StatusUnauthorized)), nil},
		"the API server is busy":     {of(false, status(http.StatusTooManyRequests)), nil},
		"the caller may not watch":   {of(true, status(http.StatusForbidden)), nil},
		"the version is forgotten":   {of(true, status(http.StatusGone)), nil},
		"a portal answers the list":  {of(false, func(*http.Request) *http.Response { r := text(200, "<html>"); r.Header = http.Header{}; return r }), nil},
		"a portal answers the watch": {of(true, func(*http.Request) *http.Response { r := text(200, "<html>"); r.Header = http.Header{}; return r }), nil},
		"the link breaks": {func(h *harness) { h.server.revision = 20 }, func(_ *harness, w *stream) {
			_ = w.w.CloseWithError(io.ErrUnexpectedEOF)
		}},
		"the watch ends at once": {func(h *harness) { h.server.revision = 20 }, func(_ *harness, w *stream) { _ = w.w.Close() }},
		"the version is forgotten, in the stream": {func(h *harness) { h.server.revision = 20 }, func(_ *harness, w *stream) {
			_, _ = io.WriteString(w.w, `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"code":410}}`+"\n")
		}},
		"the newest object is gone, and the watch does not tell, it has": {func(h *harness) { h.server.revision = 20; delete(h.server.objects, "c") }, func(h *harness, w *stream) {
			h.server.bookmark(w)
		}},
		"the watch goes back": {func(h *harness) { h.server.revision = 20 }, func(_ *harness, w *stream) {
			_, _ = io.WriteString(w.w, `{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"9"}}}`+"\n")
		}},
		"a frame broke off": {func(h *harness) { h.server.revision = 20 }, func(_ *harness, w *stream) {
			_, _ = io.WriteString(w.w, `{"type":"BOOKMARK","object":{"kind":"Conf`)
			_ = w.w.Close()
		}},
		"the cluster was restored, and is older":                                                     {func(h *harness) { h.server.revision = 9 }, nil},
		"it has other objects at the revision":                                                       {func(h *harness) { delete(h.server.objects, "b") }, nil},
		"it has another version of the first object":                                                 {func(h *harness) { h.server.objects["a"] = 4 }, nil},
		"it has passed the version, with a change of the newest object that the watch does not tell": {func(h *harness) { h.server.revision, h.server.objects["c"] = 20, 9 }, nil},
		"it has passed the version, with a change that the watch does not tell": {func(h *harness) { h.server.revision, h.server.objects["a"] = 20, 9 }, func(h *harness, w *stream) {
			h.server.asked(1)
			h.server.bookmark(w)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.server.mu.Lock()
			c.before(h)
			h.server.mu.Unlock()
			list, read := h.list(""), h.get("")
			if c.during != nil {
				c.during(h, h.server.watch(1))
			}
			list.passed()
			if _, err := h.recorded(t.Context(), &read); (err != nil) != strings.Contains(name, "it has") {
				t.Errorf("what is recorded: %v", err)
			}
		})
	}
}

func TestAWatchThatIsCutBetweenItsEventsGoesOn(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	list := h.list("")
	w := h.server.watch(1)
	h.server.set("a", w)
	_, _ = io.WriteString(w.w, `{"type":"MODIFIED","object":{"kind":"Conf`)
	_ = w.w.CloseWithError(io.ErrUnexpectedEOF)
	next := h.server.watch(2)
	if h.server.opened[1] != "21" {
		t.Errorf("from %v", h.server.opened)
	}
	h.server.bookmark(next)
	list.saved(21, "a@21", "b@6", "c@7")
}

func TestAClientThatLeavesEndsItsProof(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	ctx, cancel := context.WithCancel(t.Context())
	list := h.listAs(ctx, h.get(""))
	h.server.watch(1)
	h.server.asked(1)
	cancel()
	list.passed()
	h.isEnded()
}

// wrote has a client told by a write that b is at a version.
func (h *harness) wrote(version int) {
	h.t.Helper()
	write := h.get("/b")
	write.Info.Verb, write.Info.Class = request.Update, request.ClassWrite
	resp := text(http.StatusOK, object("b", version))
	h.cache.Record(&record.Source{Principal: "web", Info: write.Info, Path: path + "/b", Started: h.clock.Now(), Asked: h.cache.Ask()}, resp)
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		h.t.Fatal(err)
	}
}

func TestACollectionCatchesUpWithWhatItsClientWasTold(t *testing.T) {
	h := newHarness(t)
	h.server.set("b", nil)
	h.wrote(11)
	list := h.list("?resourceVersion=0")
	w := h.server.watch(1)
	_, _ = io.WriteString(w.w, `{"type":"MODIFIED","object":`+object("b", 11)+"}\n")
	list.saved(11, "a@5", "b@11", "c@7")
}

func TestNothingOlderIsAnsweredThanAClientWasTold(t *testing.T) {
	h := newHarness(t)
	h.wrote(99) // which the server does not know
	h.list("").passed()
	if _, ones, _ := h.server.counts(); ones != attempts {
		t.Errorf("%d lists of one item", ones)
	}
}

func TestACollectionLingers(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	list := h.list("")
	w := h.server.watch(1)
	h.server.asked(1)
	h.server.bookmark(w)
	list.saved(20, "a@5", "b@6", "c@7")
	h.clock.Step(3 * time.Second)
	_ = w.w.Close() // its time is over
	long := h.server.watch(2)
	if long.prompt {
		t.Error("nobody waits, and the watch is a prompt one")
	}
	if !h.isLive(h.key()) {
		t.Error("it is not live")
	}
	h.clock.Step(time.Minute)
	_ = long.w.Close()
	h.isEnded()
}

// key is that of the collection.
func (h *harness) key() key {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k := range h.open {
		return k
	}
	return key{}
}

func TestACollectionThatAClientWatchesDoesNotLinger(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	list := h.list("")
	w := h.server.watch(1)
	h.server.asked(1)
	h.server.bookmark(w)
	list.saved(20, "a@5", "b@6", "c@7")
	watch := h.get("?watch=true&resourceVersion=20")
	events := h.cache.Watch(record.Source{Principal: "web", Info: watch.Info, Path: path}, watch.Info.Forms()[0].Format)
	defer events.Close()
	h.clock.Step(3 * time.Second)
	_ = w.w.Close()
	h.isEnded()
}

func TestTheNumberOfLiveCollectionsIsBounded(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.Most = 1 })
	h.server.revision = 20
	first := h.list("")
	w := h.server.watch(1)
	h.server.asked(1)
	other := h.get("")
	other.Recorded.Namespace, other.Recorded.SyncedAt = "another", h.clock.Now() // its key
	if _, err := h.join(&other); !errors.Is(err, errMost) {
		t.Errorf("while the first is waited for: %v", err)
	}
	h.server.bookmark(w)
	first.saved(20, "a@5", "b@6", "c@7")
	h.mu.Lock()
	if !h.evict() || len(h.open) != 0 {
		t.Error("the first is still live, though nobody waits for it")
	}
	h.mu.Unlock()
}

func TestNothingIsLiveAfterRun(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	list := h.list("")
	h.server.watch(1)
	h.stop()
	list.passed()
	h.list("").passed()
}

func TestWhatAClientHasWatchedLingersOnceItHasGone(t *testing.T) {
	h := newHarness(t)
	h.Left(h.get("?watch=true&resourceVersion=10"))
	eventually.True(t, "it waits for the client to watch again", h.clock.HasWaiters)
	if _, _, watches := h.server.counts(); watches != 0 {
		t.Errorf("%d watches at once", watches)
	}
	h.clock.Step(lingerDelay)
	w := h.server.watch(1)
	if w.prompt || h.server.opened[0] != "10" {
		t.Errorf("prompt %v, from %v", w.prompt, h.server.opened)
	}
	h.server.set("b", w)
	h.server.bookmark(w)
	eventually.True(t, "it is live", func() bool { return h.isLive(h.key()) })
	h.list("?resourceVersion=0").saved(11, "a@5", "b@11", "c@7")
	if _, _, watches := h.server.counts(); watches != 1 {
		t.Errorf("%d watches", watches)
	}
}

func TestALingeringCollectionDoesNotStayWhenItsClientIsBack(t *testing.T) {
	h := newHarness(t)
	h.Left(h.get("?watch=true&resourceVersion=10"))
	eventually.True(t, "it waits for the client to watch again", h.clock.HasWaiters)
	watch := h.get("?watch=true&resourceVersion=10")
	events := h.cache.Watch(record.Source{Principal: "web", Info: watch.Info, Path: path}, watch.Info.Forms()[0].Format)
	defer events.Close()
	h.clock.Step(lingerDelay)
	h.isEnded()
	if _, _, watches := h.server.counts(); watches != 0 {
		t.Errorf("%d watches", watches)
	}
}

func TestAWaitingListEndsTheDelay(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	h.Left(h.get("?watch=true&resourceVersion=10"))
	eventually.True(t, "it waits for the client to watch again", h.clock.HasWaiters)
	list := h.list("")
	w := h.server.watch(1)
	if !w.prompt {
		t.Error("it is not a prompt one")
	}
	h.server.asked(1)
	h.server.bookmark(w)
	list.saved(20, "a@5", "b@6", "c@7")
}
