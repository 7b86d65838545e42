package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	testclock "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/store"
)

// document makes upstream serve one text under an etag, as the API server does.
func (g *harness) document(text string) {
	etag := fmt.Sprintf("%q", text)
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		resp := response(200, io.NopCloser(strings.NewReader(text)))
		resp.Header.Set("ETag", etag)
		resp.Header.Set("Vary", "Accept")
		if r.Header.Get("If-None-Match") == etag {
			resp.StatusCode, resp.Body = http.StatusNotModified, http.NoBody
			resp.Header.Del("Content-Type")
		}
		return resp, nil
	})
}

// flush waits until all that was read is written, and what comes is later: times in
// the store have no more than milliseconds.
func (g *harness) flush() {
	g.t.Helper()
	if err := g.Caches.Disk.Flush(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
	for written := time.Now(); time.Since(written) < 2*time.Millisecond; {
		runtime.Gosched()
	}
}

// condition is the If-None-Match of the latest request upstream.
func (g *harness) condition() string {
	return g.lastRequest().Header.Get("If-None-Match")
}

func revalidated(result string) float64 {
	return testutil.ToFloat64(revalidationsTotal.WithLabelValues(result))
}

func TestADocumentThatHasNotChangedIsNotSentAgain(t *testing.T) {
	g := newHarness(t)
	g.document("one")
	g.do(g.request("GET", "/apis"))
	g.flush()
	recorded, err := g.db.Response(t.Context(), "web", "/apis", "")
	if err != nil {
		t.Fatal(err)
	}
	before := revalidated("unchanged")
	resp, err := g.RoundTrip(g.request("GET", "/apis"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(raw) != "one" || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Vary") != "Accept" || resp.Header.Get("Cache-Status") != "" {
		t.Fatalf("%d %s %v %v", resp.StatusCode, raw, resp.Header, err)
	}
	if g.condition() != `"one"` || revalidated("unchanged") != before+1 {
		t.Errorf("upstream was asked with %q", g.condition())
	}
	g.flush()
	if again, err := g.db.Response(t.Context(), "web", "/apis", ""); err != nil || !again.StoredAt.After(recorded.StoredAt) {
		t.Errorf("it is not younger: %v, was %v: %v", again.StoredAt, recorded.StoredAt, err)
	}

	g.document("two")
	if code, body := g.do(g.request("GET", "/apis")); code != 200 || body != "two" || g.condition() != `"one"` {
		t.Errorf("a new version: %d %s", code, body)
	}
	g.flush()
	g.says(401, "no")
	if code, body := g.do(g.request("GET", "/apis")); code != 401 || body != "no" || g.condition() != `"two"` {
		t.Errorf("a refusal: %d %s", code, body)
	}
	g.fails(upstreamtest.ErrDown)
	if code, body := g.do(g.request("GET", "/apis")); code != 200 || body != "two" {
		t.Errorf("when the link breaks: %d %s", code, body)
	}
}

func TestWhatIsNotTheSameDocumentIsFetched(t *testing.T) {
	g := newHarness(t)
	g.document("one")
	g.do(g.request("GET", "/apis"))
	g.do(g.request("GET", path)) // with an etag, but no document
	g.flush()
	change := func(url string, f func(http.Header)) *http.Request {
		r := g.request("GET", url)
		f(r.Header)
		return r
	}
	for name, r := range map[string]*http.Request{
		"for another principal":            change("/apis", func(h http.Header) { h.Set("Authorization", "Bearer "+token("other")) }),
		"in another form":                  change("/apis", func(h http.Header) { h.Set("Accept", "application/yaml") }),
		"at another path":                  change("/api", func(http.Header) {}),
		"with another query":               change("/apis?x=1", func(http.Header) {}),
		"a list":                           change(path, func(http.Header) {}),
		"with a condition of the client's": change("/apis", func(h http.Header) { h.Set("If-Modified-Since", "yesterday") }),
		"in part":                          change("/apis", func(h http.Header) { h.Set("Range", "bytes=1-") }),
		"as somebody else":                 change("/apis", func(h http.Header) { h.Set("Impersonate-User", "root") }),
	} {
		if code, body := g.do(r); code != 200 || body != "one" || g.condition() != "" {
			t.Errorf("%s: %d %s, asked with %q", name, code, body, g.condition())
		}
	}
}

func TestADocumentThatTheCacheHasLostIsFetchedAgain(t *testing.T) {
	for name, lose := range map[string]func(*store.Tx) error{
		"evicted": func(tx *store.Tx) error { return tx.RemoveResponse("web", "/apis") },
		"replaced": func(tx *store.Tx) error {
			return tx.PutResponse(store.Response{Principal: "web", Path: "/apis", Status: 200, ETag: `"other"`, Body: []byte("other")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			g.document("one")
			g.do(g.request("GET", "/apis"))
			g.flush()
			serve := g.link.Answer()
			g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
				if r.Header.Get("If-None-Match") != "" {
					if err := g.db.Update(r.Context(), lose); err != nil {
						return nil, err
					}
				}
				return serve(r)
			})
			before := revalidated("lost")
			if code, body := g.do(g.request("GET", "/apis")); code != 200 || body != "one" || revalidated("lost") != before+1 || g.condition() != "" {
				t.Errorf("%d %s", code, body)
			}
		})
	}
}

func TestACacheThatHangsHoldsNoRequestUp(t *testing.T) {
	g := newHarness(t)
	now := testclock.NewFakeClock(time.Now())
	g.Clock = now
	g.document("one")
	g.do(g.request("GET", "/apis"))
	g.flush()
	want := func(when, condition string, requests int) {
		t.Helper()
		before := len(g.link.Requests())
		code, body := g.do(g.request("GET", "/apis"))
		sent := g.link.Requests()[before:]
		if first := sent[0].Header.Get("If-None-Match"); code != 200 || body != "one" || first != condition || len(sent) != requests {
			t.Errorf("%s: %d %s after %d requests, the first with ETag %q", when, code, body, len(sent), first)
		}
	}
	all := g.lookup
	g.lookup.etag = 0
	want("it hangs before the request", "", 1)
	g.lookup = all
	want("soon after that", "", 1)
	now.Step(skipCacheFor)
	want("later", `"one"`, 1)
	g.lookup.body = 0
	want("it hangs behind a 304", `"one"`, 2)
	g.lookup = all
	want("soon after that one", "", 1)
	now.Step(skipCacheFor)
	want("in the end", `"one"`, 1)
	let := make(chan struct{})
	if _, err := within(t.Context(), time.Millisecond, func(context.Context) (int, error) { <-let; return 1, nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	close(let)
}

func TestWhatTheCacheHasGivenIsNotLostToTheEndOfItsContext(t *testing.T) {
	for range 2000 {
		if n, err := within(t.Context(), time.Minute, func(context.Context) (int, error) { return 1, nil }); n != 1 || err != nil {
			t.Fatalf("%d %v", n, err)
		}
	}
}

func TestAClientThatGoesAwayLosesNothing(t *testing.T) {
	g := newHarness(t)
	g.document("one")
	g.do(g.request("GET", "/apis"))
	g.flush()
	ctx, leave := context.WithCancel(t.Context())
	serve := g.link.Answer()
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		leave()
		return serve(r)
	})
	before, asked := revalidated("lost"), len(g.link.Requests())
	_, err := g.RoundTrip(g.request("GET", "/apis").WithContext(ctx))
	if n := len(g.link.Requests()) - asked; revalidated("lost") != before || n != 1 {
		t.Errorf("asked %d times, lost %v: %v", n, revalidated("lost")-before, err)
	}
	if !errors.Is(err, context.Canceled) && err != nil {
		t.Error(err)
	}
}

func TestTheClientsOwnConditionIsItsOwn(t *testing.T) {
	g := newHarness(t)
	g.document("one")
	g.do(g.request("GET", "/apis"))
	g.flush()
	first, err := g.db.Response(t.Context(), "web", "/apis", "")
	if err != nil {
		t.Fatal(err)
	}
	r := g.request("GET", "/apis")
	r.Header.Set("If-None-Match", `"one"`)
	if code, body := g.do(r); code != 304 || body != "" {
		t.Fatalf("online: %d %s", code, body)
	}
	g.flush()
	if again, err := g.db.Response(t.Context(), "web", "/apis", ""); err != nil || !again.StoredAt.After(first.StoredAt) {
		t.Errorf("what the server has confirmed is not younger: %v", err)
	}
	g.link.Cut()
	if code, body := g.do(r); code != 304 || body != "" {
		t.Errorf("offline: %d %s", code, body)
	}
	r.Header.Set("If-None-Match", `"another"`)
	if code, body := g.do(r); code != 200 || body != "one" {
		t.Errorf("offline, with another version: %d %s", code, body)
	}
}

func TestWhatCannotBeCutIsAnsweredOfflineForTheIdenticalRequest(t *testing.T) {
	const table = `{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"10"},"rows":[]}`
	inCBOR, err := direct.Marshal(map[string]any{"kind": "ConfigMapList", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": "10"}, "items": []any{}})
	if err != nil {
		t.Fatal(err)
	}
	pageInCBOR, err := direct.Marshal(map[string]any{"kind": "ConfigMapList", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": "10", "continue": "x"}, "items": []any{}})
	if err != nil {
		t.Fatal(err)
	}
	const asTable = "application/json;as=Table;v=v1;g=meta.k8s.io"
	for name, tt := range map[string]struct {
		url, accept, contentType, body string
		offline                        int
	}{
		"a table that is asked for first": {path, asTable + ",application/json", "application/json", table, 200},
		"a table that is asked for last":  {path, "application/cbor;q=0.5," + asTable + ";q=0.1", "application/json", table, 200},
		"one object as a table":           {path + "/a", asTable, "application/json", table, 200},
		"CBOR":                            {path, "application/cbor", "application/cbor", string(inCBOR), 200},
		"one object in CBOR":              {path + "/a", "application/cbor", "application/cbor", string(inCBOR), 200},
		"all of it in CBOR in one page":   {path + "?limit=500", "application/cbor", "application/cbor", string(inCBOR), 200},
		"a page in CBOR":                  {path + "?limit=1", "application/cbor", "application/cbor", string(pageInCBOR), 503},
		"YAML":                            {path, "application/yaml", "application/yaml", "kind: ConfigMapList\n", 200},
		"a watch in CBOR":                 {path + "?watch=1", "application/cbor-seq", "application/cbor-seq", string(inCBOR), 503},
		"a log":                           {path + "/a/log", "*/*", "text/plain", "hello", 503},
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
				resp := response(200, io.NopCloser(strings.NewReader(tt.body)))
				resp.Header.Set("Content-Type", tt.contentType)
				return resp, nil
			})
			r := g.request("GET", tt.url)
			r.Header.Set("Accept", tt.accept)
			if code, body := g.do(r); code != 200 || body != tt.body {
				t.Fatalf("online: %d %q", code, body)
			}
			g.link.Cut()
			if code, body := g.do(r); code != tt.offline || (code == 200 && body != tt.body) {
				t.Errorf("offline: %d %q", code, body)
			}
			r.Header.Set("Accept", "application/x-other")
			if code, _ := g.do(r); code == 200 {
				t.Error("offline in another form")
			}
		})
	}
}

func TestATableWatchPassesUnrecorded(t *testing.T) {
	const frame = `{"type":"ADDED","object":{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"11"},"rows":[]}}` + "\n"
	g := newHarness(t)
	g.says(200, list)
	g.do(g.request("GET", path))
	up := newStream()
	g.streams(up)
	r := g.request("GET", quiet)
	r.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
	c := g.open(r)
	go up.send(t, frame)
	c.want(frame)
	g.link.Cut()
	if code, body := g.do(g.request("GET", path)); code != 200 || !strings.Contains(body, `"resourceVersion":"10"`) {
		t.Errorf("%d %s", code, body)
	}
}

func TestAnObjectThatIsGoneIsNotFoundOffline(t *testing.T) {
	const object = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"12"}}`
	const success = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"a","kind":"configmaps","uid":"u"}}`
	const missing = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"NotFound","details":{"name":"a","kind":"configmaps"},"code":404}`
	held := strings.Replace(object, `"uid"`, `"deletionTimestamp":"2026-01-01T00:00:00Z","finalizers":["x"],"uid"`, 1)
	for _, tt := range []struct {
		name, method, query, sent string
		code                      int
		answer                    string
		offline                   int
	}{
		{"a delete", "DELETE", "", "", 200, success, 404},
		{"a delete with options", "DELETE", "", `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background"}`, 200, success, 404},
		{"a delete that gives the object back", "DELETE", "", "", 200, object, 404},
		{"a delete that was accepted and is held", "DELETE", "", "", 202, held, 200},
		{"a delete that is held", "DELETE", "", "", 200, held, 200},
		{"a delete that was only tried", "DELETE", "?dryRun=All", "", 200, success, 200},
		{"a delete that was only tried, as the body says", "DELETE", "", `{"kind":"DeleteOptions","apiVersion":"v1","dryRun":["All"]}`, 200, success, 200},
		{"a delete that was only tried, as protobuf says", "DELETE", "", "k8s\x00\x2a\x03All", 200, success, 200},
		{"a delete with more to say than is looked at", "DELETE", "", strings.Repeat(" ", maxBody+1), 200, success, 200},
		{"a delete of what is gone already", "DELETE", "", "", 404, missing, 404},
		{"a patch of what is gone", "PATCH", "", "{}", 404, missing, 404},
		{"a patch that takes the last finalizer", "PATCH", "", "{}", 200, strings.Replace(held, `,"finalizers":["x"]`, "", 1), 404},
		{"a patch that takes another finalizer", "PATCH", "", "{}", 200, held, 200},
		{"a delete that is forbidden", "DELETE", "", "", 403, `{"kind":"Status"}`, 200},
		{"a delete that conflicts", "DELETE", "", "", 409, `{"kind":"Status"}`, 200},
		{"a read of what is gone", "GET", "", "", 404, missing, 404},
		{"a read of what the server does not serve", "GET", "", "", 404, "404 page not found", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newHarness(t)
			g.says(200, list)
			g.do(g.request("GET", path))
			g.flush()
			var got string
			g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
				raw, err := io.ReadAll(r.Body)
				got = string(raw)
				return response(tt.code, io.NopCloser(strings.NewReader(tt.answer))), errors.Join(err, r.Body.Close())
			})
			r := g.request(tt.method, path+"/a"+tt.query)
			r.Body = io.NopCloser(strings.NewReader(tt.sent))
			if code, body := g.do(r); code != tt.code || body != tt.answer || got != tt.sent {
				t.Fatalf("online: %d %s, upstream got %.100q", code, body, got)
			}
			g.link.Cut()
			if code, body := g.do(g.request("GET", path+"/a")); code != tt.offline || (tt.answer == held && body != held) {
				t.Errorf("offline: %d %s", code, body)
			}
			if code, body := g.do(g.request("GET", path)); code != 200 || !strings.Contains(body, `"a"`) {
				t.Errorf("the list is not what it was: %d %s", code, body)
			}
			if tt.offline != 404 {
				return
			}
			g.link.Restore()
			g.says(201, strings.Replace(object, `"u"`, `"u2"`, 1))
			g.do(g.request("POST", path))
			g.link.Cut()
			if code, body := g.do(g.request("GET", path+"/a")); code != 200 || !strings.Contains(body, "u2") {
				t.Errorf("made anew: %d %s", code, body)
			}
		})
	}
}

func TestAfterAWriteWhoseAnswerCannotBeReadTheObjectIsNotKnown(t *testing.T) {
	const object = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"12"}}`
	g := newHarness(t)
	g.says(200, object)
	g.do(g.request("GET", path+"/a"))
	g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
		resp := response(200, io.NopCloser(strings.NewReader("...")))
		resp.Header.Set("Content-Type", "application/cbor")
		return resp, nil
	})
	g.do(g.request("PATCH", path+"/a"))
	g.link.Cut()
	if code, body := g.do(g.request("GET", path+"/a")); code != 503 {
		t.Errorf("%d %s", code, body)
	}
}
