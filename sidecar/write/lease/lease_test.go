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

type rig struct {
	*Tracker
	t     *testing.T
	clock *clocktesting.FakePassiveClock
	logs  *observer.ObservedLogs
}

func newRig(t *testing.T) *rig {
	core, logs := observer.New(zap.DebugLevel)
	c := clocktesting.NewFakePassiveClock(time.Unix(1_700_000_000, 0))
	return &rig{New(Options{Logger: zap.New(core), Clock: c}), t, c, logs}
}

func (g *rig) pass(d time.Duration) { g.clock.SetTime(g.clock.Now().Add(d)) }

// object is the Lease, of 15 seconds, renewed at a second.
func object(holder, version string, second int) string {
	return fmt.Sprintf(`{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"shop","uid":"u","resourceVersion":%q},
		"spec":{"holderIdentity":%q,"leaseDurationSeconds":15,"renewTime":"2024-01-01T00:00:%02d.000000Z"}}`, version, holder, second)
}

func parse(method, url string) *request.Info {
	info := request.Parse(httptest.NewRequest(method, url, nil))
	return &info
}

// online has an exchange with the API server.
func (g *rig) online(method, url, body string, code int, answer string) {
	g.onlineAs("me", method, url, asJSON, body, code, answer)
}

func (g *rig) onlineAs(principal, method, url, contentType, body string, code int, answer string) {
	g.t.Helper()
	info := parse(method, url)
	if !g.Handles(info) {
		g.t.Fatalf("%s %s is not taken", method, url)
	}
	g.Observe(write.Request{Principal: principal, Info: info, Sent: g.clock.Now(), ContentType: contentType, Body: []byte(body)}, response(code, asJSON, answer))
}

func response(code int, contentType, body string) *http.Response {
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body))}
}

