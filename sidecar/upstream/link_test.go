package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/tests/eventually"
)

var versions = []struct {
	name string
	h2   bool
}{{"HTTP/1.1", false}, {"HTTP/2", true}}

func TestLinkComesAndGoes(t *testing.T) {
	breaks := []struct {
		name string
		cut  func(*link)
	}{
		{"is refused", (*link).refuse},
		{"is a black hole", (*link).swallow},
	}
	for _, v := range versions {
		for _, b := range breaks {
			t.Run("a link over "+v.name+" that "+b.name, func(t *testing.T) {
				server := newServer(t, v.h2, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/slow" {
						<-r.Context().Done()
						return
					}
					_, _ = io.WriteString(w, "event\n")
					w.(http.Flusher).Flush()
					if r.URL.Path == "/watch" {
						<-r.Context().Done()
					}
				})
				r := build(t, fast(server.at())).run()
				r.await(Online)
				offline := testutil.ToFloat64(transitions.WithLabelValues("offline"))

				watch := r.send(http.MethodGet, "/watch")
				if _, err := io.ReadFull(watch.Body, make([]byte, 6)); err != nil {
					t.Fatal(err)
				}
				broken, unanswered := make(chan error, 1), make(chan error, 1)
				go func() { _, err := watch.Body.Read(make([]byte, 1)); broken <- err }()
				slow := r.request(http.MethodGet, "/slow", nil)
				go func() { _, err := r.RoundTrip(slow); unanswered <- err }()

				b.cut(server.link)
				r.await(Offline)
				for name, failed := range map[string]chan error{"watch": broken, "request": unanswered} {
					if err := eventually.Receive(t, "the "+name+" to fail", failed); !IsLinkError(err) || errors.Is(err, context.Canceled) {
						t.Errorf("the %s failed with %v", name, err)
					}
				}
				if r.Online() {
					t.Error("it looks online")
				}
				eventually.True(t, "the gauge", func() bool { return testutil.ToFloat64(stateGauge) == 0 })
				_, err := r.RoundTrip(r.request(http.MethodGet, "/", nil))
				if !IsLinkError(err) || !strings.Contains(err.Error(), server.at().URL.String()) {
					t.Errorf("a request while offline failed with %v", err)
				}
				waited := make(chan error, 1)
				go func() { waited <- r.WaitOnline(context.Background()) }()

				server.link.restore()
				if err := eventually.Receive(t, "WaitOnline", waited); err != nil {
					t.Error(err)
				}
				r.await(Online)
				if got := r.text(http.MethodGet, "/"); got != "event\n" {
					t.Errorf("got %q", got)
				}
				r.stop()
				want := []State{Online, Suspect, Offline, Recovering, Online}
				if diff := cmp.Diff(want, r.changes); diff != "" {
					t.Errorf("changes (-want +got):\n%s", diff)
				}
				if n := r.logs.FilterMessage("link state changed").Len(); n != len(want) {
					t.Errorf("%d log lines for %d changes", n, len(want))
				}
				if got := testutil.ToFloat64(transitions.WithLabelValues("offline")) - offline; got != 1 {
					t.Errorf("counted %v transitions to offline", got)
				}
			})
		}
	}
}

