package outbox

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/write"
)

func TestOnlyWritesOfEventsAreTaken(t *testing.T) {
	g := newRig(t)
	for _, tt := range []struct {
		name, method, path string
		want               bool
	}{
		{"a create", "POST", core, true},
		{"a create in the other group", "POST", events, true},
		{"a patch", "PATCH", core + "/a", true},
		{"an update", "PUT", core + "/a", false},
		{"a delete", "DELETE", core + "/a", false},
		{"a read", "GET", core + "/a", false},
		{"a create that is only tried", "POST", core + "?dryRun=All", false},
		{"a create in no namespace", "POST", "/api/v1/events", false},
		{"a create by name", "POST", core + "/a", false},
		{"a patch of nothing", "PATCH", core, false},
		{"a subresource", "PATCH", core + "/a/status", false},
		{"another version", "POST", "/apis/events.k8s.io/v1beta1/namespaces/shop/events", false},
		{"another group", "POST", "/apis/example.com/v1/namespaces/shop/events", false},
		{"another resource", "POST", "/api/v1/namespaces/shop/pods", false},
	} {
		info := request.Parse(httptest.NewRequest(tt.method, tt.path, nil))
		if got := g.Handles(&info); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	r := httptest.NewRequest("POST", core, nil)
	r.Header.Set("Impersonate-User", "root")
	info := request.Parse(r)
	if g.Handles(&info) {
		t.Error("an Event of somebody else is taken")
	}
}

func TestAnEventIsAcceptedAsTheServerWould(t *testing.T) {
	g := newRig(t)
	for _, tt := range []struct {
		name, path, contentType, body string
		code                          int
		message                       string
	}{
		{"an Event", core, "application/json", event("a"), 201, ""},
		{"one in the other group", events, "application/json", `{"metadata":{"name":"a"}}`, 201, ""},
		{"one of the name of another", core, "application/json", event("a"), 409, `events "a" already exists`},
		{"one without a name", core, "application/json", `{"metadata":{}}`, 422, "name or generateName is required"},
		{"one without metadata", core, "application/json", `{}`, 422, "name or generateName is required"},
		{"a name that is none", core, "application/json", `{"metadata":{"name":"A B"}}`, 422, "metadata.name"},
		{"another namespace", core, "application/json", `{"metadata":{"name":"b","namespace":"other"}}`, 400, "namespace"},
		{"another kind", core, "application/json", `{"kind":"Pod"}`, 400, "Pod"},
		{"no JSON", core, "application/json", `{`, 400, "cannot be read"},
		{"YAML", core, "application/yaml", `{}`, 503, "application/yaml"},
		{"one that is too large", core, "application/json", `{"metadata":{"name":"b"},"note":"` + strings.Repeat("x", maxEvent) + `"}`, 503, "64 KiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, answer, message := g.write("POST", tt.path, tt.contentType, tt.body)
			if code != tt.code || !strings.Contains(message, tt.message) {
				t.Fatalf("%d %s", code, message)
			}
			if code != 201 {
				return
			}
			if answer.Text("metadata", "name") != "a" || answer.Text("metadata", "namespace") != "shop" || answer.Text("kind") != "Event" {
				t.Errorf("%s", answer.JSON())
			}
			for _, invented := range []string{"uid", "resourceVersion", "creationTimestamp"} {
				if answer.Metadata()[invented] != nil {
					t.Errorf("%s is invented: %s", invented, answer.JSON())
				}
			}
		})
	}
	_, first, _ := g.write("POST", core, "application/json", `{"metadata":{"generateName":"web-"}}`)
	_, second, _ := g.write("POST", core, "application/json", `{"metadata":{"generateName":"`+strings.Repeat("x", 100)+`"}}`)
	if name := first.Text("metadata", "name"); !strings.HasPrefix(name, "web-") || len(name) != 9 {
		t.Errorf("the name is %q", name)
	}
	if name := second.Text("metadata", "name"); len(name) != 63 {
		t.Errorf("the name is %q", name)
	}
	g.Restore()
	g.run()
	g.empty()
	if g.has(core+"/"+first.Text("metadata", "name")) == nil || len(g.events) != 4 {
		t.Errorf("the server has %v", g.events)
	}
}

