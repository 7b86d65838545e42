package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"rockpool.dev/sidecar/upstream/upstreamtest"
	"strings"
	"sync"
	"testing"
	"time"
)

// stream is a watch body from upstream that the test feeds.
type stream struct {
	*io.PipeReader
	w *io.PipeWriter
}

func newStream() stream {
	r, w := io.Pipe()
	return stream{r, w}
}

func (s stream) send(t *testing.T, raw string) {
	t.Helper()
	if _, err := io.WriteString(s.w, raw); err != nil {
		t.Error(err)
	}
}

// streams makes upstream answer each request with the next of these; *http.Response or error.
func (g *harness) streams(answers ...any) {
	var mu sync.Mutex
	g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(answers) == 0 {
			return nil, upstreamtest.ErrDown
		}
		next := answers[0]
		answers = answers[1:]
		switch x := next.(type) {
		case stream:
			return response(200, x), nil
		case *http.Response:
			return x, nil
		default:
			return nil, next.(error)
		}
	})
}

func event(kind, name string, rv int) string {
	return fmt.Sprintf(`{"type":%q,"object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":%q,"namespace":"shop","uid":"u","resourceVersion":"%d"}}}`, kind, name, rv) + "\n"
}

const end = `{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"10","annotations":{"k8s.io/initial-events-end":"true"}}}}` + "\n"

// client reads a watch.
type client struct {
	t    *testing.T
	body io.ReadCloser
	buf  *bytes.Buffer
}

func (g *harness) open(r *http.Request) *client {
	g.t.Helper()
	resp, err := g.RoundTrip(r)
	if err != nil {
		g.t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		g.t.Fatalf("status %d", resp.StatusCode)
	}
	g.t.Cleanup(func() { _ = resp.Body.Close() })
	return &client{g.t, resp.Body, &bytes.Buffer{}}
}

// want reads until the client has all of text, and fails on anything else.
func (c *client) want(text string) {
	c.t.Helper()
	buf := make([]byte, 4096)
	for c.buf.Len() < len(text) {
		n, err := c.body.Read(buf)
		c.buf.Write(buf[:n])
		if err != nil && c.buf.Len() < len(text) {
			c.t.Fatalf("%v behind %q", err, c.buf)
		}
	}
	if got := string(c.buf.Next(len(text))); got != text {
		c.t.Fatalf("got %q, want %q", got, text)
	}
}

func (c *client) ends(want error) {
	c.t.Helper()
	raw, err := io.ReadAll(io.MultiReader(c.buf, c.body))
	if err == nil {
		err = io.EOF
	}
	if len(raw) > 0 || !errors.Is(err, want) {
		c.t.Fatalf("%q %v, want the end with %v", raw, err, want)
	}
}

func TestAWatchOutlivesTheLink(t *testing.T) {
	g := newHarness(t)
	first, second := newStream(), newStream()
	g.streams(first, upstreamtest.ErrDown, second)
	c := g.open(g.request("GET", quiet+"&timeoutSeconds=600"))
	go first.send(t, event("ADDED", "b", 11))
	c.want(event("ADDED", "b", 11))

	g.own = token("web") + "cm90YXRlZA" // a new signature
	done := make(chan struct{})
	go func() {
		defer close(done)
		first.send(t, event("MODIFIED", "b", 12)+event("MODIFIED", "b", 13)[:20])
		_ = first.w.CloseWithError(upstreamtest.ErrDown) // in the middle of a frame
		second.send(t, event("MODIFIED", "b", 13))
	}()
	c.want(event("MODIFIED", "b", 12) + event("MODIFIED", "b", 13))
	<-done
	r := g.lastRequest()
	if q := r.URL.Query(); q.Get("resourceVersion") != "12" || q.Get("watch") != "true" || q.Get("timeoutSeconds") == "" {
		t.Fatalf("it went on with %s", r.URL.RawQuery)
	}
	if got := r.Header.Get("Authorization"); got != "Bearer "+g.own {
		t.Fatal("it went on with the old token")
	}
	go second.w.Close()
	c.ends(io.EOF)
}

func TestAWatchWithoutAVersionOutlivesTheLinkOnceItsStateIsThere(t *testing.T) {
	g := newHarness(t)
	first, second := newStream(), newStream()
	g.streams(first, second)
	c := g.open(g.request("GET", path+"?watch=true"))
	go func() {
		first.send(t, event("ADDED", "a", 9)+event("ADDED", "b", 5)+event("MODIFIED", "b", 12))
		_ = first.w.CloseWithError(upstreamtest.ErrDown)
		second.send(t, event("ADDED", "c", 13))
	}()
	c.want(event("ADDED", "a", 9) + event("ADDED", "b", 5) + event("MODIFIED", "b", 12) + event("ADDED", "c", 13))
	if q := g.link.Requests()[1].URL.Query(); q.Get("resourceVersion") != "12" {
		t.Fatalf("it went on with %v", q)
	}
}

func TestAWatchOfAnotherPrincipalKeepsItsToken(t *testing.T) {
	g := newHarness(t)
	first, second := newStream(), newStream()
	g.streams(first, second)
	r := g.request("GET", quiet)
	r.Header.Set("Authorization", "Bearer "+token("other"))
	c := g.open(r)
	go func() {
		_ = first.w.CloseWithError(upstreamtest.ErrDown)
		second.send(t, event("ADDED", "b", 11))
	}()
	c.want(event("ADDED", "b", 11))
	if got := g.link.Requests()[1].Header.Get("Authorization"); got != "Bearer "+token("other") {
		t.Fatal("it went on with the pod's token")
	}
}

