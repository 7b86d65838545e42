package meter

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/upstream"
)

// infoKey has a program's request in the context.
type infoKey struct{}

func infoOf(ctx context.Context) *request.Info {
	if info, ok := ctx.Value(infoKey{}).(*request.Info); ok {
		return info
	}
	return &request.Info{}
}

func get(path string) *request.Info {
	info := request.Parse(httptest.NewRequest(http.MethodGet, path, nil))
	return &info
}

func TestRequestsAreCountedByWhoHasAnswered(t *testing.T) {
	m := New(infoOf)
	count := func(path string, status int, source Source, duration, waited time.Duration) {
		ctx := m.With(t.Context())
		waitedOf(ctx).Store(int64(waited))
		m.Request(Exchange{Context: ctx, Method: http.MethodGet, Info: get(path), Status: status, Source: source, Duration: duration})
	}
	count("/api/v1/namespaces/shop/configmaps/a", 200, Upstream, 30*time.Millisecond, 20*time.Millisecond)
	count("/api/v1/namespaces/shop/configmaps/b", 200, Upstream, 30*time.Millisecond, 20*time.Millisecond)
	count("/apis/apps/v1/deployments/", 503, Refused, time.Millisecond, 0)
	count("/apis/apps/v1", 200, Cache, time.Millisecond, 0)
	want := `
		# HELP rockpool_requests_total Requests of the pod's programs that have ended, by verb, resource and status code, and by who has answered: upstream (the API server), cache, accepted (a write that is delivered later), refused (an error of the sidecar). Code 0: the program left before.
		# TYPE rockpool_requests_total counter
		rockpool_requests_total{code="200",resource="configmaps",source="upstream",verb="get"} 2
		rockpool_requests_total{code="503",resource="deployments.apps",source="refused",verb="list"} 1
		rockpool_requests_total{code="200",resource="/apis",source="cache",verb="get"} 1
	`
	if err := testutil.CollectAndCompare(m, strings.NewReader(want), "rockpool_requests_total"); err != nil {
		t.Error(err)
	}
	for part, want := range map[string]float64{"upstream": .04, "own": .021} {
		var out dto.Metric
		if err := m.seconds.WithLabelValues("get", part).(prometheus.Metric).Write(&out); err != nil || math.Abs(out.Histogram.GetSampleSum()-want) > 1e-9 {
			t.Errorf("%s: %v s (%v), want %v", part, out.Histogram.GetSampleSum(), err, want)
		}
	}
}

func TestLabelsThatProgramsChooseAreBounded(t *testing.T) {
	m := New(infoOf)
	for i := range 3000 {
		r := httptest.NewRequest(http.MethodGet, fmt.Sprintf("/apis/g%d.example.com/v1/things%d", i, i), nil)
		r.Method = fmt.Sprintf("X%d", i)
		r.Header.Set("User-Agent", fmt.Sprintf("agent%d\xff/1", i))
		info := request.Parse(r)
		m.Request(Exchange{Context: m.With(t.Context()), Method: r.Method, Info: &info, Status: 200 + i%400, Source: Upstream})
		m.Attempt(r.WithContext(context.WithValue(t.Context(), infoKey{}, &info))).Body(1, 1)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if n := len(f.Metric); n > 4000 {
			t.Errorf("%s has %d series", f.GetName(), n)
		}
	}
	if got := m.agent(strings.Repeat("long", 100)); got != other {
		t.Errorf("a long name is %q", got)
	}
}

// counted is a listener that counts what its connections carry.
type counted struct {
	net.Listener
	bytes atomic.Int64
}

type countedConn struct {
	net.Conn
	bytes *atomic.Int64
}