func TestAPatchChangesWhatIsQueued(t *testing.T) {
	g := newRig(t)
	g.post("a")
	if code, answer := g.patch("a", 2); code != 200 || answer.Text("metadata", "name") != "a" || fmt.Sprint(answer["count"]) != "2" {
		t.Fatalf("%d %s", code, answer.JSON())
	}
	for _, tt := range []struct {
		name, path, contentType, body string
		code                          int
		message                       string
	}{
		{"of an Event that nobody knows", core + "/b", strategic, `{"count":2}`, 503, "neither queued nor recorded"},
		{"of one that another group calls so", events + "/a", strategic, `{"count":2}`, 503, "neither queued nor recorded"},
		{"of its name", core + "/a", strategic, `{"metadata":{"name":"b"}}`, 400, "cannot be changed"},
		{"of its kind", core + "/a", strategic, `{"kind":"Pod"}`, 400, "cannot be changed"},
		{"of one version", core + "/a", strategic, `{"metadata":{"resourceVersion":"1"}}`, 503, "resourceVersion"},
		{"that is a list of operations", core + "/a", "application/json-patch+json", `[]`, 503, "json-patch"},
		{"that cannot be read", core + "/a", strategic, `{`, 400, "cannot be read"},
		{"that makes it too large", core + "/a", strategic, `{"note":"` + strings.Repeat("x", maxEvent/2) + `"}`, 503, "64 KiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if code, _, message := g.write("PATCH", tt.path, tt.contentType, tt.body); code != tt.code || !strings.Contains(message, tt.message) {
				t.Errorf("%d %s", code, message)
			}
		})
	}
	if code, _, _ := g.writeAs("other", "PATCH", core+"/a", strategic, `{"count":9}`); code != 503 {
		t.Errorf("another principal changes it: %d", code)
	}
	g.Restore()
	g.run()
	g.empty()
	if got := g.has(core + "/a"); got.Int("count") != 2 || !slices.Equal(g.requests(), []string{"POST web " + core}) {
		t.Errorf("the server has %s after %q", got.JSON(), g.requests())
	}
}

func TestAnEventThatTheServerHasIsPatchedOrMadeAnew(t *testing.T) {
	for _, there := range []bool{true, false} {
		g := newRig(t)
		code, answer := g.patch("recorded", 2)
		if code != 200 || answer.Text("metadata", "resourceVersion") != "7" || answer.Text("metadata", "uid") != "u" || answer.Text("reason") != "Began" {
			t.Fatalf("%d %s", code, answer.JSON())
		}
		if code, answer = g.patch("recorded", 3); code != 200 || answer.Text("metadata", "resourceVersion") != "7" {
			t.Errorf("the second time: %d %s", code, answer.JSON())
		}
		want := []string{"POST web " + core}
		if there { // by hand, so that only the patch can have changed it
			g.events[core+"/recorded"] = write.Object{"metadata": map[string]any{"name": "recorded", "uid": "u"}, "reason": "Kept"}
			want = append(want, "PATCH web "+core+"/recorded")
		}
		g.Restore()
		g.run()
		g.empty()
		got := g.has(core + "/recorded")
		if got.Int("count") != 3 || (got.Text("reason") == "Kept") != there || (got.Text("metadata", "uid") == "u") != there || got.Metadata()["resourceVersion"] != nil || !slices.Equal(g.requests(), want) {
			t.Errorf("there %v: the server has %s after %q", there, got.JSON(), g.requests())
		}
	}
}

func TestEventsArriveInOrderAndAfterARestart(t *testing.T) {
	g := newRig(t)
	g.post("a", "b", "c")
	stop := g.run()
	stop() // without having been online
	g.again()
	g.post("d")
	g.patch("b", 5)
	g.Restore()
	g.run()
	g.empty()
	want := slices.Repeat([]string{"POST web " + core}, 4)
	if !slices.Equal(g.requests(), want) || g.has(core+"/b").Int("count") != 5 || g.has(core+"/d") == nil {
		t.Errorf("%q", g.requests())
	}
	g.post("e") // it is woken
	g.empty()
}

func TestTheOrderIsThatOfAcceptance(t *testing.T) {
	g := newRig(t)
	names := strings.Split("q w e r t z u i o p", " ")
	g.post(names...)
	var got []string
	g.each = func(r *http.Request) (*http.Response, error) {
		resp, err := g.serve(r)
		for _, name := range names {
			if g.has(core+"/"+name) != nil && !slices.Contains(got, name) {
				got = append(got, name)
			}
		}
		return resp, err
	}
	g.Restore()
	g.run()
	g.empty()
	if !slices.Equal(got, names) {
		t.Errorf("%q", got)
	}
}

