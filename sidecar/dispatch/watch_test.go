package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/tests/eventually"
)

// stream is the body of a watch from the API server, which the test writes.
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

// answerInTurn makes the API server answer each request with the next of these: a stream, an
// *http.Response or an error. Later requests get upstreamtest.ErrDown.
func (g *harness) answerInTurn(answers ...any) {
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

const initialEventsEnd = `{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"10","annotations":{"k8s.io/initial-events-end":"true"}}}}` + "\n"

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

// want reads until the client has all of text. It fails on anything else.
func (c *client) want(text string) {
	c.t.Helper()
	buf := make([]byte, 4096)
	for c.buf.Len() < len(text) {
		n, err := c.body.Read(buf)
		c.buf.Write(buf[:n])
		if err != nil && c.buf.Len() < len(text) {
			c.t.Fatalf("%v after %q", err, c.buf)
		}
	}
	if got := string(c.buf.Next(len(text))); got != text {
		c.t.Fatalf("got %q, want %q", got, text)
	}
}

// readFrame reads one frame.
func (c *client) readFrame() string {
	c.t.Helper()
	buf := make([]byte, 4096)
	for {
		if line, err := c.buf.ReadString('\n'); err == nil {
			return line
		} else if _, err := c.buf.WriteString(line); err != nil {
			c.t.Fatal(err)
		}
		n, err := c.body.Read(buf)
		c.buf.Write(buf[:n])
		if err != nil {
			c.t.Fatalf("%v after %q", err, c.buf)
		}
	}
}

// wantEnd reads the rest. It fails on a further frame or another error.
func (c *client) wantEnd(want error) {
	c.t.Helper()
	raw, err := io.ReadAll(io.MultiReader(c.buf, c.body))
	if err == nil {
		err = io.EOF
	}
	if len(raw) > 0 || !errors.Is(err, want) {
		c.t.Fatalf("read %q and %v, want only %v", raw, err, want)
	}
}

func TestAWatchOutlivesTheLink(t *testing.T) {
	g := newHarness(t)
	first, second := newStream(), newStream()
	g.answerInTurn(first, upstreamtest.ErrDown, second)
	c := g.open(g.request("GET", watchFrom10+"&timeoutSeconds=600"))
	go first.send(t, event("ADDED", "b", 11))
	c.want(event("ADDED", "b", 11))

	g.podToken = token("web") + "cm90YXRlZA" // the kubelet renews the token
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
		t.Fatalf("it resumed with %s", r.URL.RawQuery)
	}
	if got := r.Header.Get("Authorization"); got != "Bearer "+g.podToken {
		t.Fatal("it resumed with the old token")
	}
	go second.w.Close()
	c.wantEnd(io.EOF)
}

func TestAWatchResumesFromTheFirstChangeAfterItsInitialState(t *testing.T) {
	g := newHarness(t)
	first, second := newStream(), newStream()
	g.answerInTurn(first, second)
	c := g.open(g.request("GET", path+"?watch=true"))
	go func() {
		first.send(t, event("ADDED", "a", 9)+event("ADDED", "b", 5)+event("MODIFIED", "b", 12))
		_ = first.w.CloseWithError(upstreamtest.ErrDown)
		second.send(t, event("ADDED", "c", 13))
	}()
	c.want(event("ADDED", "a", 9) + event("ADDED", "b", 5) + event("MODIFIED", "b", 12) + event("ADDED", "c", 13))
	if q := g.link.Requests()[1].URL.Query(); q.Get("resourceVersion") != "12" {
		t.Fatalf("it resumed with %v", q)
	}
}