func TestBlackHoleIsOfflineSoonWithDefaults(t *testing.T) {
	server := newServer(t, true, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	r := build(t, Options{Settings: Settings{Servers: []Server{server.at()}}}).run()
	r.await(Online)
	server.link.swallow()
	started := time.Now()
	_, err := r.RoundTrip(r.request(http.MethodGet, "/", nil))
	// It takes 2.5 seconds on a machine with nothing else to do.
	if took := time.Since(started); !IsLinkError(err) || took > 4*time.Second {
		t.Errorf("failed after %s with %v", took, err)
	} else {
		t.Logf("offline after %s", took)
	}
	if r.State() != Offline {
		t.Errorf("the state is %s", r.State())
	}
}

func TestRequestsWhileOfflineAreNotTried(t *testing.T) {
	server := newServer(t, true, say("ok"))
	r := build(t, fast(server.at()))
	r.event(roundFailed, r.why)
	r.event(roundFailed, r.why)
	closed := &closing{Reader: strings.NewReader("x")}
	request := r.request(http.MethodPost, "/", closed)
	_, err := r.RoundTrip(request)
	if !IsLinkError(err) || server.link.dials() != 0 {
		t.Errorf("%v after %d connections", err, server.link.dials())
	}
	if !closed.closed.Load() {
		t.Error("the request's body was left open")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.WaitOnline(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitOnline returned %v", err)
	}
}

// closing is a body that cannot be read once it is closed.
type closing struct {
	io.Reader
	closed atomic.Bool
}

func (c *closing) Read(p []byte) (int, error) {
	if c.closed.Load() {
		return 0, errors.New("read after close")
	}
	return c.Reader.Read(p)
}

func (c *closing) Close() error { c.closed.Store(true); return nil }

func TestProbeAnswers(t *testing.T) {
	cases := []struct {
		name   string
		status int
		want   State
	}{
		{"200 is an answer", 200, Online},
		{"401 is an answer", 401, Online},
		{"403 is an answer", 403, Online},
		{"429 is an answer", 429, Online},
		{"500 is none", 500, Offline},
		{"502 is none", 502, Offline},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			server := newServer(t, true, nil)
			server.ready = c.status
			build(t, fast(server.at())).run().await(c.want)
		})
	}
}

