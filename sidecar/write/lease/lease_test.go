package lease

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/write"
)

const (
	all  = "/apis/coordination.k8s.io/v1/namespaces/shop/leases"
	path = all + "/web"

	asJSON    = "application/json"
	strategic = "application/strategic-merge-patch+json"
)

// harness is a Tracker with a clock and a log that the test controls.
type harness struct {
	*Tracker
	t     *testing.T
	clock *clocktesting.FakePassiveClock
	logs  *observer.ObservedLogs
	next  int64
}

func newHarness(t *testing.T) *harness {
	core, logs := observer.New(zap.DebugLevel)
	c := clocktesting.NewFakePassiveClock(time.Unix(1_700_000_000, 0))
	return &harness{New(Options{Leases: true, Annotations: true, Logger: zap.New(core), Clock: c}), t, c, logs, 0}
}

// ask gives the next sequence number.
func (g *harness) ask() int64 {
	g.next++
	return g.next
}

func (g *harness) advance(d time.Duration) { g.clock.SetTime(g.clock.Now().Add(d)) }

// object returns the Lease, which lasts 15 seconds, with a second of its renewTime.
func object(holder, version string, second int) string {
	return fmt.Sprintf(`{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"shop","uid":"u","resourceVersion":%q},
		"spec":{"holderIdentity":%q,"leaseDurationSeconds":15,"renewTime":"2024-01-01T00:00:%02d.000000Z"}}`, version, holder, second)
}

func parse(method, url string) *request.Info {
	info := request.Parse(httptest.NewRequest(method, url, nil))
	return &info
}

// exchange shows the Tracker a request and the API server's answer.
func (g *harness) exchange(method, url, body string, code int, answer string) {
	g.exchangeAs("me", method, url, asJSON, body, code, answer)
}

func (g *harness) exchangeAs(principal, method, url, contentType, body string, code int, answer string) {
	g.t.Helper()
	info := parse(method, url)
	if !g.Handles(info) {
		g.t.Fatalf("%s %s is not handled", method, url)
	}
	asked := g.ask()
	g.Observe(write.Request{Principal: principal, Info: info, Sent: g.clock.Now(), Asked: asked, Told: g.ask(), ContentType: contentType, Body: []byte(body)}, response(code, asJSON, answer))
}

func response(code int, contentType, body string) *http.Response {
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body))}
}

// newHolder returns a harness in which a holds the Lease at resourceVersion 2.
func newHolder(t *testing.T) *harness {
	g := newHarness(t)
	g.exchange("GET", path, "", 200, object("", "1", 0))
	g.exchange("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
	return g
}

// offline returns the result of a write without the link: a summary of the Lease, or the reason of
// the refusal.
func (g *harness) offline(method, url, contentType, body string) string {
	g.t.Helper()
	return g.offlineAs("me", method, url, contentType, body)
}

func (g *harness) offlineAs(principal, method, url, contentType, body string) string {
	g.t.Helper()
	resp, err := g.Accept(g.t.Context(), write.Request{Principal: principal, Info: parse(method, url), ContentType: contentType, Body: []byte(body)})
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, write.ErrNeedsServer):
		return result(err)
	case errors.As(err, &status):
		return string(status.Status().Reason)
	case err != nil:
		g.t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		g.t.Fatalf("%d %v", resp.StatusCode, err)
	}
	return summary(g.t, raw)
}

// summary returns the holder, the resourceVersion and the second of the renewTime of a Lease.
func summary(t *testing.T, raw []byte) string {
	o, err := write.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	return o.Text("spec", "holderIdentity") + "@" + o.Text("metadata", "resourceVersion") + " " + o.Text("spec", "renewTime")[17:19]
}

func (g *harness) renew(second int) string {
	g.t.Helper()
	return g.offline("PUT", path, asJSON, object("a", "2", second))
}

