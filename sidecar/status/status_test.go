package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/net/html"

	"rockpool.dev/sidecar/inspect"
	"rockpool.dev/sidecar/watch"
)

var now = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

// some is a status with something of everything.
func some() *Status {
	return &Status{
		Now: now, Version: "v1", Started: now.Add(-3 * time.Hour), Node: "edge-1", Host: "web-0",
		Link: Link{State: "offline", LastOnline: now.Add(-time.Hour), Offline: 90 * time.Minute, Changes: []Change{
			{now.Add(-12 * time.Hour), "online", "an API server answers"}, {now.Add(-6 * time.Hour), "offline", "no route"},
			{now.Add(-5 * time.Hour), "online", "an API server answers"},
			{now.Add(-3 * time.Hour), "offline", "no route"}, {now.Add(-3*time.Hour + 2*time.Second), "online", "an API server answers"}, {now.Add(-time.Hour), "offline", "no <b>route</b>"},
		}},
		Addresses: []Address{
			{URL: "https://api.example.com:6443", State: "down", Ready: true, Heard: now.Add(-time.Hour), RoundTrip: 35 * time.Millisecond, Error: "connection refused"},
			{URL: "https://10.0.0.1:443", State: "unknown", LastResort: true},
		},
		Collections: []Collection{
			{Collection: inspect.Collection{Account: "web", Resource: "configmaps", Version: "v1", Namespace: strings.Repeat("longname", 7), Form: "json", State: "complete", Objects: 3, Bytes: 2048, At: "17", Age: "1h2m"}, Watched: true, AskedBy: []string{"web"}},
			{Collection: inspect.Collection{Account: "web", Resource: "secrets", Version: "v1", Form: "protobuf", State: "filling"}, InMemory: true},
		},
		Documents: Documents{4, 100}, Watches: []watch.Open{{Agent: "web/1", Path: "/api/v1/configmaps?" + strings.Repeat("resourceVersionMatch", 12), State: "waiting", Since: now.Add(-time.Minute)}},
		Failing: []Failing{{"web/1", "GET", "/api/v1/nodes", "not recorded"}}, Rehearsed: 9, Oldest: time.Minute,
		Errors: []Error{{now.Add(-time.Second), 3, "<script>alert(1)</script>"}}, Settings: []Setting{{"log.level", "info", "default", true}}, Problems: []string{"no history"},
	}
}

// served serves a status on the loopback.
func served(t *testing.T, s *Status) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	(&Handler{Status: func(context.Context) *Status { return s }}).Register(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func TestThePageShowsEverything(t *testing.T) {
	resp, page := get(t, served(t, some()).URL)
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s, %v", resp.Status, resp.Header)
	}
	for _, want := range []string{
		"The link to the API server is down. It was up 1h0m ago", "Down 3 times, 2h0m in all", "Since the start of the sidecar: 1h30m", "no &lt;b&gt;route&lt;/b&gt;",
		"https://api.example.com:6443", "35ms", "connection refused", "tried last", "configmaps", "2.0 KiB", "1h2m", "(in memory)", "filling", "Also 4 other answers",
		"waits for the link", "1 would fail", "GET /api/v1/nodes", "not recorded", "&lt;script&gt;alert(1)", "log.level", "after a restart", "no history", "web-0",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
}

func TestAnEmptyStatusIsAPageToo(t *testing.T) {
	_, page := get(t, served(t, &Status{Now: now, Started: now, Link: Link{State: "suspect"}}).URL)
	for _, want := range []string{"not known yet", "Nothing is recorded", "No watch is open", "No program has asked", "None since the start", "No change is recorded", "</html>"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in\n%s", want, page)
		}
	}
}

