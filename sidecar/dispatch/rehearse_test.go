package dispatch

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"rockpool.dev/sidecar/api/agent"
)

// apiServer answers as an API server with one ConfigMap.
func apiServer(r *http.Request) (*http.Response, error) {
	switch {
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "reviews"):
		return textResponse(201, `{"allowed":true}`), nil
	case r.Method != http.MethodGet:
		return textResponse(200, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"5"}}`), nil
	case r.URL.Query().Get("watch") == "true":
		return textResponse(200, ""), nil
	case strings.HasSuffix(r.URL.Path, "/a"):
		return textResponse(200, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"5"}}`), nil
	case strings.HasSuffix(r.URL.Path, "/missing"):
		return textResponse(404, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","message":"configmaps \"missing\" not found","details":{"name":"missing","kind":"configmaps"},"code":404}`), nil
	case strings.HasSuffix(r.URL.Path, "/log"):
		return textResponse(200, "a line"), nil
	case r.URL.Path == "/apis":
		return textResponse(200, `{"kind":"APIGroupList","groups":[]}`), nil
	}
	kind := "PodList"
	if strings.HasSuffix(r.URL.Path, "/configmaps") {
		return textResponse(200, list), nil
	}
	return textResponse(200, fmt.Sprintf(`{"kind":%q,"apiVersion":"v1","metadata":{"resourceVersion":"10"},"items":[]}`, kind)), nil
}

// The rehearsal says of each request what it then gets in a cut: none is missed, and none is wrong.
func TestARehearsalSaysExactlyWhatFailsInACut(t *testing.T) {
	g := newHarness(t)
	g.ReviewLifetime = time.Minute
	recorded, err := agent.Parse("*,!kubectl")
	if err != nil {
		t.Fatal(err)
	}
	g.SetAgents(recorded)
	g.link.SetAnswer(apiServer)
	as := func(r *http.Request, change func(*http.Request)) *http.Request {
		change(r)
		return r
	}
	requests := map[string]func() *http.Request{
		"a list that is recorded":         func() *http.Request { return g.request("GET", path) },
		"an object of it":                 func() *http.Request { return g.request("GET", path+"/a") },
		"a part of it":                    func() *http.Request { return g.request("GET", path+"?labelSelector=app%3Da") },
		"an object that is not there":     func() *http.Request { return g.request("GET", path+"/missing") },
		"a watch from a version":          func() *http.Request { return g.request("GET", watchFrom10) },
		"a watch from the present state":  func() *http.Request { return g.request("GET", path+"?watch=true") },
		"a watch of nothing that is read": func() *http.Request { return g.request("GET", "/api/v1/namespaces/shop/services?watch=true") },
		"Secrets, without a memory":       func() *http.Request { return g.request("GET", "/api/v1/namespaces/shop/secrets") },
		"groups of the API":               func() *http.Request { return g.request("GET", "/apis") },
		"the log of a pod":                func() *http.Request { return g.request("GET", "/api/v1/namespaces/shop/pods/web/log") },
		"the API server's health":         func() *http.Request { return g.request("GET", "/healthz") },
		"a write":                         func() *http.Request { return g.write("PUT", path+"/a", `{"metadata":{"name":"a"}}`) },
		"a review":                        func() *http.Request { return g.post(accessReviews, `{"resource":"pods"}`) },
		"a client that is not recorded": func() *http.Request {
			return as(g.request("GET", "/api/v1/namespaces/shop/pods"), func(r *http.Request) { r.Header.Set("User-Agent", "kubectl/v1.36") })
		},
		"a form that is not recorded": func() *http.Request {
			return as(g.request("GET", "/api/v1/namespaces/bar/pods"), func(r *http.Request) { r.Header.Set("Accept", "application/cbor") })
		},
		"somebody else": func() *http.Request {
			return as(g.request("GET", path), func(r *http.Request) { r.Header.Set("Impersonate-User", "admin") })
		},
	}
	for range 2 {
		for _, name := range slices.Sorted(maps.Keys(requests)) {
			request := requests[name]
			resp, err := g.RoundTrip(request())
			if err != nil {
				t.Fatal(err)
			}
			if request().URL.Query().Get("watch") == "" {
				_, err = io.Copy(io.Discard, resp.Body)
			}
			_ = resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	g.flush()
	rehearsed, err := g.Rehearse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byRequest := map[string]Rehearsal{}
	for _, r := range rehearsed {
		if strings.Contains(fmt.Sprint(r), token("web")) {
			t.Errorf("a token is in %+v", r)
		}
		byRequest[r.Method+" "+r.Path+" "+r.Agent] = r
	}
	if len(rehearsed) != len(requests) {
		t.Errorf("%d requests are rehearsed, %d were made: %+v", len(rehearsed), len(requests), rehearsed)
	}
	sent := len(g.link.Requests())

	g.link.Cut()
	answered := 0
	for name, request := range requests {
		r := request()
		want, ok := byRequest[r.Method+" "+r.URL.RequestURI()+" "+r.UserAgent()]
		if r.Header.Get("Impersonate-User") != "" || r.URL.RequestURI() == path { // the same path, twice
			for _, other := range rehearsed {
				if other.Path == path && (other.Reason != "") == (r.Header.Get("Impersonate-User") != "") {
					want, ok = other, true
				}
			}
		}
		if !ok {
			t.Errorf("%s: it was not rehearsed", name)
			continue
		}
		status := statusOf(g, r)
		if status != want.Status || (status == 401 || status >= 500) != (want.Reason != "") {
			t.Errorf("%s: it gets %d in the cut, and the rehearsal says %+v", name, status, want)
		}
		if want.Reason == "" {
			answered++
		}
	}
	if answered < 5 || answered > len(requests)-5 {
		t.Errorf("%d of %d requests are answered: the test says little: %+v", answered, len(requests), rehearsed)
	}
	if n := len(g.link.Requests()); n != sent {
		t.Errorf("the rehearsal has sent %d requests", n-sent)
	}
}

func TestKeptRequestsAreBoundedAndWithoutWhatDiffersEachTime(t *testing.T) {
	g := newHarness(t)
	g.link.SetAnswer(apiServer)
	do := func(url string) {
		t.Helper()
		resp, err := g.RoundTrip(g.request("GET", url))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	for i := range 5 {
		do(fmt.Sprintf("%s?watch=true&resourceVersion=%d&timeoutSeconds=%d", path, i+1, 300+i))
		do(fmt.Sprintf("%s?limit=500&continue=%d", path, i))
	}
	if n := len(g.kept.all); n != 1 {
		t.Errorf("%d requests are kept, want 1: %v", n, g.kept.all)
	}
	for i := range 2 * maxKept {
		do(fmt.Sprintf("%s/x%d", path, i))
	}
	all := g.kept.sorted()
	if len(all) != maxKept {
		t.Errorf("%d requests are kept", len(all))
	}
	for _, r := range all {
		if r.last <= int64(maxKept) {
			t.Errorf("%s is kept, and later ones are not", r.uri)
		}
	}
}

// statusOf returns the status of an answer. A watch is closed at once.
func statusOf(g *harness, r *http.Request) int {
	g.t.Helper()
	if r.URL.Query().Get("watch") == "" {
		code, _ := g.do(r)
		return code
	}
	resp, err := g.RoundTrip(r)
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return int(status.Status().Code)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		g.t.Error(err)
	}
	return resp.StatusCode
}

// What is behind the proxy of the API server may take passwords in its addresses.
func TestARehearsalDoesNotKeepWhatIsAskedOfOthers(t *testing.T) {
	for _, path := range []string{
		"/api/v1/namespaces/shop/services/web/proxy/login/hidden?access_token=hidden",
		"/api/v1/namespaces/shop/services/proxy/proxy?access_token=hidden",
		"/api/v1/namespaces/proxy/pods/https:web:8443/proxy/hidden/",
		"/api/v1/namespaces/shop/services/web/proxy//hidden?access_token=hidden",
		"/api/v1/proxy/namespaces/shop/services/web/hidden?access_token=hidden",
	} {
		var k kept
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
		x := newExchange(r)
		x.subject = "web"
		k.keep(x)
		if len(k.all) != 1 {
			t.Fatalf("%s: %d requests are kept", path, len(k.all))
		}
		for _, x := range k.all {
			if all := x.path + " " + x.uri; strings.Contains(all, "hidden") || !strings.Contains(all, "/proxy") {
				t.Errorf("%s: %s", path, all)
			}
		}
	}
}