func TestFailuresAreTriedAgainAndRefusalsAreNot(t *testing.T) {
	for _, tt := range []struct {
		name   string
		first  func(*server) func(*http.Request) (*http.Response, error)
		result string
		again  bool
	}{
		{"a link that breaks", func(*server) func(*http.Request) (*http.Response, error) { return fails(errLink) }, "delivered", true},
		{"a link that breaks behind the request", func(s *server) func(*http.Request) (*http.Response, error) { return s.arrivesAnd(errLink) }, "present", true},
		{"an API server in trouble", func(*server) func(*http.Request) (*http.Response, error) {
			return says(500, "InternalError")
		}, "delivered", true},
		{"a load balancer without one", func(*server) func(*http.Request) (*http.Response, error) { return says(503, "") }, "delivered", true},
		{"too many requests", func(*server) func(*http.Request) (*http.Response, error) {
			return says(429, "TooManyRequests")
		}, "delivered", true},
		{"a token that has expired", func(*server) func(*http.Request) (*http.Response, error) {
			return says(401, "Unauthorized")
		}, "delivered", true},
		{"no token", func(*server) func(*http.Request) (*http.Response, error) { return fails(write.ErrNoToken) }, "delivered", true},
		{"another conflict", func(*server) func(*http.Request) (*http.Response, error) { return says(409, "Conflict") }, "delivered", true},
		{"an Event that is there", func(*server) func(*http.Request) (*http.Response, error) {
			return says(409, "AlreadyExists")
		}, "present", false},
		{"an Event that is invalid", func(*server) func(*http.Request) (*http.Response, error) { return says(422, "Invalid") }, "refused", false},
		{"an Event that is forbidden", func(*server) func(*http.Request) (*http.Response, error) { return says(403, "Forbidden") }, "refused", false},
		{"a namespace that is gone", func(*server) func(*http.Request) (*http.Response, error) { return says(404, "NotFound") }, "refused", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t)
			before := testutil.ToFloat64(eventsTotal.WithLabelValues(tt.result))
			g.post("a", "b")
			g.will(tt.first(g.server))
			g.Restore()
			g.run()
			if tt.again {
				g.retry()
			}
			g.empty()
			if g.has(core+"/b") == nil {
				t.Error("what is behind it does not arrive")
			}
			count := 2
			if tt.again {
				count = 3
			}
			if n := len(g.requests()); n != count {
				t.Errorf("%d requests, want %d: %q", n, count, g.requests())
			}
			want := before + 1
			if tt.result == "delivered" {
				want++
			}
			if got := testutil.ToFloat64(eventsTotal.WithLabelValues(tt.result)); got != want {
				t.Errorf("%v are %s, want %v", got, tt.result, want)
			}
			for _, line := range g.logs.All() {
				if text := fmt.Sprint(line.Message, line.ContextMap()); strings.Contains(text, "the-body-of-an-event") {
					t.Errorf("the log has the answer's text: %s", text)
				}
			}
			if refused := g.logs.FilterMessageSnippet("refuses").Len(); (refused == 1) != (tt.result == "refused") {
				t.Errorf("%d lines about refusals", refused)
			}
		})
	}
}

func TestPrincipalsDoNotWaitForEachOther(t *testing.T) {
	g := newRig(t)
	g.writeAs("other", "POST", core, "application/json", event("x"))
	g.writeAs("other", "POST", core, "application/json", event("y"))
	g.post("a")
	g.will(fails(write.ErrNoToken))
	g.Restore()
	g.run()
	g.until("the Event of the pod arrives", func() bool { return g.has(core+"/a") != nil })
	if want := []string{"POST other " + core, "POST web " + core}; !slices.Equal(g.requests(), want) {
		t.Errorf("%q, want %q: the others of the principal without a token wait in order", g.requests(), want)
	}
	g.retry()
	g.empty()
}

func TestWhatIsChangedWhileItIsSentIsPatched(t *testing.T) {
	g := newRig(t)
	g.post("a")
	g.will(func(r *http.Request) (*http.Response, error) {
		if code, _ := g.patch("a", 2); code != 200 {
			t.Errorf("it cannot be changed: %d", code)
		}
		return g.serve(r)
	})
	g.Restore()
	g.run()
	g.empty()
	if want := []string{"POST web " + core, "POST web " + core, "PATCH web " + core + "/a"}; !slices.Equal(g.requests(), want) {
		t.Errorf("%q", g.requests())
	}
	if got := g.has(core + "/a"); got.Int("count") != 2 {
		t.Errorf("%s", got.JSON())
	}
}

func TestAnEventThatItsClientHasWrittenSinceIsNotReplaced(t *testing.T) {
	g := newRig(t)
	g.post("a", "b")
	g.patch("b", 2)
	newer := func(name string) {
		info := request.Parse(httptest.NewRequest("POST", core, nil))
		for _, principal := range []string{"other", "web"} {
			q := write.Request{Principal: principal, Info: &info, ContentType: "application/json", Body: []byte(event(name))}
			g.Observe(q, &http.Response{StatusCode: http.StatusCreated})
		}
	}
	newer("a")
	newer("unknown")
	g.will(func(*http.Request) (*http.Response, error) {
		newer("b")
		return answer(409, "AlreadyExists"), nil
	})
	g.Restore()
	g.run()
	g.empty()
	if want := []string{"POST web " + core}; !slices.Equal(g.requests(), want) {
		t.Errorf("%q", g.requests())
	}
}