func TestTheJSONHasTheSame(t *testing.T) {
	resp, text := get(t, served(t, some()).URL+JSONPath)
	var got Status
	if err := json.Unmarshal([]byte(text), &got); err != nil || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%v, %v", err, resp.Header)
	}
	if diff := cmp.Diff(*some(), got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A screen reader needs names for tables and pictures; a page without access to other sites needs
// nothing from them.
func TestThePageIsAccessibleAndNeedsNothingElse(t *testing.T) {
	resp, page := get(t, served(t, some()).URL)
	if policy := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "script") {
		t.Errorf("policy %q", policy)
	}
	tree, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	ids, targets, headings := map[string]bool{}, []string{}, 0
	for n := range tree.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		attributes := map[string]string{}
		for _, a := range n.Attr {
			attributes[a.Key] = a.Val
			if strings.HasPrefix(a.Key, "on") || a.Key == "src" {
				t.Errorf("<%s %s=%q>", n.Data, a.Key, a.Val)
			}
		}
		if id := attributes["id"]; id != "" {
			if ids[id] {
				t.Errorf("two elements are %q", id)
			}
			ids[id] = true
		}
		switch n.Data {
		case "script", "link", "img", "iframe", "form":
			t.Errorf("<%s> is in the page", n.Data)
		case "html":
			if attributes["lang"] != "en" {
				t.Error("the page has no language")
			}
		case "h1":
			headings++
		case "a":
			if target, ok := strings.CutPrefix(attributes["href"], "#"); ok {
				targets = append(targets, target)
			} else if attributes["href"] != PagePath && attributes["href"] != JSONPath {
				t.Errorf("a link to %q", attributes["href"])
			}
		case "section":
			targets = append(targets, attributes["aria-labelledby"])
		case "th":
			if attributes["scope"] == "" {
				t.Error("a <th> without a scope")
			}
		case "svg":
			if attributes["role"] != "img" || attributes["aria-label"] == "" {
				t.Error("a picture without a name")
			}
		case "div":
			if attributes["class"] == "wide" && (attributes["aria-label"] == "" || attributes["tabindex"] != "0") {
				t.Error("a region that scrolls has no name, or cannot be reached by keyboard")
			}
		}
	}
	if headings != 1 {
		t.Errorf("%d <h1>", headings)
	}
	for _, target := range targets {
		if !ids[target] {
			t.Errorf("nothing is %q", target)
		}
	}
}

// The page answers only over the loopback, and only to those who ask there by its name.
func TestOthersDoNotGetThePage(t *testing.T) {
	mux := http.NewServeMux()
	(&Handler{Status: func(context.Context) *Status { return some() }}).Register(mux)
	for _, test := range []struct {
		name, local, remote, host string
		want                      int
	}{
		{"kubectl port-forward", "127.0.0.1:10269", "127.0.0.1:4000", "localhost:8080", 200},
		{"a program of the pod", "127.0.0.1:10269", "127.0.0.1:4000", "127.0.0.1:10269", 200},
		{"a program of a pod with IPv6", "[::1]:10269", "[::1]:4000", "[::1]:10269", 200},
		{"by IPv6 without a port", "[::1]:10269", "[::1]:4000", "[::1]", 200},
		{"another pod", "10.1.0.5:10269", "10.1.0.9:4000", "10.1.0.5:10269", 403},
		{"another pod that says localhost", "10.1.0.5:10269", "10.1.0.9:4000", "localhost", 403},
		{"a packet from outside to 127.0.0.1", "127.0.0.1:10269", "10.1.0.9:4000", "localhost", 403},
		{"a page of another site", "127.0.0.1:10269", "127.0.0.1:4000", "evil.example.com:10269", 403},
		{"no host", "127.0.0.1:10269", "127.0.0.1:4000", "", 403},
		{"nonsense", "127.0.0.1:10269", "127.0.0.1:4000", "[", 403},
	} {
		for _, path := range []string{PagePath, JSONPath} {
			t.Run(test.name+" "+path, func(t *testing.T) {
				at, err := net.ResolveTCPAddr("tcp", test.local)
				if err != nil {
					t.Fatal(err)
				}
				r := httptest.NewRequestWithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, at), http.MethodGet, path, nil)
				r.RemoteAddr, r.Host = test.remote, test.host
				w := httptest.NewRecorder()
				mux.ServeHTTP(w, r)
				if w.Code != test.want || test.want != 200 && strings.Contains(w.Body.String(), "configmaps") {
					t.Errorf("%d: %s", w.Code, w.Body)
				}
			})
		}
	}
}