// get returns a summary of the Lease that the Tracker answers a GET with, empty if it has none.
func (g *harness) get() string {
	g.t.Helper()
	resp := g.held(keyOf("me", parse("GET", path)), parse("GET", path))
	if resp == nil {
		return ""
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return summary(g.t, raw)
}

func (g *harness) want(got, want string) {
	g.t.Helper()
	if got != want {
		g.t.Errorf("%q, want %q; the log: %v", got, want, g.logs.All())
	}
}

func TestTheTrackerHandlesOnlyRequestsForOneLease(t *testing.T) {
	g := newHarness(t)
	for _, tt := range []struct {
		name, method, path string
		want               bool
	}{
		{"a GET", "GET", path, true},
		{"a PUT", "PUT", path, true},
		{"a PATCH", "PATCH", path, true},
		{"a DELETE", "DELETE", path, true},
		{"a POST", "POST", all, true},
		{"a LIST", "GET", all, false},
		{"a WATCH", "GET", all + "?watch=true", false},
		{"a DELETE of all", "DELETE", all, false},
		{"a dry-run PUT", "PUT", path + "?dryRun=All", false},
		{"another version", "PUT", strings.Replace(path, "v1", "v1beta1", 1), false},
		{"another resource", "PUT", "/api/v1/namespaces/shop/pods/web", false},
	} {
		if got := g.Handles(parse(tt.method, tt.path)); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestAHeldLeaseIsRenewedUntilItExpires(t *testing.T) {
	g := newHolder(t)
	g.advance(14 * time.Second)
	g.want(g.get(), "a@2 01")
	for second := 10; second < 50; second += 10 {
		g.want(g.renew(second), fmt.Sprintf("a@2 %d", second))
		g.want(g.get(), fmt.Sprintf("a@2 %d", second))
		g.advance(14 * time.Second)
	}
	if n := g.logs.FilterMessageSnippet("renewed locally").Len(); n != 1 {
		t.Errorf("%d log lines about the first renewal", n)
	}
	g.advance(time.Second)
	g.want(g.get(), "")
	g.want(g.renew(51), "expired")
	g.want(g.renew(52), "unheld")
	if n := g.logs.FilterMessageSnippet("is lost").Len(); n != 1 {
		t.Errorf("%d log lines about the loss", n)
	}
}

func TestOnlyTheHolderRenewsAtTheLatestVersion(t *testing.T) {
	spec := func(holder string) string { return fmt.Sprintf(`{"spec":{"holderIdentity":%q}}`, holder) }
	for _, tt := range []struct{ name, method, path, contentType, body, want string }{
		{"an update", "PUT", path, asJSON, object("a", "2", 9), "a@2 09"},
		{"a patch of the time", "PATCH", path, strategic, `{"spec":{"renewTime":"2024-01-01T00:00:09.000000Z"}}`, "a@2 09"},
		{"a patch with holder and resourceVersion", "PATCH", path, strategic, object("a", "2", 9), "a@2 09"},
		{"an update without a namespace", "PUT", path, asJSON, strings.Replace(object("a", "2", 9), `"namespace":"shop",`, "", 1), "a@2 09"},
		{"by another holder", "PUT", path, asJSON, object("b", "2", 9), "taken"},
		{"by another holder, as a patch", "PATCH", path, strategic, spec("b"), "taken"},
		{"without a holder", "PUT", path, asJSON, object("", "2", 9), "released"},
		{"without a holder, as a patch", "PATCH", path, strategic, `{"spec":{"holderIdentity":null}}`, "released"},
		{"of another version", "PUT", path, asJSON, object("a", "1", 9), "Conflict"},
		{"of another version, as a patch", "PATCH", path, strategic, object("a", "1", 9), "Conflict"},
		{"without a version", "PUT", path, asJSON, object("a", "", 9), "Invalid"},
		{"of another uid", "PUT", path, asJSON, strings.Replace(object("a", "2", 9), `"u"`, `"v"`, 1), "Conflict"},
		{"of another name", "PUT", path, asJSON, strings.Replace(object("a", "2", 9), `"web"`, `"other"`, 1), "BadRequest"},
		{"of another namespace", "PUT", path, asJSON, strings.Replace(object("a", "2", 9), `"shop"`, `"other"`, 1), "BadRequest"},
		{"to another kind", "PATCH", path, strategic, `{"kind":"Pod"}`, "BadRequest"},
		{"that is not JSON", "PUT", path, asJSON, `{`, "BadRequest"},
		{"as a JSON patch", "PATCH", path, "application/json-patch+json", `[]`, "invalid"},
		{"of an unknown Lease", "PUT", all + "/other", asJSON, object("a", "2", 9), "unheld"},
		{"as a deletion", "DELETE", path, asJSON, ``, "other"},
		{"as a creation", "POST", all, asJSON, object("a", "2", 9), "other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newHolder(t)
			g.want(g.offline(tt.method, tt.path, tt.contentType, tt.body), tt.want)
			next := "a@2 10"
			if tt.want == "released" {
				next = "unheld"
			}
			g.want(g.renew(10), next)
		})
	}
	g := newHolder(t)
	g.want(g.offlineAs("another", "PUT", path, asJSON, object("a", "2", 9)), "unheld")
	if g.held(keyOf("another", parse("GET", path)), parse("GET", path)) != nil {
		t.Error("another principal gets the Lease")
	}
}

func TestExchangesThatMakeALeaseHeld(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(g *harness)
		want string
	}{
		{"a POST with a holder", func(g *harness) { g.exchange("POST", all, object("a", "", 1), 201, object("a", "2", 1)) }, "a@2 09"},
		{"a PUT after a restart of the sidecar", func(g *harness) { g.exchange("PUT", path, object("a", "1", 1), 200, object("a", "2", 1)) }, "a@2 09"},
		{"a PATCH of holder and time", func(g *harness) {
			g.exchangeAs("me", "PATCH", path, strategic, object("a", "", 1), 200, object("a", "2", 1))
		}, "a@2 09"},
		{"a PATCH of the time", func(g *harness) {
			g.exchangeAs("me", "PATCH", path, strategic, `{"spec":{"renewTime":"2024-01-01T00:00:01Z"}}`, 200, object("a", "2", 1))
		}, "a@2 09"},
		{"a PUT in another time zone", func(g *harness) {
			g.exchange("PUT", path, strings.Replace(object("a", "1", 1), "T00:00:01.000000Z", "T01:00:01.0000001+01:00", 1), 200, object("a", "2", 1))
		}, "a@2 09"},
		{"a GET of a newer version", func(g *harness) {
			g.exchange("PUT", path, object("a", "1", 1), 200, object("a", "1", 1))
			g.exchange("GET", path, "", 200, object("a", "2", 1))
		}, "a@2 09"},
		{"a PATCH of a label by the holder", func(g *harness) {
			g.exchange("PUT", path, object("a", "1", 1), 200, object("a", "1", 1))
			g.exchangeAs("me", "PATCH", path, strategic, `{"metadata":{"labels":{"x":"y"}}}`, 200, object("a", "2", 1))
		}, "a@2 09"},
		{"a PUT that is invalid", func(g *harness) {
			g.exchange("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
			g.exchange("PUT", path, object("a", "2", 2), 422, `{}`)
		}, "a@2 09"},
		{"a GET of a Table", func(g *harness) {
			g.exchange("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
			g.exchange("GET", path, "", 200, `{"kind":"Table"}`)
		}, "a@2 09"},

		{"a GET", func(g *harness) { g.exchange("GET", path, "", 200, object("a", "2", 1)) }, "unheld"},
		{"a PATCH of a label on a Lease that another client holds", func(g *harness) {
			g.exchange("GET", path, "", 200, object("a", "1", 1))
			g.exchangeAs("me", "PATCH", path, strategic, `{"metadata":{"labels":{"x":"y"}}}`, 200, object("a", "2", 1))
		}, "unheld"},
		{"a PUT that renews nothing", func(g *harness) {
			g.exchange("GET", path, "", 200, object("a", "1", 1))
			g.exchange("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
		}, "unheld"},
		{"a PUT by another principal", func(g *harness) {
			g.exchangeAs("another", "PUT", path, asJSON, object("a", "1", 1), 200, object("a", "2", 1))
		}, "unheld"},
		{"a PUT that is forbidden", func(g *harness) { g.exchange("PUT", path, object("a", "1", 1), 403, `{}`) }, "unheld"},
		{"a release", func(g *harness) {
			g.exchange("PUT", path, object("a", "1", 1), 200, object("a", "1", 1))
			g.exchange("PUT", path, object("", "1", 2), 200, object("", "2", 2))
		}, "unheld"},
		{"a GET that shows another holder", func(g *harness) {
			g.exchange("PUT", path, object("a", "1", 1), 200, object("a", "1", 1))
			g.exchange("GET", path, "", 200, object("b", "2", 2))
		}, "unheld"},
		{"a conflict", func(g *harness) {
			g.exchange("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
			g.exchange("PUT", path, object("a", "2", 2), 409, `{}`)
		}, "unheld"},
		{"a conflict and a GET after it", func(g *harness) {
			g.exchange("PUT", path, object("a", "1", 1), 200, object("a", "1", 1))
			g.exchange("PUT", path, object("a", "1", 2), 409, `{}`)
			g.exchange("GET", path, "", 200, object("a", "2", 1))
		}, "unheld"},
		{"a deletion", func(g *harness) {
			g.exchange("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
			g.exchange("DELETE", path, "", 200, `{}`)
		}, "unheld"},
		{"a GET of a deleted Lease", func(g *harness) {
			g.exchange("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
			g.exchange("GET", path, "", 404, `{}`)
		}, "unheld"},
		{"a PUT with an unreadable answer", func(g *harness) {
			g.exchange("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
			g.exchange("PUT", path, object("a", "1", 1), 200, `{"kind":"Table"}`)
		}, "unheld"},
		{"a Lease with a duration of 0", func(g *harness) {
			zero := func(v string) string { return strings.Replace(object("a", v, 1), ":15", ":0", 1) }
			g.exchange("PUT", path, zero("1"), 200, zero("2"))
		}, "expired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newHarness(t)
			tt.do(g)
			g.want(g.renew(9), tt.want)
		})
	}
}

func TestAnAnswerOfTheAPIServerReplacesLocalRenewals(t *testing.T) {
	g := newHolder(t)
	g.want(g.renew(9), "a@2 09")
	g.exchange("PUT", path, object("a", "2", 20), 200, object("a", "3", 20))
	g.want(g.get(), "a@3 20")
	g.want(g.renew(21), "Conflict")
	if n := g.logs.FilterMessageSnippet("counts again").Len(); n != 1 {
		t.Errorf("%d log lines about the end of the local renewals", n)
	}

	g = newHolder(t)
	g.want(g.renew(9), "a@2 09")
	g.exchange("PUT", path, object("a", "2", 20), 409, `{}`)
	g.want(g.get(), "")
	g.want(g.renew(21), "unheld")
	g.exchange("GET", path, "", 200, object("b", "3", 15))
	g.want(g.get(), "")
}

func TestTheNumberOfTrackedLeasesIsBounded(t *testing.T) {
	g := newHolder(t)
	for i := range 2 * maxLocks {
		name := fmt.Sprint("other-", i)
		g.exchange("GET", all+"/"+name, "", 200, strings.Replace(object("b", "5", 5), `"web"`, `"`+name+`"`, 1))
	}
	if n := len(g.known); n != maxLocks {
		t.Errorf("%d Leases are tracked", n)
	}
	g.want(g.renew(9), "a@2 09")
}

// FuzzRenew looks for a write that changes the holder of a Lease, or its resourceVersion.
func FuzzRenew(f *testing.F) {
	f.Add("PUT", asJSON, []byte(object("a", "2", 9)))
	f.Add("PATCH", strategic, []byte(`{"spec":{"holderIdentity":"b"}}`))
	f.Add("PATCH", "application/merge-patch+json", []byte(`{"spec":null,"metadata":{"resourceVersion":2}}`))
	f.Add("PUT", "application/vnd.kubernetes.protobuf", []byte("k8s\x00"))
	f.Fuzz(func(t *testing.T, method, contentType string, body []byte) {
		if method != "PUT" && method != "PATCH" {
			return
		}
		g := newHolder(t)
		resp, err := g.Accept(t.Context(), write.Request{Principal: "me", Info: parse(method, path), ContentType: contentType, Body: body})
		if err != nil {
			return
		}
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		o, err := write.Decode(raw)
		if err != nil || o.Text("spec", "holderIdentity") != "a" || o.Text("metadata", "resourceVersion") != "2" || o.Text("metadata", "name") != "web" || o.Text("metadata", "namespace") != "shop" {
			t.Fatalf("%s %s gives %s, %v", method, body, raw, err)
		}
		info := parse(method, path)
		g.Observe(write.Request{Principal: "me", Info: info, ContentType: contentType, Body: body}, response(200, contentType, string(body)))
	})
}

func TestAnAnswerThatWasOvertakenDoesNotEndTheHold(t *testing.T) {
	const missing = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`
	for name, late := range map[string]func(g *harness){
		"a GET that was sent before the renewal": func(g *harness) {
			asked := g.ask()
			g.exchange("PUT", path, object("a", "2", 2), 200, object("a", "3", 2))
			g.Observe(write.Request{Principal: "me", Info: parse("GET", path), Asked: asked, Told: g.ask()}, response(200, asJSON, object("a", "2", 1)))
		},
		"a 404 to a GET that was sent before the renewal": func(g *harness) {
			asked := g.ask()
			g.exchange("PUT", path, object("a", "2", 2), 200, object("a", "3", 2))
			g.Observe(write.Request{Principal: "me", Info: parse("GET", path), Asked: asked, Told: g.ask()}, response(404, asJSON, missing))
		},
		"a GET from a cache of the API server": func(g *harness) {
			g.exchange("PUT", path, object("a", "2", 2), 200, object("a", "3", 2))
			g.exchange("GET", path+"?resourceVersion=0", "", 200, object("a", "2", 1))
		},
		"a 404 from a cache of the API server": func(g *harness) {
			g.exchange("PUT", path, object("a", "2", 2), 200, object("a", "3", 2))
			g.exchange("GET", path+"?resourceVersion=0", "", 404, missing)
		},
		"a renewal whose answer comes behind that of the next": func(g *harness) {
			asked := g.ask()
			g.exchange("PUT", path, object("a", "2", 2), 200, object("a", "3", 2))
			g.Observe(write.Request{Principal: "me", Info: parse("PUT", path), Asked: asked, Told: g.ask(), ContentType: asJSON, Body: []byte(object("a", "1", 1))},
				response(200, asJSON, object("a", "2", 1)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newHolder(t)
			late(g)
			if got := g.offline("PUT", path, asJSON, object("a", "3", 9)); got != "a@3 09" {
				t.Errorf("the renewal offline: %s", got)
			}
		})
	}
}
