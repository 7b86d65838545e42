package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/dispatch"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/proxy"
	"rockpool.dev/sidecar/tally"
)

// link is a link that is down, or an API server that answers 200 to everything.
type link struct{ up bool }

func (l *link) Online() bool                     { return l.up }
func (l *link) WaitOnline(context.Context) error { return nil }
func (l *link) Outage() time.Duration            { return 0 }
func (l *link) Wake()                            {}
func (l *link) Patiently(r *http.Request, _ time.Duration) (*http.Response, error) {
	return l.RoundTrip(r)
}
func (l *link) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Audit-Id": {"1"}}, Body: http.NoBody}, nil
}

// anybody believes every caller.
type anybody struct{}

func (anybody) Verify(http.Header) (string, error) { return "web", nil }

// pod is a Dispatcher with an empty cache, its log and its clock.
type pod struct {
	t        *testing.T
	link     *link
	now      *clocktesting.FakeClock
	lines    *observer.ObservedLogs
	repeated *tally.Log
	dispatch *dispatch.Dispatcher
	observe  func(proxy.Exchange)
}

func newPod(t *testing.T, level zapcore.Level) *pod {
	t.Helper()
	all, err := agent.Parse("*")
	if err != nil {
		t.Fatal(err)
	}
	core, lines := observer.New(level)
	log, now := zap.New(core), clocktesting.NewFakeClock(time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC))
	p := &pod{t: t, link: &link{}, now: now, lines: lines, repeated: tally.New(log, now)}
	p.dispatch = dispatch.New(dispatch.Options{
		Upstream: p.link, Caches: cache.Caches{Disk: &cache.Cache{}, Memory: &cache.Cache{}}, Agents: agent.NewCurrent(all),
		Verifier: anybody{}, Credentials: principal.NewCredentials(func() (string, error) { return "", errors.New("none") }, nil),
		Logger: log, Repeated: p.repeated, Clock: now,
	})
	p.observe = accessLog(log, p.repeated)
	return p
}

// asks sends a request as the proxy does.
func (p *pod) asks(method, url string) {
	p.t.Helper()
	r := httptest.NewRequest(method, url, http.NoBody)
	r = r.WithContext(dispatch.WithTrace(r.Context()))
	resp, err := p.dispatch.RoundTrip(r)
	x := proxy.Exchange{Context: r.Context(), Method: method, Path: r.URL.Path, Proto: "HTTP/2.0", UserAgent: "elector", Duration: time.Millisecond, Err: err}
	var status apierrors.APIStatus
	switch {
	case err == nil:
		x.Status = resp.StatusCode
		resp.Body.Close()
	case errors.As(err, &status):
		x.Status = int(status.Status().Code)
	default:
		p.t.Fatal(err)
	}
	p.observe(x)
}

const leases = "/apis/coordination.k8s.io/v1/namespaces/shop/leases"

func TestAWeekWithoutALinkIsADozenLines(t *testing.T) {
	p := newPod(t, zap.InfoLevel)
	const every = 20 * time.Second
	begin := p.now.Now()
	for p.now.Since(begin) < 7*24*time.Hour {
		p.asks("GET", leases+"/web")
		p.now.Step(every)
	}
	p.link.up = true
	p.repeated.End()
	p.asks("GET", leases+"/web")
	all := p.lines.TakeAll()
	if len(all) > 12 {
		t.Errorf("%d lines", len(all))
	}
	if first := all[0].ContextMap(); first["verb"] != "get" || first["resource"] != "coordination.k8s.io/v1/leases" || first["name"] != "web" ||
		first["namespace"] != "shop" || first["userAgent"] != "elector" || first["status"] != int64(503) || first["link"] != "offline" ||
		first["protocol"] != "HTTP/2.0" || !strings.Contains(first["error"].(string), "the link to the API server is down") {
		t.Errorf("the first line: %v", first)
	}
	for _, l := range all {
		if l.Message != "request" || l.Level != zap.InfoLevel {
			t.Errorf("%s %s %v", l.Level, l.Message, l.ContextMap())
		}
	}
	if last := all[len(all)-1].ContextMap(); last["verb"] != "get" || last["resource"] != "coordination.k8s.io/v1/leases" || last["status"] != int64(503) ||
		last["link"] != "offline" || last["count"] != int64(7*24*time.Hour/every) || !last["first"].(time.Time).Equal(begin) ||
		!last["last"].(time.Time).Equal(begin.Add(7*24*time.Hour-every)) || last["error"] == nil {
		t.Errorf("the last line: %v", last)
	}
}

func TestRequestsAreCountedByVerbAndResource(t *testing.T) {
	p := newPod(t, zap.InfoLevel)
	for range 100 {
		for _, name := range []string{"a", "b"} {
			p.asks("GET", leases+"/"+name)
			p.asks("PUT", leases+"/"+name)
			p.asks("GET", "/api/v1/namespaces/"+name+"/pods")
			p.asks("GET", "/version")
		}
	}
	p.now.Step(time.Minute)
	p.repeated.End()
	counts := map[string]int64{}
	for _, l := range p.lines.TakeAll() {
		m := l.ContextMap()
		what, ok := m["resource"].(string)
		if !ok {
			what = m["path"].(string)
		}
		if count, ok := m["count"].(int64); ok {
			counts[m["verb"].(string)+" "+what] += count
		} else {
			counts["lines"]++
		}
	}
	for what, want := range map[string]int64{
		"get coordination.k8s.io/v1/leases": 200, "update coordination.k8s.io/v1/leases": 200, "list v1/pods": 200, "get /version": 200, "lines": 4,
	} {
		if counts[what] != want {
			t.Errorf("%s: %d, want %d", what, counts[what], want)
		}
	}
}

func TestAtDebugEachRequestHasItsLine(t *testing.T) {
	p := newPod(t, zap.DebugLevel)
	for range 5 {
		p.asks("GET", leases+"/web")
	}
	p.link.up = true
	p.asks("GET", leases+"/web")
	levels := map[zapcore.Level]int{}
	for _, l := range p.lines.FilterMessage("request").TakeAll() {
		if levels[l.Level]++; l.ContextMap()["userAgent"] != "elector" {
			t.Error(l.ContextMap())
		}
	}
	if levels[zap.InfoLevel] != 1 || levels[zap.DebugLevel] != 5 {
		t.Error(levels)
	}
}
