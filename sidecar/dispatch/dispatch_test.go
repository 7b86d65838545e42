package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/store"
)

func TestRecordedListsAndObjectsAreAnsweredOffline(t *testing.T) {
	for name, cut := range map[string]func(*harness){
		"once the link is known to be down": func(g *harness) { g.link.Cut() },
		"at the first request that fails":   func(g *harness) { g.failAll(upstreamtest.ErrDown) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			g.answerAll(200, list)
			if code, body := g.do(g.request("GET", path)); code != 200 || body != list {
				t.Fatalf("online: %d %s", code, body)
			}
			cut(g)
			r := g.request("GET", path)
			r = r.WithContext(WithTrace(r.Context()))
			code, body := g.do(r)
			if code != 200 || !json.Valid([]byte(body)) || !strings.Contains(body, `"name":"a"`) || !TraceOf(r.Context()).Offline {
				t.Fatalf("offline: %d %s", code, body)
			}
			if code, _ := g.do(g.request("GET", path+"/a")); code != 200 {
				t.Fatalf("an object of the list: %d", code)
			}
			if code, _ := g.do(g.request("GET", path+"/b")); code != 404 {
				t.Fatalf("an object that the list lacks: %d", code)
			}
			if code, message := g.do(g.request("GET", "/api/v1/namespaces/shop/services/b")); code != 503 || !strings.Contains(message, "not recorded") {
				t.Fatalf("an object of a resource that was never listed: %d %s", code, message)
			}
		})
	}
}

func TestErrorsOfTheAPIServerArePassedOn(t *testing.T) {
	g := newHarness(t)
	g.answerAll(200, list)
	g.do(g.request("GET", path))
	for _, code := range []int{401, 403, 404, 409, 410, 422, 429, 500, 503} {
		g.answerAll(code, `{"kind":"Status"}`)
		if got, body := g.do(g.request("GET", path)); got != code || body != `{"kind":"Status"}` {
			t.Errorf("%d became %d %s", code, got, body)
		}
	}
	g.failAll(context.Canceled)
	if _, err := g.RoundTrip(g.request("GET", path)); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled request returned %v", err)
	}
}

func TestOfflineWritesAndUnprovenCallersAreRefused(t *testing.T) {
	g := newHarness(t)
	g.answerAll(200, list)
	g.do(g.request("GET", path))
	g.link.Cut()
	with := func(method, url string, change func(http.Header)) *http.Request {
		r := g.request(method, url)
		change(r.Header)
		return r
	}
	none := func(http.Header) {}
	tests := []struct {
		name    string
		r       *http.Request
		code    int
		message string
	}{
		{"a create", with("POST", path, none), 503, "nothing is written"},
		{"a patch", with("PATCH", path+"/a", none), 503, "nothing is written"},
		{"a delete", with("DELETE", path+"/a", none), 503, "nothing is written"},
		{"no token", with("GET", path, func(h http.Header) { h.Del("Authorization") }), 401, "no bearer token"},
		{"a forged token", with("GET", path, func(h http.Header) { h.Set("Authorization", "Bearer "+token("forged")) }), 401, "signature"},
		{"a write without a token", with("POST", path, func(h http.Header) { h.Del("Authorization") }), 401, "no bearer token"},
		{"a watch without a token", with("GET", watchFrom10, func(h http.Header) { h.Del("Authorization") }), 401, "no bearer token"},
		{"another principal", with("GET", path, func(h http.Header) { h.Set("Authorization", "Bearer "+token("other")) }), 503, "not recorded"},
		{"impersonation", with("GET", path, func(h http.Header) { h.Set("Impersonate-User", "root") }), 503, "impersonation"},
		{"health", with("GET", "/healthz", none), 503, "not recorded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if code, message := g.do(tt.r); code != tt.code || !strings.Contains(message, tt.message) {
				t.Fatalf("%d %q, want %d %q", code, message, tt.code, tt.message)
			}
		})
	}
}

func TestAForbiddenListIsNotAnsweredOffline(t *testing.T) {
	g := newHarness(t)
	g.answerAll(200, list)
	g.do(g.request("GET", path))
	g.answerAll(403, `{"kind":"Status","code":403}`)
	g.do(g.request("GET", path+"?limit=500"))
	g.link.Cut()
	if code, _ := g.do(g.request("GET", path)); code != 503 {
		t.Fatalf("%d", code)
	}
}

func TestWithoutSigningKeysTheAnswerIs503AndNot401(t *testing.T) {
	g := newHarness(t)
	g.Verifier = noKeys{}
	g.link.Cut()
	if code, message := g.do(g.request("GET", path)); code != 503 || !strings.Contains(message, principal.ErrNoKeys.Error()) {
		t.Fatalf("%d %s", code, message)
	}
}

type noKeys struct{}

func (noKeys) Verify(http.Header) (string, error) { return "", principal.ErrNoKeys }

func TestWithoutACacheRequestsPassThrough(t *testing.T) {
	g := newHarness(t)
	g.Caches.Disk = &cache.Cache{}
	g.answerAll(200, list)
	if code, body := g.do(g.request("GET", path)); code != 200 || body != list {
		t.Fatalf("online: %d %s", code, body)
	}
	g.link.Cut()
	if code, message := g.do(g.request("GET", path)); code != 503 || !strings.Contains(message, "cache could not be opened") {
		t.Fatalf("offline: %d %s", code, message)
	}
	resp, err := g.RoundTrip(g.request("GET", watchFrom10))
	if err != nil {
		t.Fatalf("a watch for the coming changes needs no cache: %v", err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestALostCacheFileGives503WithoutALogLine(t *testing.T) {
	core, log := observer.New(zap.WarnLevel)
	d := New(Options{Logger: zap.New(core)})
	err := d.refusal(request.Info{Path: "/api/v1/pods"}, fmt.Errorf("list collections: %w", store.ErrGone))
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Code != http.StatusServiceUnavailable || !strings.Contains(status.Status().Message, "lost") {
		t.Errorf("the client gets %v", err)
	}
	if n := log.Len(); n != 0 { // the recorder logs it once
		t.Errorf("%d log lines for a request", n)
	}
}

func TestOpaqueFormsAreAnsweredOfflineForTheIdenticalRequest(t *testing.T) {
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
		"a Table as the first choice":          {path, asTable + ",application/json", "application/json", table, 200},
		"a Table as the last choice":           {path, "application/cbor;q=0.5," + asTable + ";q=0.1", "application/json", table, 200},
		"one object as a Table":                {path + "/a", asTable, "application/json", table, 200},
		"CBOR":                                 {path, "application/cbor", "application/cbor", string(inCBOR), 200},
		"one object in CBOR":                   {path + "/a", "application/cbor", "application/cbor", string(inCBOR), 200},
		"a complete list in CBOR with a limit": {path + "?limit=500", "application/cbor", "application/cbor", string(inCBOR), 200},
		"a page in CBOR":                       {path + "?limit=1", "application/cbor", "application/cbor", string(pageInCBOR), 503},
		"YAML":                                 {path, "application/yaml", "application/yaml", "kind: ConfigMapList\n", 200},
		"a watch in CBOR":                      {path + "?watch=1", "application/cbor-seq", "application/cbor-seq", string(inCBOR), 503},
		"a log":                                {path + "/a/log", "*/*", "text/plain", "hello", 503},
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
				resp := textResponse(200, tt.body)
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
				t.Error("a request for another form is answered offline")
			}
		})
	}
}
