package dispatch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"rockpool.dev/sidecar/api/origin"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/upstream/upstreamtest"
)

// page is an answer of something on the way to the API server.
type page struct {
	status            int
	contentType, body string
}

func (p page) response() *http.Response {
	return &http.Response{
		StatusCode: p.status, Header: http.Header{"Content-Type": {p.contentType}, "Etag": {`"one"`}},
		Body: io.NopCloser(strings.NewReader(p.body)), ContentLength: int64(len(p.body)),
	}
}

// answersWith makes upstream give a page to everything.
func (g *harness) answersWith(p page) {
	g.link.SetAnswer(func(*http.Request) (*http.Response, error) { return p.response(), nil })
}

const (
	objectA = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"5"}}`
	login   = `<!DOCTYPE html><title>Login</title>` + objectA
)

var pages = map[string]page{
	"a login page":                  {200, "text/html", login},
	"a login page that says JSON":   {200, "application/json", login},
	"a gateway's JSON":              {200, "application/json", `{"error":"login","data":` + list + `}`},
	"a gateway's list":              {200, "application/json", `[` + objectA + `]`},
	"a page with a byte order mark": {200, "application/json", "\xef\xbb\xbf" + list},
	"a page made":                   {201, "application/json", `{"error":null}`},
	"an empty page":                 {200, "application/json", ""},
	"no content":                    {204, "", ""},
	"a redirect":                    {302, "text/html", "<a href=https://login.example>"},
	"unchanged":                     {304, "", ""},
	"a page that denies":            {403, "text/html", "<h1>403 Forbidden</h1>"},
	"JSON that denies":              {403, "application/json", `{"kind":"Error","code":403}`},
	"a page that finds nothing":     {404, "text/html", "<h1>404 Not Found</h1>"},
	"JSON that finds nothing":       {404, "application/json", `{"error":"not found"}`},
	"a page that is gone":           {410, "text/html", "<h1>410 Gone</h1>"},
}

func TestAPageOfAGatewayReachesTheClientAndChangesNothing(t *testing.T) {
	requests := map[string]func(*harness) *http.Request{
		"a list":           func(g *harness) *http.Request { return g.request("GET", path) },
		"an object":        func(g *harness) *http.Request { return g.request("GET", path+"/a") },
		"a delete":         func(g *harness) *http.Request { return g.request("DELETE", path+"/a") },
		"a patch":          func(g *harness) *http.Request { return g.write("PATCH", path+"/a", `{}`) },
		"a delete of many": func(g *harness) *http.Request { return g.request("DELETE", path) },
		"a document":       func(g *harness) *http.Request { return g.request("GET", "/version") },
		"a watch":          func(g *harness) *http.Request { return g.request("GET", watchFrom10) },
		"a watch list":     func(g *harness) *http.Request { return g.request("GET", watchList) },
	}
	for name, p := range pages {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			var accepted atomic.Int64
			o := g.Options
			o.Credentials = principal.NewCredentials(
				func() (string, error) { return g.podToken, nil }, func(http.Header, string) { accepted.Add(1) })
			g.restart(o)
			recorded := map[string]string{path: list, path + "/a": objectA, "/version": "one"}
			for url, body := range recorded {
				g.answerAll(200, body)
				if code, got := g.do(g.request("GET", url)); code != 200 || got != body {
					t.Fatalf("%s: %d %s", url, code, got)
				}
			}
			g.flush()
			before := accepted.Load()
			g.answersWith(p)
			for what, request := range requests {
				r := request(g)
				r.Header.Set("Authorization", "Bearer "+token("web")+"bmV3")
				resp, err := g.RoundTrip(r)
				if err != nil {
					t.Fatal(what, err)
				}
				raw, err := io.ReadAll(resp.Body)
				if err := errors.Join(err, resp.Body.Close()); err != nil {
					t.Fatal(what, err)
				}
				if resp.StatusCode != p.status || string(raw) != p.body || resp.Header.Get("Content-Type") != p.contentType {
					t.Errorf("%s: %d %s", what, resp.StatusCode, raw)
				}
			}
			g.flush()
			if seen, _ := g.Credentials.Seen("web"); accepted.Load() != before || seen != "Bearer "+token("web") {
				t.Error("the page made a token believed")
			}
			g.link.Cut()
			for url, body := range recorded {
				code, got := g.do(g.request("GET", url))
				if code != 200 || (got != body && url != path) || !strings.Contains(got, body[:len(body)/4]) {
					t.Errorf("offline, %s: %d %s", url, code, got)
				}
			}
			if code, body := g.do(g.request("GET", path)); code != 200 || !strings.Contains(body, `"name":"a"`) {
				t.Errorf("offline: %d %s", code, body)
			}
		})
	}
}

func TestAnAnswerWithAKindIsBelievedWithoutAnAuditID(t *testing.T) {
	for how, reader := range map[string]func(string) io.Reader{
		"at once":      func(s string) io.Reader { return strings.NewReader(s) },
		"byte by byte": func(s string) io.Reader { return oneByOne{strings.NewReader(s)} },
	} {
		t.Run(how, func(t *testing.T) {
			g := newHarness(t)
			g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
				resp := response(200, io.NopCloser(reader(list)))
				resp.Header.Del(origin.AuditID)
				return resp, nil
			})
			if code, body := g.do(g.request("GET", path)); code != 200 || body != list {
				t.Fatalf("%d %s", code, body)
			}
			if _, ok := g.Credentials.Seen("web"); !ok {
				t.Error("the token is not believed")
			}
			g.link.Cut()
			if code, body := g.do(g.request("GET", path)); code != 200 || !strings.Contains(body, `"name":"a"`) {
				t.Errorf("offline: %d %s", code, body)
			}
		})
	}
}

// oneByOne gives one byte at each Read.
type oneByOne struct{ io.Reader }

func (r oneByOne) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), 1)]) }

func TestADocumentThatAGatewayCallsUnchangedIsFetched(t *testing.T) {
	g := newHarness(t)
	g.serveDocument("one")
	g.do(g.request("GET", "/apis"))
	g.flush()
	var asked []string
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.Header.Get("If-None-Match"))
		if r.Header.Get("If-None-Match") != "" {
			return page{status: 304}.response(), nil
		}
		return response(200, io.NopCloser(strings.NewReader("two"))), nil
	})
	if code, body := g.do(g.request("GET", "/apis")); code != 200 || body != "two" || len(asked) != 2 || asked[1] != "" {
		t.Errorf("%d %s, asked with %q", code, body, asked)
	}
}

func TestAPageDoesNotEndAWatchThatComesBack(t *testing.T) {
	for name, p := range pages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newHarness(t)
			first, second := newStream(), newStream()
			g.answerInTurn(first, p.response(), second)
			c := g.open(g.request("GET", watchFrom10))
			go first.send(t, event("ADDED", "b", 11))
			c.want(event("ADDED", "b", 11))
			go func() {
				_ = first.w.CloseWithError(upstreamtest.ErrDown)
				second.send(t, event("ADDED", "c", 12))
			}()
			c.want(event("ADDED", "c", 12))
			if last := g.link.Requests()[len(g.link.Requests())-1].URL.Query().Get("resourceVersion"); len(g.link.Requests()) != 3 || last != "11" {
				t.Errorf("asked %d times, at last from %s", len(g.link.Requests()), last)
			}
		})
	}
}

func TestAPageInPlaceOfAListDoesNotEndAWatch(t *testing.T) {
	for name, p := range pages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newHarness(t)
			s := &server{version: "20", pages: []string{listOf(20, "", object("a", "ua", 5), object("b", "ub", 11), object("d", "ud", 15))},
				streams: map[string]stream{"20": newStream()}}
			c := g.interruptedWatch("", s)
			var shown atomic.Bool
			g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
				if !r.URL.Query().Has("watch") && !shown.Swap(true) {
					return p.response(), nil
				}
				return s.answer(r)
			})
			c.want(strings.Replace(eventOf("DELETED", "c", "uc", 7), `"resourceVersion":"7"`, `"resourceVersion":"11"`, 1) + eventOf("ADDED", "d", "ud", 15))
			if !shown.Load() {
				t.Error("the page was not shown")
			}
		})
	}
}

func TestAWatchWithoutAnAuditIDCountsByItsFirstFrame(t *testing.T) {
	plain := func(s stream) *http.Response {
		resp := response(200, s)
		resp.Header.Del(origin.AuditID)
		return resp
	}
	g := newHarness(t)
	first, second, third := newStream(), newStream(), newStream()
	g.answerInTurn(plain(first), plain(second), plain(third))
	c := g.open(g.request("GET", watchFrom10))
	go func() {
		first.send(t, event("ADDED", "b", 11))
		_ = first.w.CloseWithError(upstreamtest.ErrDown)
		_ = second.w.Close() // without a frame it is not the API server that has ended the watch
		third.send(t, event("ADDED", "c", 12))
	}()
	c.want(event("ADDED", "b", 11) + event("ADDED", "c", 12))

	ctx, cancel := context.WithCancel(t.Context())
	silent := newStream()
	g.answerInTurn(plain(silent))
	c = g.open(g.request("GET", watchFrom10).WithContext(ctx))
	go func() {
		cancel()
		_ = silent.w.CloseWithError(upstreamtest.ErrDown) // as a transport does
	}()
	if _, err := c.body.Read(make([]byte, 10)); err == nil {
		t.Error("it goes on without a client")
	}
}

func TestAPageDoesNotTakeAHeldLease(t *testing.T) {
	for _, p := range []page{{404, "text/html", login}, {409, "text/html", login}, {200, "application/json", `{"error":"login"}`}} {
		g := newLeasesHarness(t)
		g.answersWith(p)
		if code, body := g.do(g.write("PUT", leasePath, heldLease("2", 5))); code != p.status || body != p.body {
			t.Errorf("%d %s", code, body)
		}
		g.link.Cut()
		if code, body := g.do(g.write("PUT", leasePath, heldLease("2", 10))); code != 200 {
			t.Errorf("after a page with %d: %d %s", p.status, code, body)
		}
	}
}

func TestAPageIsNoAnswerToAQueuedWrite(t *testing.T) {
	g := newHarness(t)
	for name, p := range pages {
		g.answersWith(p)
		if resp, err := g.Send("web", g.write("POST", eventsPath, namedEvent)); !errors.Is(err, origin.ErrForeign) {
			t.Errorf("%s: %v %v", name, resp, err)
		}
	}
	g.answerAll(201, namedEvent)
	resp, err := g.Send("web", g.write("POST", eventsPath, namedEvent))
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != 201 {
		t.Error(resp.Status, err)
	}
}
