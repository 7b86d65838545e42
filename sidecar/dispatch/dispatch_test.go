package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/upstream"
	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/store"
)

func TestWhatWasReadOnlineIsAnsweredOffline(t *testing.T) {
	for name, cut := range map[string]func(*harness){
		"once the link is known to be down": func(g *harness) { g.link.Cut() },
		"at the first request that fails":   func(g *harness) { g.fails(upstreamtest.ErrDown) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			g.says(200, list)
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
				t.Fatalf("an object that is not in the list: %d", code)
			}
			if code, message := g.do(g.request("GET", "/api/v1/namespaces/shop/services/b")); code != 503 || !strings.Contains(message, "not recorded") {
				t.Fatalf("an object of a resource that was never listed: %d %s", code, message)
			}
		})
	}
}

func TestThePodsOwnLastWriteIsReadOffline(t *testing.T) {
	const object = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"12"},"data":{"by":"me"}}`
	g := newHarness(t)
	g.says(200, list)
	g.do(g.request("GET", path))
	write := func(method, url string, code int, body string) {
		t.Helper()
		g.link.Restore()
		g.says(code, body)
		if got, answer := g.do(g.request(method, url)); got != code || answer != body {
			t.Fatalf("%s: %d %s", method, got, answer)
		}
		g.link.Cut()
	}
	write("PATCH", path+"/a", 200, object)
	if code, body := g.do(g.request("GET", path+"/a")); code != 200 || body != object {
		t.Errorf("after a patch: %d %s", code, body)
	}
	write("PATCH", path+"/a?dryRun=All", 200, strings.Replace(object, "12", "13", 1))
	if code, body := g.do(g.request("GET", path+"/a")); code != 200 || body != object {
		t.Errorf("after a patch that was only tried: %d %s", code, body)
	}
	write("POST", path, 201, strings.Replace(object, `"a"`, `"new"`, 1))
	if code, _ := g.do(g.request("GET", path+"/new")); code != 200 {
		t.Errorf("after a create: %d", code)
	}
	write("DELETE", path+"/new", 200, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"new","kind":"configmaps","uid":"u"}}`)
	if code, _ := g.do(g.request("GET", path+"/new")); code != 404 {
		t.Errorf("after a delete: %d", code)
	}
	write("PATCH", path+"/a", 409, `{"kind":"Status","apiVersion":"v1","code":409}`)
	if code, body := g.do(g.request("GET", path+"/a")); code != 200 || body != object {
		t.Errorf("after a conflict: %d %s", code, body)
	}
}

func TestTheServersRefusalsArePassedOn(t *testing.T) {
	g := newHarness(t)
	g.says(200, list)
	g.do(g.request("GET", path))
	for _, code := range []int{401, 403, 404, 409, 410, 422, 429, 500, 503} {
		g.says(code, `{"kind":"Status"}`)
		if got, body := g.do(g.request("GET", path)); got != code || body != `{"kind":"Status"}` {
			t.Errorf("%d became %d %s", code, got, body)
		}
	}
	g.fails(context.Canceled)
	if _, err := g.RoundTrip(g.request("GET", path)); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that left got %v", err)
	}
}

func TestOfflineNothingIsFakedAndNobodyIsBelieved(t *testing.T) {
	g := newHarness(t)
	g.says(200, list)
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
		{"a watch without a token", with("GET", quiet, func(h http.Header) { h.Del("Authorization") }), 401, "no bearer token"},
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

func TestACollectionThatLostAnEventIsListedAgain(t *testing.T) {
	g := newHarness(t)
	page := func(token, name string) string {
		return strings.NewReplacer(`"resourceVersion":"10"`, `"resourceVersion":"20","continue":"`+token+`"`, `"a"`, `"`+name+`"`).Replace(list)
	}
	up := newStream()
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		body := list
		switch q := r.URL.Query(); {
		case q.Has("watch"):
			return response(200, up), nil
		case q.Get("limit") == "500" && q.Get("continue") == "":
			body = page("more", "b")
		case q.Get("limit") == "500":
			body = page("", "c")
		}
		return response(200, io.NopCloser(strings.NewReader(body))), nil
	})
	g.heals()
	g.do(g.request("GET", path))
	c := g.open(g.request("GET", path+"?watch=true&resourceVersion=15")) // and what was between 10 and 15?
	go up.send(t, event("ADDED", "z", 16))
	c.want(event("ADDED", "z", 16))

	healed := func() bool {
		g.link.Cut()
		defer g.link.Restore()
		_, body := g.do(g.request("GET", path))
		return strings.Contains(body, `"resourceVersion":"20"`) && strings.Contains(body, `"b"`) && strings.Contains(body, `"c"`) && !strings.Contains(body, `"z"`)
	}
	if err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) { return healed(), nil }); err != nil {
		t.Fatal(err)
	}
	for _, r := range g.link.Requests() {
		if r.Header.Get("Authorization") != "Bearer "+g.own {
			t.Errorf("%s was asked with another token", r.URL)
		}
	}
}

func TestWhatIsWatchedIsListedAgainWhenTheCachesFileIsLost(t *testing.T) {
	g := newHarness(t)
	up := newStream()
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		if r.URL.Query().Has("watch") {
			return response(200, up), nil
		}
		return response(200, io.NopCloser(strings.NewReader(list))), nil
	})
	g.heals()
	g.do(g.request("GET", path))
	c := g.open(g.request("GET", path+"?watch=true&resourceVersion=10"))
	if err := g.Caches.Disk.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(g.db.Path()); err != nil {
		t.Fatal(err)
	}
	go up.send(t, event("ADDED", "z", 16)) // is in the lost file, and the client has it
	c.want(event("ADDED", "z", 16))
	again := func() bool {
		g.link.Cut()
		defer g.link.Restore()
		code, body := g.do(g.request("GET", path))
		return code == 200 && strings.Contains(body, `"resourceVersion":"10"`)
	}
	if err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) { return again(), nil }); err != nil {
		t.Fatal(err)
	}
}

