package dispatch

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"rockpool.dev/sidecar/live"
	"rockpool.dev/tests/eventually"
)

// largeItem is an object whose list takes longer than a proof.
func largeItem(rv int) string {
	return fmt.Sprintf(`{"metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"%d"},"data":{"text":%q}}`, rv, strings.Repeat("x", 400_000))
}

// save restarts the Dispatcher with saved reads.
func (g *harness) save() {
	g.t.Helper()
	o := g.Options
	o.Live = live.New(live.Options{Save: true, Upstream: g.link, Credentials: o.Credentials, Linger: time.Minute, Rate: 125_000, Logger: o.Logger})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = o.Live.Run(ctx) }()
	g.t.Cleanup(func() { cancel(); <-ended })
	g.restart(o)
}

// serve answers lists and watches as an API server at version 10 does. It sends the streams of
// clients' watches to opened; those of proofs end by themselves.
func (g *harness) serve(opened chan<- stream) {
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		query := r.URL.Query()
		switch {
		case query.Get("watch") != "":
			s := newStream()
			context.AfterFunc(r.Context(), func() { _ = s.CloseWithError(r.Context().Err()) })
			if query.Get("timeoutSeconds") == "" {
				opened <- s
			}
			return response(http.StatusOK, s), nil
		case query.Get("limit") == "1":
			return textResponse(http.StatusOK, `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"10"},`+
				`"items":[{"metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"5"}}]}`), nil
		}
		return textResponse(http.StatusOK, `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"10"},"items":[`+largeItem(5)+`]}`), nil
	})
}

const savedWatch = path + "?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"

func TestSavedReadsAreAnsweredFromTheCacheWhileTheLinkIsUp(t *testing.T) {
	g := newHarness(t)
	opened := make(chan stream, 10)
	g.serve(opened)
	code, first := g.do(g.request("GET", path))
	if code != http.StatusOK {
		t.Fatal(code)
	}
	g.flush()
	g.save()
	sent := len(g.link.Requests())
	if code, again := g.do(g.request("GET", path)); code != http.StatusOK || strings.TrimSpace(again) != strings.TrimSpace(first) {
		t.Errorf("%d, %d bytes; the first answer has %d", code, len(again), len(first))
	}
	for _, r := range g.link.Requests()[sent:] {
		if q := r.URL.Query(); q.Get("limit") != "1" && q.Get("watch") == "" {
			t.Errorf("the list was sent upstream: %s", r.URL)
		}
	}
	watch := g.open(g.request("GET", savedWatch))
	if added := watch.readFrame(); !strings.HasPrefix(added, `{"type":"ADDED"`) || !strings.Contains(added, largeItem(5)[1:100]) {
		t.Errorf("the initial event is %.300s", added)
	}
	if end := watch.readFrame(); !strings.Contains(end, `"k8s.io/initial-events-end":"true"`) || !strings.Contains(end, `"resourceVersion":"10"`) {
		t.Errorf("the end of the initial events is %s", end)
	}
	var own *http.Request
	for _, r := range g.link.Requests() {
		if r.URL.Query().Get("watch") == "true" && r.URL.Query().Get("timeoutSeconds") == "" {
			own = r
		}
	}
	if own == nil || own.URL.Query().Get("resourceVersion") != "10" || own.URL.Query().Has("sendInitialEvents") || own.URL.Query().Has("resourceVersionMatch") {
		t.Fatalf("the client's own watch is %v", own)
	}
	events := eventually.Receive(t, "the client's watch", opened)
	changed := event("MODIFIED", "a", 11)
	go events.send(t, changed)
	watch.want(changed)

	t.Run("and it outlives the link", func(t *testing.T) {
		g.link.Cut()
		_ = events.w.CloseWithError(fmt.Errorf("cut"))
		next := event("MODIFIED", "a", 12)
		done := make(chan struct{})
		go func() {
			defer close(done)
			watch.want(next)
		}()
		g.link.Restore()
		s := eventually.Receive(t, "the watch that goes on", opened)
		if version := g.lastRequest().URL.Query().Get("resourceVersion"); version != "11" {
			t.Errorf("it goes on from %s", version)
		}
		s.send(t, next)
		<-done
	})
}

func TestAWatchThatIsRefusedBehindItsStateGetsTheAPIServersAnswer(t *testing.T) {
	g := newHarness(t)
	opened := make(chan stream, 10)
	g.serve(opened)
	g.do(g.request("GET", path))
	g.flush()
	g.save()
	serve := g.link.Answer()
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		if r.URL.Query().Get("watch") != "" && r.URL.Query().Get("timeoutSeconds") == "" {
			return textResponse(http.StatusForbidden, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":403}`), nil
		}
		return serve(r)
	})
	if code, _ := g.do(g.request("GET", savedWatch)); code != http.StatusForbidden {
		t.Errorf("status %d", code)
	}
	if last := g.lastRequest(); last.URL.Query().Get("sendInitialEvents") != "true" {
		t.Errorf("the last request is %s, not the client's own", last.URL)
	}
}