func TestTheOldestAreDropped(t *testing.T) {
	crowded, aged := eventsTotal.WithLabelValues("crowded"), eventsTotal.WithLabelValues("aged")
	beforeCrowded, beforeAged := testutil.ToFloat64(crowded), testutil.ToFloat64(aged)
	g := newRig(t, func(o *Options) { o.MaxCount = 3 })
	g.post("a", "b")
	g.clock.Step(40 * time.Minute)
	g.post("c", "d")
	if got := testutil.ToFloat64(crowded) - beforeCrowded; got != 1 {
		t.Errorf("%v were too many", got)
	}
	if got := testutil.ToFloat64(queuedEvents); got != 3 {
		t.Errorf("%v are queued", got)
	}
	g.clock.Step(30 * time.Minute)
	g.Restore()
	g.run()
	g.empty()
	if g.has(core+"/a") != nil || g.has(core+"/b") != nil || g.has(core+"/c") == nil || g.has(core+"/d") == nil {
		t.Errorf("the server has %v", g.events)
	}
	if got := testutil.ToFloat64(aged) - beforeAged; got != 1 {
		t.Errorf("%v were too old", got)
	}
	if g.logs.FilterMessageSnippet("were dropped").Len() != 2 {
		t.Errorf("the log says %v", g.logs.All())
	}
}

func TestWhatWasAcceptedIsDeliveredAlsoWhenNothingIsAnyMore(t *testing.T) {
	g := newRig(t)
	g.post("a", "b")
	g.again(func(o *Options) { o.MaxCount = 0 })
	info := request.Parse(httptest.NewRequest("POST", core, nil))
	if g.Handles(&info) {
		t.Error("it takes another one")
	}
	g.Restore()
	g.run()
	g.empty()
	if len(g.events) != 2 {
		t.Errorf("the server has %v", g.events)
	}
}

func TestADiskThatDoesNotTakeAnEventIsSaid(t *testing.T) {
	g := newRig(t)
	g.post("a")
	if err := g.db.Close(); err != nil {
		t.Fatal(err)
	}
	if code, _, message := g.write("POST", core, "application/json", event("b")); code != 503 || !strings.Contains(message, "disk") {
		t.Errorf("%d %s", code, message)
	}
	if code, _ := g.patch("a", 2); code != 503 {
		t.Errorf("a queued one is changed: %d", code)
	}
	if got := g.snapshot(); len(got) != 1 || got[0].changes != 0 {
		t.Errorf("queued are %v", got)
	}
}

func TestAnEventThatTheDiskHasLostIsCounted(t *testing.T) {
	lost := eventsTotal.WithLabelValues("lost")
	before := testutil.ToFloat64(lost)
	g := newRig(t)
	g.post("a", "b")
	if err := g.db.Dequeue(t.Context(), g.snapshot()[0].id); err != nil {
		t.Fatal(err)
	}
	g.Restore()
	g.run()
	g.empty()
	if g.has(core+"/b") == nil || testutil.ToFloat64(lost) != before+1 {
		t.Errorf("the server has %v, %v are lost", g.events, testutil.ToFloat64(lost)-before)
	}
}

// Before it is known whose the store is, what is queued there may be for another cluster.
func TestWhatWasQueuedBeforeTheStartWaitsUntilItIsLoaded(t *testing.T) {
	g := newRig(t)
	g.post("a", "b")
	before := g.Outbox
	g.Outbox = New(before.Options)
	g.post("c")
	g.Restore()
	g.run()
	g.until("what was accepted since is delivered", func() bool { return len(g.snapshot()) == 0 })
	g.Cut()
	g.post("d")
	for range 2 {
		if err := g.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	g.Restore()
	g.empty()
	want := []string{"POST web " + core, "POST web " + core, "POST web " + core, "POST web " + core}
	if got := g.requests(); !slices.Equal(got, want) {
		t.Errorf("asked: %q", got)
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		if g.has(core+"/"+name) == nil {
			t.Errorf("%s is not delivered", name)
		}
	}
}

func TestAllThatWasPatchedReachesAnEventThatTheServerHas(t *testing.T) {
	g := newRig(t)
	path := core + "/recorded"
	g.events[path] = write.Object{"kind": "Event"}
	for _, patch := range []string{`{"count":2,"reason":"Goes on"}`, `{"count":3}`, `{"note":"x"}`} {
		if code, _, message := g.write("PATCH", path, strategic, patch); code != 200 {
			t.Fatalf("%d %s", code, message)
		}
	}
	g.Restore()
	g.run()
	g.empty()
	if got := string(g.has(path).JSON()); got != `{"count":3,"kind":"Event","note":"x","reason":"Goes on"}` {
		t.Errorf("the server has %s", got)
	}
}