func TestAWriteDuringWhichTheLinkBreaksMayHaveBeenDone(t *testing.T) {
	g := newHarness(t)
	g.fails(&upstream.LinkError{Sent: true})
	if code, message := g.do(g.request("POST", path)); code != 504 || !strings.Contains(message, "may have been carried out") {
		t.Errorf("%d %s", code, message)
	}
	g.fails(&upstream.LinkError{})
	if code, message := g.do(g.request("POST", path)); code != 503 || !strings.Contains(message, "nothing is written") {
		t.Errorf("%d %s", code, message)
	}
}

func TestWhatTheServerForbidsIsNotAnsweredOffline(t *testing.T) {
	g := newHarness(t)
	g.says(200, list)
	g.do(g.request("GET", path))
	g.says(403, `{"kind":"Status","code":403}`)
	g.do(g.request("GET", path+"?limit=500"))
	g.link.Cut()
	if code, _ := g.do(g.request("GET", path)); code != 503 {
		t.Fatalf("%d", code)
	}
}

func TestWithoutKeysTheCallerIsNotToBlame(t *testing.T) {
	g := newHarness(t)
	g.Verifier = keyless{}
	g.link.Cut()
	if code, message := g.do(g.request("GET", path)); code != 503 || !strings.Contains(message, principal.ErrNoKeys.Error()) {
		t.Fatalf("%d %s", code, message)
	}
}

type keyless struct{}

func (keyless) Verify(http.Header) (string, error) { return "", principal.ErrNoKeys }

func TestWithoutACacheRequestsPassThrough(t *testing.T) {
	g := newHarness(t)
	g.Caches.Disk = &cache.Cache{}
	g.says(200, list)
	if code, body := g.do(g.request("GET", path)); code != 200 || body != list {
		t.Fatalf("online: %d %s", code, body)
	}
	g.link.Cut()
	if code, message := g.do(g.request("GET", path)); code != 503 || !strings.Contains(message, "cache could not be opened") {
		t.Fatalf("offline: %d %s", code, message)
	}
	resp, err := g.RoundTrip(g.request("GET", quiet))
	if err != nil {
		t.Fatalf("a watch for what comes next needs no cache: %v", err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestACacheThatWasLostIsNobodysErrorButSaysSo(t *testing.T) {
	core, log := observer.New(zap.WarnLevel)
	f := New(Options{Logger: zap.New(core)})
	err := f.refusal(request.Info{Path: "/api/v1/pods"}, fmt.Errorf("list collections: %w", store.ErrGone))
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Code != http.StatusServiceUnavailable || !strings.Contains(status.Status().Message, "lost") {
		t.Errorf("the client hears %v", err)
	}
	if n := log.Len(); n != 0 { // the recorder has said it, once
		t.Errorf("%d log lines for a request", n)
	}
}

func TestOnlyChosenClientsAreRecorded(t *testing.T) {
	g := newHarness(t)
	app, err := agent.Parse("app")
	if err != nil {
		t.Fatal(err)
	}
	g.Agents.Set(app)
	g.says(200, list)
	for _, client := range []string{"kubectl/v1.36", "app/v2"} {
		g.link.Restore()
		r := g.request("GET", path)
		r.Header.Set("User-Agent", client)
		g.do(r)
		g.link.Cut()
		want := 503
		if client == "app/v2" {
			want = 200
		}
		if code, _ := g.do(g.request("GET", path)); code != want {
			t.Errorf("after %s has read: %d, want %d", client, code, want)
		}
	}
}

func TestWhatIsForMemoryOnlyNeverGoesToTheDisk(t *testing.T) {
	const secrets = "/api/v1/namespaces/shop/secrets"
	const accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	body := strings.ReplaceAll(list, "ConfigMap", "Secret")
	g := newHarness(t)
	disk := g.Caches.Disk
	g.Caches.Memory = newHarness(t).Caches.Disk
	g.says(200, body)
	g.do(g.request("GET", secrets))
	g.do(g.request("GET", secrets+"/a"))
	asTable := g.request("GET", secrets)
	asTable.Header.Set("Accept", accept)
	g.do(asTable)
	g.link.Cut()
	if code, _ := g.do(g.request("GET", secrets)); code != 200 {
		t.Fatalf("from memory: %d", code)
	}
	g.Caches.Memory = disk // what would the disk have said?
	for _, url := range []string{secrets, secrets + "/a"} {
		if code, _ := g.do(g.request("GET", url)); code != 503 {
			t.Errorf("%s from the disk: %d", url, code)
		}
	}
	asTable = g.request("GET", secrets)
	asTable.Header.Set("Accept", accept)
	if code, _ := g.do(asTable); code != 503 {
		t.Errorf("a table from the disk: %d", code)
	}
}

func TestAnAnswerThatIsCompressedOrNotJSONIsNotRecorded(t *testing.T) {
	g := newHarness(t)
	for name, header := range map[string]http.Header{
		"protobuf": {"Content-Type": {"application/vnd.kubernetes.protobuf"}},
		"gzip":     {"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}},
	} {
		g.link.Restore()
		g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
			resp := response(200, io.NopCloser(strings.NewReader(list)))
			resp.Header = header
			return resp, nil
		})
		g.do(g.request("GET", path))
		g.link.Cut()
		if code, _ := g.do(g.request("GET", path)); code != 503 {
			t.Errorf("%s: %d", name, code)
		}
	}
}