func TestNothingElseIsServed(t *testing.T) {
	server := served(t, some())
	for _, path := range []string{"/x", "/status", "/favicon.ico"} {
		if resp, _ := get(t, server.URL+path); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

func TestTimeline(t *testing.T) {
	at := func(hours int) time.Time { return now.Add(time.Duration(hours) * time.Hour) }
	for name, test := range map[string]struct {
		status Status
		want   []Segment
	}{
		"changes": {Status{Link: Link{State: "online", Changes: []Change{{At: at(-12), State: "offline"}, {At: at(-6), State: "online"}}}}, []Segment{
			{"", at(-24), at(-12), 0, 50}, {"offline", at(-12), at(-6), 50, 25}, {"online", at(-6), now, 75, 25},
		}},
		"no history":                          {Status{Started: at(-6), Link: Link{State: "online"}}, []Segment{{"", at(-24), at(-6), 0, 75}, {"online", at(-6), now, 75, 25}}},
		"running for longer than the history": {Status{Started: at(-60), Link: Link{State: "online"}}, []Segment{{"online", at(-24), now, 0, 100}}},
		"the clock was set back": {Status{Link: Link{State: "online", Changes: []Change{{At: at(-12), State: "online"}, {At: at(5), State: "offline"}}}}, []Segment{
			{"", at(-24), at(-12), 0, 50}, {"online", at(-12), now, 50, 50},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			test.status.Now = now
			if diff := cmp.Diff(test.want, test.status.Timeline()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestWhoHasAsked(t *testing.T) {
	list := func(resource, version, namespace, labels string) Collection {
		return Collection{Collection: inspect.Collection{Account: "web", Resource: resource, Version: version, Namespace: namespace, Labels: labels}}
	}
	all := []Collection{
		list("configmaps", "v1", "shop", ""), list("configmaps", "v1", "", ""), list("deployments.apps", "v1", "shop", ""), list("pods", "v1", "shop", "app=web"),
	}
	NoteAskedBy(all, []Request{
		{"web", "lister/1", "GET", "/api/v1/namespaces/shop/configmaps"}, {"web", "lister/2", "GET", "/api/v1/namespaces/shop/configmaps?watch=1"},
		{"web", "getter/1", "GET", "/api/v1/namespaces/shop/configmaps/a"}, {"web", "cluster/1", "GET", "/api/v1/configmaps"},
		{"other", "stranger", "GET", "/api/v1/configmaps"}, {"web", "writer", "PUT", "/api/v1/namespaces/shop/configmaps/a"},
		{"web", "", "GET", "/apis/apps/v1/namespaces/shop/deployments"}, {"web", "selector", "GET", "/api/v1/namespaces/shop/pods?labelSelector=app%3Dweb"},
		{"web", "plain", "GET", "/api/v1/namespaces/shop/pods"}, {"web", "discovery", "GET", "/apis"}, {"web", "x", "GET", "::"},
	})
	want := [][]string{{"getter", "lister"}, {"cluster", "getter"}, {"a program without a User-Agent"}, {"selector"}}
	for i, c := range all {
		if !slices.Equal(c.AskedBy, want[i]) {
			t.Errorf("%s in %q: asked by %q, want %q", c.Resource, c.Namespace, c.AskedBy, want[i])
		}
	}
}

func TestRecentErrorsAreCountedAndBounded(t *testing.T) {
	var r Recent
	core, logs := observer.New(zap.InfoLevel)
	log := r.Logger(zap.New(core))
	log.Info("fine")
	log.With(zap.Error(errors.New("of the disk"))).Warn("cannot write", zap.String("token", "secret-of-a-field"))
	log.Error("broken", zap.Error(errors.New("x")))
	log.Error("broken", zap.Error(errors.New("x")))
	all := r.Errors()
	if len(all) != 2 || all[0].Text != "broken: x" || all[0].Count != 2 || all[1].Text != "cannot write: of the disk" {
		t.Errorf("%+v", all)
	}
	if logs.Len() != 4 {
		t.Errorf("%d lines are logged", logs.Len())
	}
	for i := range 100 {
		r.Note(now.Add(time.Duration(i)*time.Hour), fmt.Sprint(i, strings.Repeat("é", 1000)))
	}
	all = r.Errors()
	if len(all) != maxErrors || !strings.HasPrefix(all[len(all)-1].Text, "80") {
		t.Errorf("%d are kept, the last one is %+v", len(all), all[len(all)-1])
	}
	for _, e := range all {
		if len(e.Text) > maxErrorLength+10 {
			t.Errorf("%d bytes", len(e.Text))
		}
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 20: "5.0 MiB", 3 << 40: "3072.0 GiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func FuzzThePageEscapes(f *testing.F) {
	f.Add("</td><script>x</script>")
	f.Add("\" onload=\"x\" ' <b>")
	f.Fuzz(func(t *testing.T, text string) {
		s := some()
		s.Errors[0].Text, s.Failing[0].Path, s.Addresses[0].URL, s.Link.State, s.Collections[0].AskedBy[0] = text, text, text, text, text
		tree, err := html.Parse(bytes.NewReader(s.page()))
		if err != nil {
			t.Fatal(err)
		}
		for n := range tree.Descendants() {
			if n.Type == html.ElementNode && (n.Data == "script" || n.Data == "b") {
				t.Fatalf("%q makes an element", text)
			}
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") {
					t.Fatalf("%q makes an attribute", text)
				}
			}
		}
	})
}
