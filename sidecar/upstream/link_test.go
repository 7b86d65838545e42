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

func TestLinkFailsAndReturns(t *testing.T) {
	breaks := []struct {
		name string
		fail func(*link)
	}{
		{"is refused", (*link).refuse},
		{"is a black hole", (*link).blackhole},
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
				r := newHarness(t, fastOptions(server.asServer())).run()
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

				b.fail(server.link)
				r.await(Offline)
				for name, failed := range map[string]chan error{"watch": broken, "request": unanswered} {
					if err := eventually.Receive(t, "the "+name+" to fail", failed); !IsLinkError(err) || errors.Is(err, context.Canceled) {
						t.Errorf("the %s failed with %v", name, err)
					}
				}
				if r.Online() {
					t.Error("Online() is true")
				}
				eventually.True(t, "the gauge", func() bool { return testutil.ToFloat64(stateGauge) == 0 })
				_, err := r.RoundTrip(r.request(http.MethodGet, "/", nil))
				if !IsLinkError(err) || !strings.Contains(err.Error(), server.asServer().URL.String()) {
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

func TestBlackHoleIsDetectedInTimeWithDefaults(t *testing.T) {
	server := newServer(t, true, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}}).run()
	r.await(Online)
	server.link.blackhole()
	started := time.Now()
	_, err := r.RoundTrip(r.request(http.MethodGet, "/", nil))
	// It takes 2.5 seconds on an idle machine.
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
	server := newServer(t, true, respond("ok"))
	r := newHarness(t, fastOptions(server.asServer()))
	r.event(roundFailed, r.linkErrorText)
	r.event(roundFailed, r.linkErrorText)
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
		{"500 is not an answer", 500, Offline},
		{"502 is not an answer", 502, Offline},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			server := newServer(t, true, nil)
			server.ready = c.status
			newHarness(t, fastOptions(server.asServer())).run().await(c.want)
		})
	}
}

func TestProbesSendTheCurrentToken(t *testing.T) {
	server := newServer(t, true, nil)
	options := fastOptions(server.asServer())
	options.TokenFile = filepath.Join(t.TempDir(), "token")
	newHarness(t, options).run()
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

func TestProbesKeepTheirInterval(t *testing.T) {
	server := newServer(t, true, nil)
	clock := clocktesting.NewFakeClock(time.Now())
	options := Options{Settings: Settings{Servers: []Server{server.asServer()}}, Clock: clock}
	r := newHarness(t, options)
	r.jitter = func() float64 { return 0 }
	r.run()
	// paused waits until Run waits for its timer only.
	paused := func(probes int) {
		t.Helper()
		eventually.True(t, "the pause after a probe", func() bool { return server.probeCount() == probes && r.State() == Online && clock.Waiters() == 1 })
	}
	paused(1)
	clock.Step(DefaultProbeInterval - time.Millisecond)
	paused(1)
	clock.Step(time.Millisecond)
	paused(2)
}

func TestAWantedProbeWaitsForTheShortestInterval(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	r := newHarness(t, Options{Settings: Settings{Servers: []Server{{URL: &url.URL{Scheme: "https", Host: "a"}}}}, Clock: clock})
	r.probeNow()
	ended := make(chan bool, 1)
	started := clock.Now()
	go func() { ended <- r.pause(context.Background(), started, DefaultProbeInterval) }()
	eventually.True(t, "the wanted probe to be taken", func() bool { return len(r.probeWanted) == 0 && clock.Waiters() == 1 })
	clock.Step(minProbeInterval)
	if !eventually.Receive(t, "the end of the pause", ended) {
		t.Error("pause returned false")
	}
}

func TestNothingIsSentAfterRunReturns(t *testing.T) {
	server := newServer(t, true, respond("ok"))
	r := newHarness(t, fastOptions(server.asServer())).run()
	r.await(Online)
	r.stop()
	_, err := r.RoundTrip(r.request(http.MethodGet, "/", nil))
	if !IsLinkError(err) || !strings.Contains(err.Error(), errStopped.Error()) {
		t.Errorf("got %v", err)
	}
}

func TestAProbeTimesOut(t *testing.T) {
	server := newServer(t, true, nil)
	server.link.blackhole()
	clock := clocktesting.NewFakeClock(time.Now())
	r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}, Clock: clock})
	failed := make(chan error, 1)
	go func() { failed <- r.probe(context.Background(), r.plan.Load(), r.address(0)) }()
	eventually.True(t, "the probe's timer", clock.HasWaiters)
	clock.Step(DefaultProbeTimeout)
	if err := eventually.Receive(t, "the probe", failed); err == nil || err.Error() != "no answer to GET /readyz within 1s" {
		t.Errorf("got %v", err)
	}
}

