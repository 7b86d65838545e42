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
	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/sidecar/write"
	"rockpool.dev/tests/eventually"
)

func TestTheOutboxHandlesOnlyWritesOfEvents(t *testing.T) {
	g := newHarness(t)
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
		{"a dry-run create", "POST", core + "?dryRun=All", false},
		{"a create without a namespace", "POST", "/api/v1/events", false},
		{"a create by name", "POST", core + "/a", false},
		{"a patch without a name", "PATCH", core, false},
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
		t.Error("a create with impersonation is handled")
	}
}

func TestAnEventIsValidatedAsTheAPIServerDoes(t *testing.T) {
	g := newHarness(t)
	for _, tt := range []struct {
		name, path, contentType, body string
		code                          int
		message                       string
	}{
		{"an Event", core, "application/json", event("a"), 201, ""},
		{"one in the other group", events, "application/json", `{"metadata":{"name":"a"}}`, 201, ""},
		{"one with the name of another", core, "application/json", event("a"), 409, `events "a" already exists`},
		{"one without a name", core, "application/json", `{"metadata":{}}`, 422, "name or generateName is required"},
		{"one without metadata", core, "application/json", `{}`, 422, "name or generateName is required"},
		{"an invalid name", core, "application/json", `{"metadata":{"name":"A B"}}`, 422, "metadata.name"},
		{"another namespace", core, "application/json", `{"metadata":{"name":"b","namespace":"other"}}`, 400, "namespace"},
		{"another kind", core, "application/json", `{"kind":"Pod"}`, 400, "Pod"},
		{"no JSON", core, "application/json", `{`, 400, "cannot be read"},
		{"text", core, "text/plain", `{}`, 503, "text/plain"},
		{"YAML", core, "application/yaml", `{}`, 422, "generateName is required"},
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
			for _, field := range []string{"uid", "resourceVersion", "creationTimestamp"} {
				if answer.Metadata()[field] != nil {
					t.Errorf("%s is made up: %s", field, answer.JSON())
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
	g.waitUntilEmpty()
	if g.eventAt(core+"/"+first.Text("metadata", "name")) == nil || len(g.events) != 4 {
		t.Errorf("the server has %v", g.events)
	}
}

func TestAPatchChangesAQueuedEvent(t *testing.T) {
	g := newHarness(t)
	g.queue("a")
	if code, answer := g.patch("a", 2); code != 200 || answer.Text("metadata", "name") != "a" || fmt.Sprint(answer["count"]) != "2" {
		t.Fatalf("%d %s", code, answer.JSON())
	}
	for _, tt := range []struct {
		name, path, contentType, body string
		code                          int
		message                       string
	}{
		{"of an unknown Event", core + "/b", strategic, `{"count":2}`, 503, "neither queued nor recorded"},
		{"of an Event of that name in another group", events + "/a", strategic, `{"count":2}`, 503, "neither queued nor recorded"},
		{"of its name", core + "/a", strategic, `{"metadata":{"name":"b"}}`, 400, "cannot be changed"},
		{"of its kind", core + "/a", strategic, `{"kind":"Pod"}`, 400, "cannot be changed"},
		{"of a resourceVersion", core + "/a", strategic, `{"metadata":{"resourceVersion":"1"}}`, 503, "resourceVersion"},
		{"that is a JSON patch", core + "/a", "application/json-patch+json", `[]`, 503, "json-patch"},
		{"that is malformed", core + "/a", strategic, `{`, 400, "cannot be read"},
		{"that makes the Event too large", core + "/a", strategic, `{"note":"` + strings.Repeat("x", maxEvent/2) + `"}`, 503, "64 KiB"},
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
	g.waitUntilEmpty()
	if got := g.eventAt(core + "/a"); got.Int("count") != 2 || !slices.Equal(g.requests(), []string{"POST web " + core}) {
		t.Errorf("the server has %s after %q", got.JSON(), g.requests())
	}
}

func TestARecordedEventIsPatchedOrCreatedAgain(t *testing.T) {
	for _, exists := range []bool{true, false} {
		g := newHarness(t)
		code, answer := g.patch("recorded", 2)
		if code != 200 || answer.Text("metadata", "resourceVersion") != "7" || answer.Text("metadata", "uid") != "u" || answer.Text("reason") != "Began" {
			t.Fatalf("%d %s", code, answer.JSON())
		}
		if code, answer = g.patch("recorded", 3); code != 200 || answer.Text("metadata", "resourceVersion") != "7" {
			t.Errorf("the second time: %d %s", code, answer.JSON())
		}
		want := []string{"POST web " + core}
		if exists { // stored without a request, so that only the patch changes it
			g.events[core+"/recorded"] = write.Object{"metadata": map[string]any{"name": "recorded", "uid": "u"}, "reason": "Kept"}
			want = append(want, "PATCH web "+core+"/recorded")
		}
		g.Restore()
		g.run()
		g.waitUntilEmpty()
		got := g.eventAt(core + "/recorded")
		if got.Int("count") != 3 || (got.Text("reason") == "Kept") != exists || (got.Text("metadata", "uid") == "u") != exists || got.Metadata()["resourceVersion"] != nil || !slices.Equal(g.requests(), want) {
			t.Errorf("exists %v: the server has %s after %q", exists, got.JSON(), g.requests())
		}
	}
}

func TestEventsArriveInOrderAndAfterARestart(t *testing.T) {
	g := newHarness(t)
	g.queue("a", "b", "c")
	stop := g.run()
	stop() // the link was never online
	g.restart()
	g.queue("d")
	g.patch("b", 5)
	g.Restore()
	g.run()
	g.waitUntilEmpty()
	want := slices.Repeat([]string{"POST web " + core}, 4)
	if !slices.Equal(g.requests(), want) || g.eventAt(core+"/b").Int("count") != 5 || g.eventAt(core+"/d") == nil {
		t.Errorf("%q", g.requests())
	}
	g.queue("e") // wakes the delivery
	g.waitUntilEmpty()
}

func TestEventsAreDeliveredInTheOrderOfAcceptance(t *testing.T) {
	g := newHarness(t)
	names := strings.Split("q w e r t z u i o p", " ")
	g.queue(names...)
	var got []string
	g.intercept = func(r *http.Request) (*http.Response, error) {
		resp, err := g.serve(r)
		for _, name := range names {
			if g.eventAt(core+"/"+name) != nil && !slices.Contains(got, name) {
				got = append(got, name)
			}
		}
		return resp, err
	}
	g.Restore()
	g.run()
	g.waitUntilEmpty()
	if !slices.Equal(got, names) {
		t.Errorf("%q", got)
	}
}

func TestFailuresAreRetriedAndRefusalsAreNot(t *testing.T) {
	for _, tt := range []struct {
		name   string
		first  upstreamtest.AnswerFunc // nil: the request is carried out, and its answer is lost
		result string
		retry  bool
	}{
		{"a link that breaks before the request", fail(errLink), "delivered", true},
		{"a link that breaks after the request", nil, "present", true},
		{"an API server that fails", respond(500, "InternalError"), "delivered", true},
		{"a load balancer without an API server", respond(503, ""), "delivered", true},
		{"too many requests", respond(429, "TooManyRequests"), "delivered", true},
		{"a token that has expired", respond(401, "Unauthorized"), "delivered", true},
		{"no token", fail(write.ErrNoToken), "delivered", true},
		{"another conflict", respond(409, "Conflict"), "delivered", true},
		{"an Event that exists", respond(409, "AlreadyExists"), "present", false},
		{"an Event that is invalid", respond(422, "Invalid"), "refused", false},
		{"an Event that is forbidden", respond(403, "Forbidden"), "refused", false},
		{"a namespace that was deleted", respond(404, "NotFound"), "refused", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newHarness(t)
			before := testutil.ToFloat64(eventsTotal.WithLabelValues(tt.result))
			g.queue("a", "b")
			if tt.first == nil {
				tt.first = g.loseAnswer(errLink)
			}
			g.answerNext(tt.first)
			g.Restore()
			g.run()
			if tt.retry {
				g.retry()
			}
			g.waitUntilEmpty()
			if g.eventAt(core+"/b") == nil {
				t.Error("the next Event does not arrive")
			}
			count := 2
			if tt.retry {
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
	g := newHarness(t)
	g.writeAs("other", "POST", core, "application/json", event("x"))
	g.writeAs("other", "POST", core, "application/json", event("y"))
	g.queue("a")
	g.answerNext(fail(write.ErrNoToken))
	g.Restore()
	g.run()
	eventually.True(t, "the Event of the pod arrives", func() bool { return g.eventAt(core+"/a") != nil })
	if want := []string{"POST other " + core, "POST web " + core}; !slices.Equal(g.requests(), want) {
		t.Errorf("%q, want %q: the Events of the principal without a token wait in order", g.requests(), want)
	}
	g.retry()
	g.waitUntilEmpty()
}

func TestAnEventThatChangesDuringItsDeliveryIsPatched(t *testing.T) {
	g := newHarness(t)
	g.queue("a")
	g.answerNext(func(r *http.Request) (*http.Response, error) {
		if code, _ := g.patch("a", 2); code != 200 {
			t.Errorf("the patch gets %d", code)
		}
		return g.serve(r)
	})
	g.Restore()
	g.run()
	g.waitUntilEmpty()
	if want := []string{"POST web " + core, "POST web " + core, "PATCH web " + core + "/a"}; !slices.Equal(g.requests(), want) {
		t.Errorf("%q", g.requests())
	}
	if got := g.eventAt(core + "/a"); got.Int("count") != 2 {
		t.Errorf("%s", got.JSON())
	}
}

func TestAQueuedEventDoesNotReplaceALaterOnlineWrite(t *testing.T) {
	g := newHarness(t)
	g.queue("a", "b")
	g.patch("b", 2)
	writeOnline := func(name string) {
		info := request.Parse(httptest.NewRequest("POST", core, nil))
		for _, principal := range []string{"other", "web"} {
			q := write.Request{Principal: principal, Info: &info, ContentType: "application/json", Body: []byte(event(name))}
			g.Observe(q, &http.Response{StatusCode: http.StatusCreated})
		}
	}
	writeOnline("a")
	writeOnline("unknown")
	g.answerNext(func(*http.Request) (*http.Response, error) {
		writeOnline("b")
		return statusResponse(409, "AlreadyExists"), nil
	})
	g.Restore()
	g.run()
	g.waitUntilEmpty()
	if want := []string{"POST web " + core}; !slices.Equal(g.requests(), want) {
		t.Errorf("%q", g.requests())
	}
}

func TestTheOldestEventsAreDropped(t *testing.T) {
	crowded, aged := eventsTotal.WithLabelValues("crowded"), eventsTotal.WithLabelValues("aged")
	beforeCrowded, beforeAged := testutil.ToFloat64(crowded), testutil.ToFloat64(aged)
	g := newHarness(t, func(o *Options) { o.MaxCount = 3 })
	g.queue("a", "b")
	g.clock.Step(40 * time.Minute)
	g.queue("c", "d")
	if got := testutil.ToFloat64(crowded) - beforeCrowded; got != 1 {
		t.Errorf("%v were dropped for their number, want 1", got)
	}
	if got := testutil.ToFloat64(queuedEvents); got != 3 {
		t.Errorf("%v are queued, want 3", got)
	}
	g.clock.Step(30 * time.Minute)
	g.Restore()
	g.run()
	g.waitUntilEmpty()
	if g.eventAt(core+"/a") != nil || g.eventAt(core+"/b") != nil || g.eventAt(core+"/c") == nil || g.eventAt(core+"/d") == nil {
		t.Errorf("the server has %v", g.events)
	}
	if got := testutil.ToFloat64(aged) - beforeAged; got != 1 {
		t.Errorf("%v were dropped for their age, want 1", got)
	}
	if g.logs.FilterMessageSnippet("were dropped").Len() != 2 {
		t.Errorf("the log says %v", g.logs.All())
	}
}

func TestAcceptedEventsAreDeliveredAfterTheOutboxIsTurnedOff(t *testing.T) {
	g := newHarness(t)
	g.queue("a", "b")
	g.restart(func(o *Options) { o.MaxCount = 0 })
	info := request.Parse(httptest.NewRequest("POST", core, nil))
	if g.Handles(&info) {
		t.Error("the outbox handles another Event")
	}
	g.Restore()
	g.run()
	g.waitUntilEmpty()
	if len(g.events) != 2 {
		t.Errorf("the server has %v", g.events)
	}
}

func TestAnEventThatTheDiskRefusesGets503(t *testing.T) {
	g := newHarness(t)
	g.queue("a")
	if err := g.db.Close(); err != nil {
		t.Fatal(err)
	}
	if code, _, message := g.write("POST", core, "application/json", event("b")); code != 503 || !strings.Contains(message, "disk") {
		t.Errorf("%d %s", code, message)
	}
	if code, _ := g.patch("a", 2); code != 503 {
		t.Errorf("a patch of a queued Event gets %d", code)
	}
	if got := g.snapshot(); len(got) != 1 || got[0].changes != 0 {
		t.Errorf("%v are queued", got)
	}
}

func TestAnEventThatTheDiskLosesIsCounted(t *testing.T) {
	lost := eventsTotal.WithLabelValues("lost")
	before := testutil.ToFloat64(lost)
	g := newHarness(t)
	g.queue("a", "b")
	if err := g.db.Dequeue(t.Context(), g.snapshot()[0].id); err != nil {
		t.Fatal(err)
	}
	g.Restore()
	g.run()
	g.waitUntilEmpty()
	if g.eventAt(core+"/b") == nil || testutil.ToFloat64(lost) != before+1 {
		t.Errorf("the server has %v, %v were lost", g.events, testutil.ToFloat64(lost)-before)
	}
}

// Until the cache is bound to its cluster, the queue in the store may be for another cluster.
func TestEventsOfAnEarlierRunWaitUntilTheyAreLoaded(t *testing.T) {
	g := newHarness(t)
	g.queue("a", "b")
	before := g.Outbox
	g.Outbox = New(before.Options)
	g.queue("c")
	g.Restore()
	g.run()
	eventually.True(t, "the Event of this run is delivered", func() bool { return len(g.snapshot()) == 0 })
	g.Cut()
	g.queue("d")
	for range 2 {
		if err := g.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	g.Restore()
	g.waitUntilEmpty()
	want := []string{"POST web " + core, "POST web " + core, "POST web " + core, "POST web " + core}
	if got := g.requests(); !slices.Equal(got, want) {
		t.Errorf("requests: %q", got)
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		if g.eventAt(core+"/"+name) == nil {
			t.Errorf("%s is not delivered", name)
		}
	}
}

func TestAllPatchesReachAnExistingEvent(t *testing.T) {
	g := newHarness(t)
	path := core + "/recorded"
	g.events[path] = write.Object{"kind": "Event"}
	for _, patch := range []string{`{"count":2,"reason":"Goes on"}`, `{"count":3}`, `{"note":"x"}`} {
		if code, _, message := g.write("PATCH", path, strategic, patch); code != 200 {
			t.Fatalf("%d %s", code, message)
		}
	}
	g.Restore()
	g.run()
	g.waitUntilEmpty()
	if got := string(g.eventAt(path).JSON()); got != `{"count":3,"kind":"Event","note":"x","reason":"Goes on"}` {
		t.Errorf("the server has %s", got)
	}
}