// Without sendInitialEvents nothing marks the end of the initial state. A watch that resumed
// after a part of it would never get the rest.
func TestAWatchWithoutAVersionResumesOnlyAfterItsInitialState(t *testing.T) {
	const bookmark = `{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"12"}}}` + "\n"
	tests := map[string]struct {
		before, last string // what comes before the link breaks
		resumes      bool
	}{
		"nothing":                       {"", "", false},
		"only added objects":            {event("ADDED", "b", 9), event("ADDED", "a", 5), false},
		"a bookmark":                    {event("ADDED", "a", 5), bookmark, true},
		"a modification":                {event("ADDED", "a", 5), event("MODIFIED", "a", 12), true},
		"a deletion":                    {event("ADDED", "a", 5), event("DELETED", "a", 12), true},
		"an object that is added later": {event("DELETED", "a", 11), event("ADDED", "a", 12), true},
	}
	for name, tt := range tests {
		for _, version := range []string{"", "&resourceVersion=0"} {
			t.Run(name+version, func(t *testing.T) {
				g := newHarness(t)
				first, second := newStream(), newStream()
				g.answerInTurn(first, second)
				c := g.open(g.request("GET", path+"?watch=true"+version))
				if text := tt.before + tt.last; text != "" {
					go first.send(t, text)
					c.want(text)
				}
				go first.w.CloseWithError(upstreamtest.ErrDown)
				if !tt.resumes {
					_ = second.w.Close() // so that a watch that resumes ends, too
					c.wantEnd(upstreamtest.ErrDown)
					return
				}
				go second.send(t, event("ADDED", "c", 13))
				c.want(event("ADDED", "c", 13))
				if q := g.link.Requests()[1].URL.Query(); q.Get("resourceVersion") != "12" {
					t.Errorf("it resumed with %v", q)
				}
			})
		}
	}
}

func TestAWatchOfAnotherPrincipalKeepsItsToken(t *testing.T) {
	g := newHarness(t)
	first, second := newStream(), newStream()
	g.answerInTurn(first, second)
	r := g.request("GET", watchFrom10)
	r.Header.Set("Authorization", "Bearer "+token("other"))
	c := g.open(r)
	go func() {
		_ = first.w.CloseWithError(upstreamtest.ErrDown)
		second.send(t, event("ADDED", "b", 11))
	}()
	c.want(event("ADDED", "b", 11))
	if got := g.link.Requests()[1].Header.Get("Authorization"); got != "Bearer "+token("other") {
		t.Fatal("it resumed with the pod's token")
	}
}

func TestAWatchThatOpensOfflineResumesOnline(t *testing.T) {
	g := newHarness(t)
	g.link.Cut()
	up := newStream()
	g.answerInTurn(up)
	c := g.open(g.request("GET", watchFrom10))
	g.link.Restore()
	go up.send(t, event("ADDED", "b", 11))
	c.want(event("ADDED", "b", 11))
	if q := g.link.Requests()[0].URL.Query(); q.Get("resourceVersion") != "10" {
		t.Fatalf("it resumed with %v", q)
	}
}

