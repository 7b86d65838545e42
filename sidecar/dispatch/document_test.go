package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	testclock "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/store"
	"rockpool.dev/tests/eventually"
)

// serveDocument makes the API server serve one text, with an ETag.
func (g *harness) serveDocument(text string) {
	etag := fmt.Sprintf("%q", text)
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		resp := textResponse(200, text)
		resp.Header.Set("ETag", etag)
		resp.Header.Set("Vary", "Accept")
		if r.Header.Get("If-None-Match") == etag {
			resp.StatusCode, resp.Body = http.StatusNotModified, http.NoBody
			resp.Header.Del("Content-Type")
		}
		return resp, nil
	})
}

// lastCondition returns the If-None-Match of the latest request over the link.
func (g *harness) lastCondition() string {
	return g.lastRequest().Header.Get("If-None-Match")
}

func revalidations(result string) float64 {
	return testutil.ToFloat64(revalidationsTotal.WithLabelValues(result))
}

func TestAnUnchangedDocumentIsNotDownloadedAgain(t *testing.T) {
	g := newHarness(t)
	g.serveDocument("one")
	g.do(g.request("GET", "/apis"))
	g.flush()
	recorded, err := g.db.Response(t.Context(), "web", "/apis", "")
	if err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the clock has moved on by what the cache tells apart", func() bool {
		return time.Since(recorded.StoredAt) >= time.Millisecond
	})
	before := revalidations("unchanged")
	resp, err := g.RoundTrip(g.request("GET", "/apis"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(raw) != "one" || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Vary") != "Accept" || resp.Header.Get("Cache-Status") != "" {
		t.Fatalf("%d %s %v %v", resp.StatusCode, raw, resp.Header, err)
	}
	if g.lastCondition() != `"one"` || revalidations("unchanged") != before+1 {
		t.Errorf("the request over the link had the ETag %q", g.lastCondition())
	}
	g.flush()
	if again, err := g.db.Response(t.Context(), "web", "/apis", ""); err != nil || again.Told <= recorded.Told {
		t.Errorf("told at %d, which is not after %d: %v", again.Told, recorded.Told, err)
	}

	g.serveDocument("two")
	if code, body := g.do(g.request("GET", "/apis")); code != 200 || body != "two" || g.lastCondition() != `"one"` {
		t.Errorf("a new version: %d %s", code, body)
	}
	g.flush()
	g.answerAll(401, "no")
	if code, body := g.do(g.request("GET", "/apis")); code != 401 || body != "no" || g.lastCondition() != `"two"` {
		t.Errorf("a refusal: %d %s", code, body)
	}
	g.failAll(upstreamtest.ErrDown)
	if code, body := g.do(g.request("GET", "/apis")); code != 200 || body != "two" {
		t.Errorf("when the link breaks: %d %s", code, body)
	}
}

func TestARequestForAnotherDocumentIsNotConditional(t *testing.T) {
	g := newHarness(t)
	g.serveDocument("one")
	g.do(g.request("GET", "/apis"))
	g.do(g.request("GET", path)) // has an ETag, but is no document
	g.flush()
	change := func(url string, f func(http.Header)) *http.Request {
		r := g.request("GET", url)
		f(r.Header)
		return r
	}
	for name, r := range map[string]*http.Request{
		"for another principal":       change("/apis", func(h http.Header) { h.Set("Authorization", "Bearer "+token("other")) }),
		"in another form":             change("/apis", func(h http.Header) { h.Set("Accept", "application/yaml") }),
		"at another path":             change("/api", func(http.Header) {}),
		"with another query":          change("/apis?x=1", func(http.Header) {}),
		"a list":                      change(path, func(http.Header) {}),
		"with the client's condition": change("/apis", func(h http.Header) { h.Set("If-Modified-Since", "yesterday") }),
		"of a range":                  change("/apis", func(h http.Header) { h.Set("Range", "bytes=1-") }),
		"with impersonation":          change("/apis", func(h http.Header) { h.Set("Impersonate-User", "root") }),
	} {
		if code, body := g.do(r); code != 200 || body != "one" || g.lastCondition() != "" {
			t.Errorf("%s: %d %s, with the ETag %q", name, code, body, g.lastCondition())
		}
	}
}

func TestADocumentThatTheCacheLosesDuringTheRequestIsFetchedAgain(t *testing.T) {
	for name, lose := range map[string]func(*store.Tx) error{
		"evicted": func(tx *store.Tx) error { return tx.RemoveResponse("web", "/apis") },
		"replaced": func(tx *store.Tx) error {
			return tx.PutResponse(store.Response{Principal: "web", Path: "/apis", Status: 200, ETag: `"other"`, Body: []byte("other")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			g.serveDocument("one")
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
			before := revalidations("lost")
			if code, body := g.do(g.request("GET", "/apis")); code != 200 || body != "one" || revalidations("lost") != before+1 || g.lastCondition() != "" {
				t.Errorf("%d %s", code, body)
			}
		})
	}
}

func TestACacheThatHangsDoesNotDelayRequests(t *testing.T) {
	g := newHarness(t)
	now := testclock.NewFakeClock(time.Now())
	g.Clock = now
	g.serveDocument("one")
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
	patient := g.lookup
	g.lookup.etag = 0
	want("the ETag lookup hangs", "", 1)
	g.lookup = patient
	want("while the cache is skipped", "", 1)
	now.Step(skipCacheFor)
	want("after the pause", `"one"`, 1)
	g.lookup.body = 0
	want("the body lookup hangs after a 304", `"one"`, 2)
	g.lookup = patient
	want("while the cache is skipped again", "", 1)
	now.Step(skipCacheFor)
	want("after the second pause", `"one"`, 1)
}

func TestACanceledRequestIsNotCountedAsALostDocument(t *testing.T) {
	g := newHarness(t)
	g.serveDocument("one")
	g.do(g.request("GET", "/apis"))
	g.flush()
	ctx, cancel := context.WithCancel(t.Context())
	serve := g.link.Answer()
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		cancel()
		return serve(r)
	})
	before, sent := revalidations("lost"), len(g.link.Requests())
	_, err := g.RoundTrip(g.request("GET", "/apis").WithContext(ctx))
	if n := len(g.link.Requests()) - sent; revalidations("lost") != before || n != 1 {
		t.Errorf("%d requests, %v lost documents: %v", n, revalidations("lost")-before, err)
	}
	if !errors.Is(err, context.Canceled) && err != nil {
		t.Error(err)
	}
}

func TestTheClientsOwnConditionIsAnsweredWith304(t *testing.T) {
	g := newHarness(t)
	g.serveDocument("one")
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
	if again, err := g.db.Response(t.Context(), "web", "/apis", ""); err != nil || again.Told <= first.Told {
		t.Errorf("the confirmed document keeps its old place in the sequence: %v", err)
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
