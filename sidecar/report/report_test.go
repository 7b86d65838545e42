package report

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/tests/eventually"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// boundToken is a token as the kubelet writes it; nobody verifies it here.
var boundToken = tokenOf(`{"sub":"system:serviceaccount:shop:web","kubernetes.io":{"namespace":"shop","pod":{"name":"web-1","uid":"u-1"},"serviceaccount":{"name":"web","uid":"u-2"}}}`)

func tokenOf(claims string) string {
	e := base64.RawURLEncoding
	return e.EncodeToString([]byte(`{"alg":"RS256"}`)) + "." + e.EncodeToString([]byte(claims)) + ".signature"
}

// cloud is an API server that answers as it is told.
type cloud struct {
	mu      sync.Mutex
	answer  func(r *http.Request) (int, error)
	foreign bool
	got     []string
}

func (c *cloud) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	reason := ""
	for _, one := range []string{LinkLost, LinkRestored, CacheRebuilt, QuotaReached} {
		if strings.Contains(string(body), `"`+one+`"`) {
			reason = one
		}
	}
	c.got = append(c.got, fmt.Sprintf("%s %s %s", r.Method, r.URL.Path, reason))
	if r.Header.Get("Authorization") != "Bearer "+boundToken || r.Header.Get("User-Agent") != "rockpool-sidecar" {
		c.got = append(c.got, fmt.Sprint("header ", r.Header))
	}
	code, err := c.answer(r)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Audit-Id": {"1"}, "Content-Type": {"application/json"}}
	if c.foreign {
		header = http.Header{"Content-Type": {"text/html"}}
	}
	return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(strings.NewReader(`{"kind":"Status","message":"no right"}`)), Request: r}, nil
}

func (c *cloud) says(answer func(*http.Request) (int, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer, c.foreign = answer, false
}

func (c *cloud) requests() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.got...)
}

func always(code int) func(*http.Request) (int, error) {
	return func(*http.Request) (int, error) { return code, nil }
}

type running struct {
	*Reporter
	cloud *cloud
	now   *clocktesting.FakeClock
	lines *observer.ObservedLogs
}

func run(t *testing.T, kinds Kinds, token string) *running {
	core, lines := observer.New(zap.DebugLevel)
	r := &running{cloud: &cloud{answer: always(201)}, now: clocktesting.NewFakeClock(at(time.Minute)), lines: lines}
	r.Reporter = New(zap.New(core), r.now)
	r.Set(kinds)
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() {
		_ = r.Run(ctx, Way{Transport: r.cloud, Token: func() (string, error) { return token, nil }, WaitOnline: func(ctx context.Context) error { return ctx.Err() }})
	})
	t.Cleanup(func() { cancel(); parts.Wait() })
	return r
}

// passes lets time pass once the Reporter waits for it.
func (r *running) passes(t *testing.T, d time.Duration) {
	t.Helper()
	eventually.True(t, "it waits", r.now.HasWaiters)
	r.now.Step(d)
}

const (
	lost      = "POST /api/v1/namespaces/shop/events LinkLost"
	restored  = "POST /api/v1/namespaces/shop/events LinkRestored"
	condition = "PATCH /api/v1/namespaces/shop/pods/web-1/status LinkRestored"
)