func TestAWatchListThatOpensOfflineResumesOnline(t *testing.T) {
	g := newHarness(t)
	g.answerAll(200, list)
	g.do(g.request("GET", path))
	g.link.Cut()
	r := g.request("GET", path+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")
	c := g.open(r)
	c.want(event("ADDED", "a", 5) + strings.Replace(initialEventsEnd, `"resourceVersion":"10",`, `"resourceVersion":"10","creationTimestamp":null,`, 1))
	up := newStream()
	g.answerInTurn(up)
	g.link.Restore()
	go up.send(t, event("DELETED", "a", 11))
	c.want(event("DELETED", "a", 11))
	if q := g.lastRequest().URL.Query(); q.Get("resourceVersion") != "10" || q.Has("sendInitialEvents") || q.Has("resourceVersionMatch") {
		t.Fatalf("it resumed with %v", q)
	}
	go up.w.Close()
	c.wantEnd(io.EOF)

	g.link.Cut() // the event after the list was recorded, too
	if code, body := g.do(g.request("GET", path)); code != 200 || strings.Contains(body, `"name":"a"`) || !strings.Contains(body, `"resourceVersion":"11"`) {
		t.Fatalf("%d %s", code, body)
	}
}

func TestARecordedWatchListIsAnsweredOffline(t *testing.T) {
	g := newHarness(t)
	up := newStream()
	g.answerInTurn(up)
	c := g.open(g.request("GET", watchList))
	go up.send(t, event("ADDED", "a", 5)+initialEventsEnd+event("ADDED", "b", 11))
	c.want(event("ADDED", "a", 5) + initialEventsEnd + event("ADDED", "b", 11))
	g.link.Cut()
	offline := g.open(g.request("GET", watchList))
	offline.want(event("ADDED", "a", 5) + event("ADDED", "b", 11))
}

func TestAWatchOfAnUnrecordedCollectionIsRefusedOffline(t *testing.T) {
	g := newHarness(t)
	g.link.Cut()
	for _, query := range []string{"?watch=true", "?watch=true&resourceVersion=0", "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"} {
		if code, message := g.do(g.request("GET", path+query)); code != 503 || !strings.Contains(message, "not recorded") {
			t.Errorf("%s: %d %s", query, code, message)
		}
	}
}

func TestAWatchThatIsInterruptedDuringItsInitialEventsEnds(t *testing.T) {
	g := newHarness(t)
	up := newStream()
	g.answerInTurn(up)
	c := g.open(g.request("GET", path+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"))
	go func() {
		up.send(t, event("ADDED", "a", 5))
		_ = up.w.CloseWithError(upstreamtest.ErrDown)
	}()
	c.want(event("ADDED", "a", 5))
	c.wantEnd(upstreamtest.ErrDown)
}

func TestA410AnswerReachesTheClientAsAnErrorEvent(t *testing.T) {
	g := newHarness(t)
	first := newStream()
	g.answerInTurn(first, textResponse(410, expiredStatus+"\n"))
	c := g.open(g.request("GET", watchFrom10))
	go first.w.CloseWithError(upstreamtest.ErrDown)
	c.want(expiredEvent)
	c.wantEnd(io.EOF)
}

func TestAWatchWhoseResumptionIsRefusedEnds(t *testing.T) {
	g := newHarness(t)
	first := newStream()
	g.answerInTurn(first, textResponse(403, `{"kind":"Status"}`))
	c := g.open(g.request("GET", watchFrom10))
	go first.w.CloseWithError(upstreamtest.ErrDown)
	c.wantEnd(io.EOF) // the client requests it again, and gets the refusal itself
}

func TestTimeoutSecondsEndsAWatchOffline(t *testing.T) {
	g := newHarness(t)
	g.link.Cut()
	start := time.Now()
	c := g.open(g.request("GET", watchFrom10+"&timeoutSeconds=1"))
	c.wantEnd(io.EOF)
	if d := time.Since(start); d < 900*time.Millisecond {
		t.Fatalf("it ended after %v", d)
	}
}

func TestAWatchEndsWithTheContextOfItsRequest(t *testing.T) {
	g := newHarness(t)
	g.link.Cut()
	ctx, cancel := context.WithCancel(t.Context())
	c := g.open(g.request("GET", watchFrom10).WithContext(ctx))
	go cancel()
	c.wantEnd(context.Canceled)
}

func TestAnUnknownFrameIsPassedOn(t *testing.T) {
	g := newHarness(t)
	up := newStream()
	g.answerInTurn(up)
	c := g.open(g.request("GET", watchFrom10))
	go up.send(t, `{"new":"kind of frame"}`+"\n"+event("ADDED", "b", 11))
	c.want(`{"new":"kind of frame"}` + "\n" + event("ADDED", "b", 11))
}

func TestAWatchThatCannotResumeRetriesWithBackoff(t *testing.T) {
	g := newHarness(t)
	now := clocktesting.NewFakeClock(time.Now())
	g.setClock(now)
	first := newStream()
	g.answerInTurn(first)
	c := g.open(g.request("GET", watchFrom10))
	g.failAll(upstreamtest.ErrDown)
	go first.w.CloseWithError(upstreamtest.ErrDown)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = c.body.Read(make([]byte, 1))
	}()
	var waits []time.Duration
	last := now.Now()
	for n := 2; n < 8; n++ {
		eventually.True(t, "the next attempt to resume", func() bool {
			if len(g.link.Requests()) < n && now.HasWaiters() {
				now.Step(100 * time.Millisecond)
			}
			return len(g.link.Requests()) == n
		})
		waits = append(waits, now.Since(last).Round(500*time.Millisecond))
		last = now.Now()
	}
	if got := fmt.Sprint(waits); got != "[0s 500ms 1s 2s 4s 8s]" {
		t.Error(got)
	}
	if err := c.body.Close(); err != nil {
		t.Error(err)
	}
	<-ended
}

// kubectl get --watch reads Tables. Whatever the form of an event, its client was told.
func TestAnEventThatIsNotRecordedWithItsListCounts(t *testing.T) {
	const asTable = "application/json;as=Table;v=v1;g=meta.k8s.io"
	table := func(kind, rows string) string {
		return `{"type":"` + kind + `","object":{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"20"},"rows":[` + rows + `]}}`
	}
	row := func(version string) string {
		return `{"cells":[],"object":{"kind":"PartialObjectMetadata","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"` + version + `"}}}`
	}
	object := func(kind, metadata string) string {
		return `{"type":"` + kind + `","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{` + metadata + `,"uid":"u","resourceVersion":"20"}}}`
	}
	const a = `"name":"a","namespace":"shop"`
	const fromState = path + "?watch=true"
	for name, tt := range map[string]struct {
		url, accept, mediaType, frames string
		list, object                   int
	}{
		"a Table of a deletion":                        {watchFrom10, asTable + ",application/json", "", table("DELETED", row("20")), 503, 404},
		"a Table of a change":                          {watchFrom10, asTable + ",application/json", "", table("MODIFIED", row("20")), 503, 503},
		"a Table of what is recorded":                  {watchFrom10, asTable + ",application/json", "", table("MODIFIED", row("5")), 200, 200},
		"a Table of the initial state":                 {fromState, asTable + ",application/json", "", table("ADDED", row("5")), 200, 200},
		"a Table of a bookmark":                        {watchFrom10, asTable + ",application/json", "", table("BOOKMARK", `{"cells":[],"object":{"metadata":{}}}`), 200, 200},
		"a Table of a deletion, without the object":    {watchFrom10, asTable + ",application/json", "", table("DELETED", `{"cells":["a"],"object":null}`), 503, 503},
		"a Table of a deletion, from a selection":      {watchFrom10 + "&labelSelector=x", asTable + ",application/json", "", table("DELETED", row("20")), 503, 503},
		"Tables alone":                                 {watchFrom10, asTable, "", table("DELETED", row("20")), 503, 503},
		"a stream in CBOR":                             {watchFrom10, "application/cbor-seq", "application/cbor-seq", "\xd9\xd9\xf7\xa0", 503, 503},
		"a stream of another media type":               {watchFrom10, "", "text/plain", object("DELETED", a), 503, 503},
		"a watch with a parameter that has no meaning": {watchFrom10 + "&timeoutSeconds=x", "", "", object("DELETED", a), 503, 503},
		"an object without a namespace":                {watchFrom10, "", "", object("DELETED", `"name":"a"`), 503, 503},
		"an object with a label that is a number":      {watchFrom10, "", "", object("DELETED", a+`,"labels":{"x":1}`), 503, 503},
		"an event after one that cannot be read":       {watchFrom10, "", "", `{"type":"MODIFIED","object":null}` + "\n" + object("DELETED", a), 503, 404},
		"a deletion in place of the initial state":     {fromState + "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "", "", object("DELETED", a), 503, 404},
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			g.answerAll(200, list)
			g.do(g.request("GET", path))
			g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
				resp := textResponse(200, tt.frames)
				if tt.mediaType != "" {
					resp.Header.Set("Content-Type", tt.mediaType)
				}
				return resp, nil
			})
			r := g.request("GET", tt.url)
			r.Header.Set("Accept", tt.accept)
			if code, body := g.do(r); code != 200 || strings.TrimSpace(body) != tt.frames {
				t.Fatalf("online: %d %s", code, body)
			}
			g.link.Cut()
			for url, want := range map[string]int{path: tt.list, path + "/a": tt.object} {
				if code, body := g.do(g.request("GET", url)); code != want {
					t.Errorf("%s: %d %s, want %d", url, code, body, want)
				}
			}
		})
	}
}