func TestProbesCarryTheTokenOfTheMoment(t *testing.T) {
	server := newServer(t, true, nil)
	options := fast(server.at())
	options.TokenFile = filepath.Join(t.TempDir(), "token")
	build(t, options).run()
	last := func(want string) func() bool {
		return func() bool {
			server.mu.Lock()
			defer server.mu.Unlock()
			return len(server.probes) > 0 && server.probes[len(server.probes)-1] == want
		}
	}
	eventually.True(t, "a probe without a token", last(""))
	for _, token := range []string{"one", "two"} {
		if err := os.WriteFile(options.TokenFile, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		eventually.True(t, "a probe with token "+token, last("Bearer "+token))
	}
}

func TestProbesKeepTheirTime(t *testing.T) {
	server := newServer(t, true, nil)
	clock := clocktesting.NewFakeClock(time.Now())
	options := Options{Settings: Settings{Servers: []Server{server.at()}}, Clock: clock}
	r := build(t, options)
	r.jitter = func() float64 { return 0 }
	r.run()
	// paused waits until Run does nothing but wait for its timer.
	paused := func(probes int) {
		t.Helper()
		eventually.True(t, "the pause after a probe", func() bool { return server.probed() == probes && r.State() == Online && clock.Waiters() == 1 })
	}
	paused(1)
	clock.Step(DefaultProbeInterval - time.Millisecond)
	paused(1)
	clock.Step(time.Millisecond)
	paused(2)
}

func TestKickIsHonouredAfterTheShortestPause(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	r := build(t, Options{Settings: Settings{Servers: []Server{{URL: &url.URL{Scheme: "https", Host: "a"}}}}, Clock: clock})
	r.kick()
	ended := make(chan bool, 1)
	started := clock.Now()
	go func() { ended <- r.pause(context.Background(), started, DefaultProbeInterval) }()
	eventually.True(t, "the kick to be taken", func() bool { return len(r.kicked) == 0 && clock.Waiters() == 1 })
	clock.Step(confirmAfter)
	if !eventually.Receive(t, "the end of the pause", ended) {
		t.Error("it ended for good")
	}
}

func TestNothingIsSentAfterTheEnd(t *testing.T) {
	server := newServer(t, true, say("ok"))
	r := build(t, fast(server.at())).run()
	r.await(Online)
	r.stop()
	_, err := r.RoundTrip(r.request(http.MethodGet, "/", nil))
	if !IsLinkError(err) || !strings.Contains(err.Error(), errStopped.Error()) {
		t.Errorf("got %v", err)
	}
}

func TestProbeIsGivenUpAfterItsTimeout(t *testing.T) {
	server := newServer(t, true, nil)
	server.link.swallow()
	clock := clocktesting.NewFakeClock(time.Now())
	r := build(t, Options{Settings: Settings{Servers: []Server{server.at()}}, Clock: clock})
	failed := make(chan error, 1)
	go func() { failed <- r.probe(context.Background(), r.plan.Load(), r.candidate(0)) }()
	eventually.True(t, "the probe's timer", clock.HasWaiters)
	clock.Step(DefaultProbeTimeout)
	if err := eventually.Receive(t, "the probe", failed); err == nil || err.Error() != "no answer to GET /readyz within 1s" {
		t.Errorf("got %v", err)
	}
}

func TestProbesOfAnAddressThatIsDownHaveTimeToConnect(t *testing.T) {
	server := newServer(t, true, nil)
	server.link.swallow()
	clock := clocktesting.NewFakeClock(time.Now())
	r := build(t, Options{Settings: Settings{Servers: []Server{server.at()}}, Clock: clock})
	r.fails(0, DefaultFailureThreshold)
	ended := make(chan error, 1)
	go func() { ended <- r.probe(context.Background(), r.plan.Load(), r.candidate(0)) }()
	eventually.True(t, "the probe's connection", func() bool { return clock.HasWaiters() && server.link.dials() == 1 })
	clock.Step(2 * DefaultProbeTimeout)
	server.link.restore() // the bytes of the handshake arrive late, but they do
	if err := eventually.Receive(t, "the probe", ended); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestAnAddressThatAnswersIsNotKeptWaitingByOneThatDoesNot(t *testing.T) {
	for _, tt := range []struct {
		name  string
		known bool // that the hole is one
	}{{"when all were down", false}, {"when only the other one was", true}} {
		t.Run(tt.name, func(t *testing.T) {
			hole, server := newServer(t, true, nil), newServer(t, true, nil)
			hole.link.swallow()
			clock := clocktesting.NewFakeClock(time.Now()) // which stands still
			r := build(t, Options{Settings: Settings{Servers: []Server{hole.at(), server.at()}}, Clock: clock})
			r.fails(0, DefaultFailureThreshold)
			if !tt.known {
				r.fails(1, DefaultFailureThreshold)
			}
			r.event(roundFailed, r.why)
			r.event(roundFailed, r.why)
			want := []State{Recovering, Online, Online}
			for i, state := range want {
				r.round(context.Background())
				if r.State() != state {
					t.Errorf("round %d: %s, want %s", i, r.State(), state)
				}
			}
			if server.probed() != len(want) || hole.link.dials() != 1 {
				t.Errorf("%d probes and %d connections to the hole, want %d and the first, which goes on", server.probed(), hole.link.dials(), len(want))
			}
			hole.link.restore()
			eventually.True(t, "the slow one", func() bool { return r.candidate(0).health(DefaultFailureThreshold) == well })
		})
	}
}

func TestALinkThatIsDownIsProbedMoreOften(t *testing.T) {
	r := build(t, Options{Settings: Settings{Servers: []Server{{URL: &url.URL{Scheme: "https", Host: "a"}}}}})
	r.event(roundFailed, r.why)
	for _, jitter := range []float64{0, 1} {
		r.jitter = func() float64 { return jitter }
		if up := r.interval(); up > DefaultProbeInterval || up < DefaultProbeInterval*3/4 {
			t.Errorf("%s between probes while it is up", up)
		}
	}
	r.event(roundFailed, r.why)
	for _, jitter := range []float64{0, 1} {
		r.jitter = func() float64 { return jitter }
		if down := r.interval() + confirmAfter; down >= DefaultProbeInterval {
			t.Errorf("it takes %s and four round trips to know that the link is back, want less than %s", down, DefaultProbeInterval)
		}
	}
}

func TestSlowRequestAsksForAProbe(t *testing.T) {
	asked := make(chan struct{})
	server := newServer(t, true, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	clock := clocktesting.NewFakeClock(time.Now())
	r := build(t, Options{Settings: Settings{Servers: []Server{server.at()}}, Clock: clock})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := make(chan error, 1)
	request := r.request(http.MethodGet, "/", nil).WithContext(ctx)
	go func() { _, err := r.RoundTrip(request); failed <- err }()
	eventually.Receive(t, "the request", asked)
	clock.Step(DefaultProbeTimeout / 2)
	eventually.Receive(t, "the kick", r.kicked)
	cancel()
	if err := eventually.Receive(t, "the request", failed); !errors.Is(err, context.Canceled) || IsLinkError(err) {
		t.Errorf("got %v", err)
	}
	if r.State() != Suspect || len(r.kicked) != 0 || r.candidate(0).health(2) != well {
		t.Errorf("the client's cancellation was held against the link: %s", r.State())
	}
}