func (r *running) wants(t *testing.T, want ...string) {
	t.Helper()
	eventually.True(t, fmt.Sprint(len(want), " requests"), func() bool { return len(r.cloud.requests()) >= len(want) })
	if diff := cmp.Diff(want, r.cloud.requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestReportsAreSentWhereTheyAreAskedFor(t *testing.T) {
	for _, test := range []struct {
		name  string
		kinds Kinds
		want  []string
	}{
		{"both", Kinds{Events: true, Condition: true}, []string{lost, restored, condition}},
		{"Events", Kinds{Events: true}, []string{lost, restored}},
		{"the condition", Kinds{Condition: true}, []string{condition}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := run(t, test.kinds, boundToken)
			r.Outage(cutBetween(0, time.Minute))
			r.passes(t, settle+spread)
			r.wants(t, test.want...)
		})
	}
}

func TestNothingIsKeptWhileNothingIsAskedFor(t *testing.T) {
	r := run(t, Kinds{}, boundToken)
	r.Outage(cutBetween(0, time.Minute))
	r.Note(CacheRebuilt, "damaged")
	r.Set(Kinds{Events: true})
	r.Note(QuotaReached, "full")
	r.passes(t, settle+spread)
	r.wants(t, "POST /api/v1/namespaces/shop/events QuotaReached")
}

func TestWithoutTheRightThereIsOneLineAndNoFurtherRequest(t *testing.T) {
	refused := testutil.ToFloat64(reports.WithLabelValues("event", "refused"))
	r := run(t, Kinds{Events: true, Condition: true}, boundToken)
	r.cloud.says(func(r *http.Request) (int, error) {
		if r.Method == http.MethodPost {
			return http.StatusForbidden, nil
		}
		return http.StatusOK, nil
	})
	r.Outage(cutBetween(0, time.Minute))
	r.passes(t, settle+spread)
	r.wants(t, lost, condition)
	for i := range 5 {
		r.Outage(cutBetween(time.Hour, time.Hour+time.Minute))
		r.passes(t, gap+settle+spread+time.Hour)
		eventually.True(t, "a condition", func() bool { return len(r.cloud.requests()) == 3+i })
	}
	r.wants(t, lost, condition, condition, condition, condition, condition, condition)
	lines := r.lines.All()
	if len(lines) != 1 || lines[0].Level != zap.DebugLevel || lines[0].ContextMap()["kind"] != "event" || !strings.Contains(lines[0].ContextMap()["why"].(string), "no right") {
		t.Errorf("lines: %v", lines)
	}
	if n := testutil.ToFloat64(reports.WithLabelValues("event", "refused")) - refused; n != 1 {
		t.Errorf("%v refusals are counted", n)
	}
}

func TestAReportIsSentAgainUntilTheAPIServerHasAnswered(t *testing.T) {
	for name, answer := range map[string]func(*http.Request) (int, error){
		"a link that breaks":       func(*http.Request) (int, error) { return 0, errors.New("broken") },
		"a token that has expired": always(http.StatusUnauthorized),
		"too many requests":        always(http.StatusTooManyRequests),
		"an overloaded API server": always(http.StatusInternalServerError),
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, Kinds{Condition: true}, boundToken)
			r.cloud.says(answer)
			r.Outage(cutBetween(0, time.Minute))
			r.passes(t, settle+spread)
			r.wants(t, condition)
			r.passes(t, firstRetry)
			r.wants(t, condition, condition)
			r.cloud.says(always(http.StatusOK))
			r.passes(t, 2*firstRetry)
			r.wants(t, condition, condition, condition)
		})
	}
}

func TestAPortalIsNotTakenForTheAPIServer(t *testing.T) {
	r := run(t, Kinds{Condition: true}, boundToken)
	r.cloud.foreign = true
	r.Outage(cutBetween(0, time.Minute))
	r.passes(t, settle+spread)
	r.wants(t, condition)
	r.cloud.says(always(http.StatusOK))
	r.passes(t, firstRetry)
	r.wants(t, condition, condition)
}

func TestAnEventThatHasArrivedIsNotSentAThirdTime(t *testing.T) {
	sent := testutil.ToFloat64(reports.WithLabelValues("event", "sent"))
	r := run(t, Kinds{Events: true}, boundToken)
	r.cloud.says(always(http.StatusConflict))
	r.Outage(cutBetween(0, time.Minute))
	r.passes(t, settle+spread)
	r.wants(t, lost, restored)
	eventually.True(t, "both are counted", func() bool { return testutil.ToFloat64(reports.WithLabelValues("event", "sent"))-sent == 2 })
}

func TestATokenOfNoPodReportsNothing(t *testing.T) {
	r := run(t, Kinds{Events: true, Condition: true}, tokenOf(`{"sub":"system:serviceaccount:shop:web"}`))
	r.Outage(cutBetween(0, time.Minute))
	r.passes(t, settle+spread)
	eventually.True(t, "a line for each kind", func() bool { return r.lines.Len() == 2 })
	for _, l := range r.lines.All() {
		if l.Level != zap.DebugLevel || strings.Contains(fmt.Sprint(l.ContextMap()), "signature") {
			t.Errorf("%v", l)
		}
	}
	r.wants(t)
}