func (l *counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countedConn{c, &l.bytes}, err
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

func (c countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// The bytes by User-Agent, verb and resource, with those of the protocol, are what the link has
// carried, within 2 %.
func TestTheBytesAreThoseOfTheLink(t *testing.T) {
	random := make([]byte, 300<<10)
	_, _ = rand.Read(random)
	text := strings.Repeat(`{"metadata":{"name":"a"}}`, 40000)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch {
		case strings.HasSuffix(r.URL.Path, "/secrets"):
			_, _ = w.Write(random)
		case r.Header.Get("Accept-Encoding") == "gzip":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, text)
			_ = z.Close()
		default:
			t.Errorf("%s is not asked for compressed", r.URL)
		}
	}))
	link := &counted{Listener: server.Listener}
	server.Listener, server.EnableHTTP2 = link, true
	server.StartTLS()
	defer server.Close()
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	m := New(infoOf)
	u, err := upstream.New(upstream.Options{
		Settings: upstream.Settings{Servers: []upstream.Server{{URL: at}}, ConnectTimeout: 5 * time.Second, RetryInterval: time.Second, ProbeInterval: time.Second, ProbeTimeout: time.Second},
		CAFile:   ca, Meter: m,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- u.Run(ctx) }()
	defer func() { stop(); <-ended }()

	var waited time.Duration
	send := func(method, path, agent string, body []byte) {
		t.Helper()
		r := httptest.NewRequest(method, path, bytes.NewReader(body))
		r.Header.Set("User-Agent", agent)
		info := request.Parse(r)
		ctx := m.With(context.WithValue(t.Context(), infoKey{}, &info))
		resp, err := u.RoundTrip(r.WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || len(got) != len(random) && string(got) != text {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		waited += time.Duration(waitedOf(ctx).Load())
	}
	send(http.MethodGet, "/api/v1/secrets", "python/3.1", nil)
	send(http.MethodGet, "/api/v1/pods", "node/1", nil)
	send(http.MethodPost, "/api/v1/namespaces/shop/secrets", "node/1", random)
	for range 20 { // most of these bytes are headers
		send(http.MethodGet, "/api/v1/pods", "node/1", nil)
	}

	sums := map[string]float64{}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	for range 2 { // the bytes of no body are late by one scrape
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		clear(sums)
		for _, f := range families {
			if f.GetName() != "rockpool_link_bytes_total" {
				continue
			}
			for _, metric := range f.Metric {
				var names []string
				for _, l := range metric.Label {
					names = append(names, l.GetValue())
				}
				sums["all"] += metric.Counter.GetValue()
				sums[strings.Join(names, " ")] += metric.Counter.GetValue() // agent direction resource verb
			}
		}
	}
	if carried := float64(link.bytes.Load()); math.Abs(sums["all"]-carried) > .02*carried {
		t.Errorf("%v bytes are counted, %v were carried: %v", sums["all"], carried, sums)
	}
	for labels, want := range map[string]float64{
		"python received secrets list": float64(len(random)), "node received secrets create": float64(len(random)), "node sent secrets create": float64(len(random)),
	} {
		if sums[labels] != want {
			t.Errorf("%s: %v bytes, want %v", labels, sums[labels], want)
		}
	}
	if n := sums["node received pods list"]; n == 0 || n > float64(21*len(text)/10) {
		t.Errorf("%v bytes of compressed lists, of %d", n, 21*len(text))
	}
	if waited == 0 {
		t.Error("nobody has waited for the API server")
	}
}

func TestBytesOfNoBodyNeverGoDown(t *testing.T) {
	var r rest
	for i, step := range []struct{ difference, want int64 }{{100, 0}, {5000, 100}, {120, 120}, {90, 120}, {130, 120}, {140, 130}} {
		if got := r.next(step.difference); got != step.want {
			t.Errorf("scrape %d: %d, want %d", i, got, step.want)
		}
	}
}

func TestKindsOfRequestsAreRememberedUpToABound(t *testing.T) {
	m := New(infoOf)
	for i := range 3000 {
		path := fmt.Sprintf("/apis/example.com/v1/things%d/a", i)
		if i == 0 {
			path = "/apis/example.com/v1/" + strings.Repeat("long", 100) + "/a"
		}
		for range 2 {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			m.Request(Exchange{Context: m.With(t.Context()), Method: r.Method, Info: get(path), Status: 200, Source: Upstream})
			m.Attempt(r.WithContext(context.WithValue(t.Context(), infoKey{}, get(path)))).Body(1, 0)
		}
	}
	if requests, attempts := len(m.known.requests.values), len(m.known.attempts.values); requests != maxKnown || attempts != maxKnown {
		t.Errorf("%d kinds of requests and %d of attempts are remembered, want %d", requests, attempts, maxKnown)
	}
	for k := range m.known.requests.values {
		if len(k.resource) > maxKind {
			t.Errorf("a name of %d bytes is remembered", len(k.resource))
		}
	}
	if n := testutil.ToFloat64(m.requests.WithLabelValues("get", "things7.example.com", "200", "upstream")); n != 2 {
		t.Errorf("counted %v requests, want 2", n)
	}
	if n := m.link.of(linkLabels{own, "get", "things7.example.com"}).received.Load() + m.link.of(linkLabels{"none", "get", "things7.example.com"}).received.Load(); n != 2 {
		t.Errorf("counted %d bytes, want 2", n)
	}
}