// acquired is a Lease that a writes into, at version 2.
func acquired(t *testing.T) *rig {
	g := newRig(t)
	g.online("GET", path, "", 200, object("", "1", 0))
	g.online("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
	return g
}

// offline writes without the link, and gives what it comes to.
func (g *rig) offline(method, url, contentType, body string) string {
	g.t.Helper()
	return g.offlineAs("me", method, url, contentType, body)
}

func (g *rig) offlineAs(principal, method, url, contentType, body string) string {
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
	return read(g.t, raw)
}

func read(t *testing.T, raw []byte) string {
	o, err := write.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	return o.Text("spec", "holderIdentity") + "@" + o.Text("metadata", "resourceVersion") + " " + o.Text("spec", "renewTime")[17:19]
}

func (g *rig) renew(second int) string {
	g.t.Helper()
	return g.offline("PUT", path, asJSON, object("a", "2", second))
}

func (g *rig) get() string {
	g.t.Helper()
	resp := g.held("me", parse("GET", path))
	if resp == nil {
		return ""
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return read(g.t, raw)
}

func (g *rig) want(got, want string) {
	g.t.Helper()
	if got != want {
		g.t.Errorf("%q, want %q; the log: %v", got, want, g.logs.All())
	}
}

func TestOnlySingleLeasesAreTaken(t *testing.T) {
	g := newRig(t)
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
		{"a deletion of all", "DELETE", all, false},
		{"a PUT that is only tried", "PUT", path + "?dryRun=All", false},
		{"another version", "PUT", strings.Replace(path, "v1", "v1beta1", 1), false},
		{"another resource", "PUT", "/api/v1/namespaces/shop/configmaps/web", false},
	} {
		if got := g.Handles(parse(tt.method, tt.path)); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestAHeldLeaseIsRenewedAsLongAsItIsNotExpired(t *testing.T) {
	g := acquired(t)
	g.pass(14 * time.Second)
	g.want(g.get(), "a@2 01")
	for second := 10; second < 50; second += 10 {
		g.want(g.renew(second), fmt.Sprintf("a@2 %d", second))
		g.want(g.get(), fmt.Sprintf("a@2 %d", second))
		g.pass(14 * time.Second)
	}
	if n := g.logs.FilterMessageSnippet("renewed locally").Len(); n != 1 {
		t.Errorf("the log says so %d times", n)
	}
	g.pass(time.Second)
	g.want(g.get(), "")
	g.want(g.renew(51), "expired")
	g.want(g.renew(52), "unheld")
	if n := g.logs.FilterMessageSnippet("is lost").Len(); n != 1 {
		t.Errorf("the log says %d times that it is lost", n)
	}
}

func TestOnlyTheHolderOfTheKnownStateRenews(t *testing.T) {
	spec := func(holder string) string { return fmt.Sprintf(`{"spec":{"holderIdentity":%q}}`, holder) }
	for _, tt := range []struct{ name, method, path, contentType, body, want string }{
		{"an update", "PUT", path, asJSON, object("a", "2", 9), "a@2 09"},
		{"a patch of the time", "PATCH", path, strategic, `{"spec":{"renewTime":"2024-01-01T00:00:09.000000Z"}}`, "a@2 09"},
		{"a patch with holder and version", "PATCH", path, strategic, object("a", "2", 9), "a@2 09"},
		{"an update without a namespace", "PUT", path, asJSON, strings.Replace(object("a", "2", 9), `"namespace":"shop",`, "", 1), "a@2 09"},
		{"by another holder", "PUT", path, asJSON, object("b", "2", 9), "taken"},
		{"by another holder, as a patch", "PATCH", path, strategic, spec("b"), "taken"},
		{"by nobody", "PUT", path, asJSON, object("", "2", 9), "released"},
		{"by nobody, as a patch", "PATCH", path, strategic, `{"spec":{"holderIdentity":null}}`, "released"},
		{"of another version", "PUT", path, asJSON, object("a", "1", 9), "Conflict"},
		{"of another version, as a patch", "PATCH", path, strategic, object("a", "1", 9), "Conflict"},
		{"of no version", "PUT", path, asJSON, object("a", "", 9), "Invalid"},
		{"of another object of the name", "PUT", path, asJSON, strings.Replace(object("a", "2", 9), `"u"`, `"v"`, 1), "Conflict"},
		{"of another name", "PUT", path, asJSON, strings.Replace(object("a", "2", 9), `"web"`, `"other"`, 1), "BadRequest"},
		{"of another namespace", "PUT", path, asJSON, strings.Replace(object("a", "2", 9), `"shop"`, `"other"`, 1), "BadRequest"},
		{"to another kind", "PATCH", path, strategic, `{"kind":"Pod"}`, "BadRequest"},
		{"that is not JSON", "PUT", path, asJSON, `{`, "BadRequest"},
		{"as a list of operations", "PATCH", path, "application/json-patch+json", `[]`, "invalid"},
		{"of a Lease that nobody has seen", "PUT", all + "/other", asJSON, object("a", "2", 9), "unheld"},
		{"as a deletion", "DELETE", path, asJSON, ``, "other"},
		{"as a creation", "POST", all, asJSON, object("a", "2", 9), "other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := acquired(t)
			g.want(g.offline(tt.method, tt.path, tt.contentType, tt.body), tt.want)
			next := "a@2 10"
			if tt.want == "released" {
				next = "unheld"
			}
			g.want(g.renew(10), next)
		})
	}
	g := acquired(t)
	g.want(g.offlineAs("another", "PUT", path, asJSON, object("a", "2", 9)), "unheld")
	if g.held("another", parse("GET", path)) != nil {
		t.Error("another principal sees it")
	}
}

func TestWhatCountsAsAHold(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(g *rig)
		want string
	}{
		{"a POST with a holder", func(g *rig) { g.online("POST", all, object("a", "", 1), 201, object("a", "2", 1)) }, "a@2 09"},
		{"a PUT after a restart of the sidecar", func(g *rig) { g.online("PUT", path, object("a", "1", 1), 200, object("a", "2", 1)) }, "a@2 09"},
		{"a PATCH of holder and time", func(g *rig) {
			g.onlineAs("me", "PATCH", path, strategic, object("a", "", 1), 200, object("a", "2", 1))
		}, "a@2 09"},
		{"a PATCH of the time", func(g *rig) {
			g.onlineAs("me", "PATCH", path, strategic, `{"spec":{"renewTime":"2024-01-01T00:00:01Z"}}`, 200, object("a", "2", 1))
		}, "a@2 09"},
		{"a PUT in another time zone", func(g *rig) {
			g.online("PUT", path, strings.Replace(object("a", "1", 1), "T00:00:01.000000Z", "T01:00:01.0000001+01:00", 1), 200, object("a", "2", 1))
		}, "a@2 09"},
		{"a newer version that was read", func(g *rig) {
			g.online("PUT", path, object("a", "1", 1), 200, object("a", "1", 1))
			g.online("GET", path, "", 200, object("a", "2", 1))
		}, "a@2 09"},
		{"a label that the holder writes", func(g *rig) {
			g.online("PUT", path, object("a", "1", 1), 200, object("a", "1", 1))
			g.onlineAs("me", "PATCH", path, strategic, `{"metadata":{"labels":{"x":"y"}}}`, 200, object("a", "2", 1))
		}, "a@2 09"},
		{"a write that was refused", func(g *rig) {
			g.online("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
			g.online("PUT", path, object("a", "2", 2), 422, `{}`)
		}, "a@2 09"},
		{"an answer for a person", func(g *rig) {
			g.online("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
			g.online("GET", path, "", 200, `{"kind":"Table"}`)
		}, "a@2 09"},

		{"reading", func(g *rig) { g.online("GET", path, "", 200, object("a", "2", 1)) }, "unheld"},
		{"a label on a Lease that somebody else holds", func(g *rig) {
			g.online("GET", path, "", 200, object("a", "1", 1))
			g.onlineAs("me", "PATCH", path, strategic, `{"metadata":{"labels":{"x":"y"}}}`, 200, object("a", "2", 1))
		}, "unheld"},
		{"a label, by an update", func(g *rig) {
			g.online("GET", path, "", 200, object("a", "1", 1))
			g.online("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
		}, "unheld"},
		{"a renewal by another principal", func(g *rig) {
			g.onlineAs("another", "PUT", path, asJSON, object("a", "1", 1), 200, object("a", "2", 1))
		}, "unheld"},
		{"a PUT that was refused", func(g *rig) { g.online("PUT", path, object("a", "1", 1), 403, `{}`) }, "unheld"},
		{"a release", func(g *rig) {
			g.online("PUT", path, object("a", "1", 1), 200, object("a", "1", 1))
			g.online("PUT", path, object("", "1", 2), 200, object("", "2", 2))
		}, "unheld"},
		{"somebody else was seen to hold it", func(g *rig) {
			g.online("PUT", path, object("a", "1", 1), 200, object("a", "1", 1))
			g.online("GET", path, "", 200, object("b", "2", 2))
		}, "unheld"},
		{"a conflict", func(g *rig) {
			g.online("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
			g.online("PUT", path, object("a", "2", 2), 409, `{}`)
		}, "unheld"},
		{"a conflict, and then only reading", func(g *rig) {
			g.online("PUT", path, object("a", "1", 1), 200, object("a", "1", 1))
			g.online("PUT", path, object("a", "1", 2), 409, `{}`)
			g.online("GET", path, "", 200, object("a", "2", 1))
		}, "unheld"},
		{"a deletion", func(g *rig) {
			g.online("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
			g.online("DELETE", path, "", 200, `{}`)
		}, "unheld"},
		{"a Lease that is gone", func(g *rig) {
			g.online("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
			g.online("GET", path, "", 404, `{}`)
		}, "unheld"},
		{"an answer to a write that cannot be read", func(g *rig) {
			g.online("PUT", path, object("a", "1", 1), 200, object("a", "2", 1))
			g.online("PUT", path, object("a", "1", 1), 200, `{"kind":"Table"}`)
		}, "unheld"},
		{"a Lease that never lasts", func(g *rig) {
			zero := func(v string) string { return strings.Replace(object("a", v, 1), ":15", ":0", 1) }
			g.online("PUT", path, zero("1"), 200, zero("2"))
		}, "expired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t)
			tt.do(g)
			g.want(g.renew(9), tt.want)
		})
	}
}

func TestTheServersWordEndsTheOverlay(t *testing.T) {
	g := acquired(t)
	g.want(g.renew(9), "a@2 09")
	g.online("PUT", path, object("a", "2", 20), 200, object("a", "3", 20))
	g.want(g.get(), "a@3 20")
	g.want(g.renew(21), "Conflict")
	if n := g.logs.FilterMessageSnippet("counts again").Len(); n != 1 {
		t.Errorf("the log says so %d times", n)
	}

	g = acquired(t)
	g.want(g.renew(9), "a@2 09")
	g.online("PUT", path, object("a", "2", 20), 409, `{}`)
	g.want(g.get(), "")
	g.want(g.renew(21), "unheld")
	g.online("GET", path, "", 200, object("b", "3", 15))
	g.want(g.get(), "")
}

func TestTheLeasesThatAreRememberedAreBounded(t *testing.T) {
	g := acquired(t)
	for i := range 2 * maxLeases {
		name := fmt.Sprint("other-", i)
		g.online("GET", all+"/"+name, "", 200, strings.Replace(object("b", "5", 5), `"web"`, `"`+name+`"`, 1))
	}
	if n := len(g.leases); n != maxLeases {
		t.Errorf("%d are remembered", n)
	}
	g.want(g.renew(9), "a@2 09")
}

// FuzzRenew looks for a write that takes a Lease, or a version that no server has made.
func FuzzRenew(f *testing.F) {
	f.Add("PUT", asJSON, []byte(object("a", "2", 9)))
	f.Add("PATCH", strategic, []byte(`{"spec":{"holderIdentity":"b"}}`))
	f.Add("PATCH", "application/merge-patch+json", []byte(`{"spec":null,"metadata":{"resourceVersion":2}}`))
	f.Add("PUT", "application/vnd.kubernetes.protobuf", []byte("k8s\x00"))
	f.Fuzz(func(t *testing.T, method, contentType string, body []byte) {
		if method != "PUT" && method != "PATCH" {
			return
		}
		g := acquired(t)
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
			t.Fatalf("%s %s makes it %s, %v", method, body, raw, err)
		}
		info := parse(method, path)
		g.Observe(write.Request{Principal: "me", Info: info, ContentType: contentType, Body: body}, response(200, contentType, string(body)))
	})
}