func TestAProbeOfAnAddressThatIsDownHasTimeToConnect(t *testing.T) {
	server := newServer(t, true, nil)
	server.link.blackhole()
	clock := clocktesting.NewFakeClock(time.Now())
	r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}, Clock: clock})
	r.failProbes(0, DefaultFailureThreshold)
	ended := make(chan error, 1)
	go func() { ended <- r.probe(context.Background(), r.plan.Load(), r.address(0)) }()
	eventually.True(t, "the probe's connection", func() bool { return clock.HasWaiters() && server.link.dials() == 1 })
	clock.Step(2 * DefaultProbeTimeout)
	server.link.restore() // the bytes of the handshake arrive late
	if err := eventually.Receive(t, "the probe", ended); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestASilentAddressDoesNotDelayOneThatAnswers(t *testing.T) {
	for _, tt := range []struct {
		name          string
		onlyBlackHole bool // is down
	}{{"when all were down", false}, {"when only the silent one was down", true}} {
		t.Run(tt.name, func(t *testing.T) {
			blackHole, server := newServer(t, true, nil), newServer(t, true, nil)
			blackHole.link.blackhole()
			clock := clocktesting.NewFakeClock(time.Now()) // which stands still
			r := newHarness(t, Options{Settings: Settings{Servers: []Server{blackHole.asServer(), server.asServer()}}, Clock: clock})
			r.failProbes(0, DefaultFailureThreshold)
			if !tt.onlyBlackHole {
				r.failProbes(1, DefaultFailureThreshold)
			}
			r.event(roundFailed, r.linkErrorText)
			r.event(roundFailed, r.linkErrorText)
			want := []State{Recovering, Online, Online}
			for i, state := range want {
				r.round(context.Background())
				if r.State() != state {
					t.Errorf("round %d: %s, want %s", i, r.State(), state)
				}
			}
			if server.probeCount() != len(want) || blackHole.link.dials() != 1 {
				t.Errorf("%d probes and %d connections to the black hole, want %d and the first, whose probe continues", server.probeCount(), blackHole.link.dials(), len(want))
			}
			blackHole.link.restore()
			eventually.True(t, "the slow one", func() bool { return r.address(0).health(DefaultFailureThreshold) == healthy })
		})
	}
}

func TestALinkThatIsDownIsProbedMoreOften(t *testing.T) {
	r := newHarness(t, Options{Settings: Settings{Servers: []Server{{URL: &url.URL{Scheme: "https", Host: "a"}}}}})
	r.event(roundFailed, r.linkErrorText)
	for _, jitter := range []float64{0, 1} {
		r.jitter = func() float64 { return jitter }
		if up := r.interval(); up > DefaultProbeInterval || up < DefaultProbeInterval*3/4 {
			t.Errorf("%s between probes while it is up", up)
		}
	}
	r.event(roundFailed, r.linkErrorText)
	for _, jitter := range []float64{0, 1} {
		r.jitter = func() float64 { return jitter }
		if down := r.interval() + minProbeInterval; down >= DefaultProbeInterval {
			t.Errorf("it takes %s and four round trips until the link is online again, want less than %s", down, DefaultProbeInterval)
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
	r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}, Clock: clock})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := make(chan error, 1)
	request := r.request(http.MethodGet, "/", nil).WithContext(ctx)
	go func() { _, err := r.RoundTrip(request); failed <- err }()
	eventually.Receive(t, "the request", asked)
	clock.Step(DefaultProbeTimeout / 2)
	eventually.Receive(t, "a probe to be wanted", r.probeWanted)
	cancel()
	if err := eventually.Receive(t, "the request", failed); !errors.Is(err, context.Canceled) || IsLinkError(err) {
		t.Errorf("got %v", err)
	}
	if r.State() != Suspect || len(r.probeWanted) != 0 || r.address(0).health(2) != healthy {
		t.Errorf("the client's cancellation counts against the link: %s", r.State())
	}
}