func TestAWatchOpensOfflineAndGoesOnOnline(t *testing.T) {
	g := newHarness(t)
	g.link.Cut()
	up := newStream()
	g.streams(up)
	c := g.open(g.request("GET", quiet))
	g.link.Restore()
	go up.send(t, event("ADDED", "b", 11))
	c.want(event("ADDED", "b", 11))
	if q := g.link.Requests()[0].URL.Query(); q.Get("resourceVersion") != "10" {
		t.Fatalf("it went on with %v", q)
	}
}

func TestAWatchListIsServedOfflineAndGoesOnOnline(t *testing.T) {
	g := newHarness(t)
	g.says(200, list)
	g.do(g.request("GET", path))
	g.link.Cut()
	r := g.request("GET", path+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")
	c := g.open(r)
	c.want(event("ADDED", "a", 5) + strings.Replace(end, `"resourceVersion":"10",`, `"resourceVersion":"10","creationTimestamp":null,`, 1))
	up := newStream()
	g.streams(up)
	g.link.Restore()
	go up.send(t, event("DELETED", "a", 11))
	c.want(event("DELETED", "a", 11))
	if q := g.lastRequest().URL.Query(); q.Get("resourceVersion") != "10" || q.Has("sendInitialEvents") || q.Has("resourceVersionMatch") {
		t.Fatalf("it went on with %v", q)
	}
	go up.w.Close()
	c.ends(io.EOF)

	g.link.Cut() // and what came after was recorded, too
	if code, body := g.do(g.request("GET", path)); code != 200 || strings.Contains(body, `"name":"a"`) || !strings.Contains(body, `"resourceVersion":"11"`) {
		t.Fatalf("%d %s", code, body)
	}
}

func TestAWatchListThatWasRecordedOnlineIsServedOffline(t *testing.T) {
	g := newHarness(t)
	up := newStream()
	g.streams(up)
	c := g.open(g.request("GET", watchlist))
	go up.send(t, event("ADDED", "a", 5)+end+event("ADDED", "b", 11))
	c.want(event("ADDED", "a", 5) + end + event("ADDED", "b", 11))
	g.link.Cut()
	offline := g.open(g.request("GET", watchlist))
	offline.want(event("ADDED", "a", 5) + event("ADDED", "b", 11))
}

func TestAWatchOfWhatWasNeverListedIsRefusedOffline(t *testing.T) {
	g := newHarness(t)
	g.link.Cut()
	for _, query := range []string{"?watch=true", "?watch=true&resourceVersion=0", "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"} {
		if code, message := g.do(g.request("GET", path+query)); code != 503 || !strings.Contains(message, "not recorded") {
			t.Errorf("%s: %d %s", query, code, message)
		}
	}
}

func TestInitialEventsThatBreakOffAreNotPatchedUp(t *testing.T) {
	g := newHarness(t)
	up := newStream()
	g.streams(up)
	c := g.open(g.request("GET", path+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"))
	go func() {
		up.send(t, event("ADDED", "a", 5))
		_ = up.w.CloseWithError(upstreamtest.ErrDown)
	}()
	c.want(event("ADDED", "a", 5))
	c.ends(upstreamtest.ErrDown)
}

func TestGoneReachesTheClientAsTheServerWouldSendIt(t *testing.T) {
	g := newHarness(t)
	const gone = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old","reason":"Expired","code":410}`
	first := newStream()
	g.streams(first, response(410, io.NopCloser(strings.NewReader(gone+"\n"))))
	c := g.open(g.request("GET", quiet))
	go first.w.CloseWithError(upstreamtest.ErrDown)
	c.want(`{"type":"ERROR","object":` + gone + "}\n")
	c.ends(io.EOF)
}

func TestAWatchThatIsRefusedAtItsReturnEnds(t *testing.T) {
	g := newHarness(t)
	first := newStream()
	g.streams(first, response(403, io.NopCloser(strings.NewReader(`{"kind":"Status"}`))))
	c := g.open(g.request("GET", quiet))
	go first.w.CloseWithError(upstreamtest.ErrDown)
	c.ends(io.EOF) // the client asks again and hears it itself
}

func TestTheClientsTimeoutHoldsOffline(t *testing.T) {
	g := newHarness(t)
	g.link.Cut()
	start := time.Now()
	c := g.open(g.request("GET", quiet+"&timeoutSeconds=1"))
	c.ends(io.EOF)
	if d := time.Since(start); d < 900*time.Millisecond {
		t.Fatalf("it ended after %v", d)
	}
}

func TestAWatchWhoseClientLeftEnds(t *testing.T) {
	g := newHarness(t)
	g.link.Cut()
	ctx, cancel := context.WithCancel(t.Context())
	c := g.open(g.request("GET", quiet).WithContext(ctx))
	go cancel()
	c.ends(context.Canceled)
}

func TestAFrameThatNobodyUnderstandsIsPassedOn(t *testing.T) {
	g := newHarness(t)
	up := newStream()
	g.streams(up)
	c := g.open(g.request("GET", quiet))
	go up.send(t, `{"new":"kind of frame"}`+"\n"+event("ADDED", "b", 11))
	c.want(`{"new":"kind of frame"}` + "\n" + event("ADDED", "b", 11))
}
