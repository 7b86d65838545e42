package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"rockpool.dev/tests/eventually"
	"rockpool.dev/tests/fakeclock"
)

var versions = []struct {
	name string
	h2   bool
}{{"HTTP/1.1", false}, {"HTTP/2", true}}

func TestLinkFailsAndReturns(t *testing.T) {
	t.Parallel()
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
				t.Parallel()
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
				watch := r.send(http.MethodGet, "/watch")
				if _, err := io.ReadFull(watch.Body, make([]byte, 6)); err != nil {
					t.Fatal(err)
				}
				failed := map[string]chan error{"request": r.try("/slow")}
				if v.h2 || b.name == "is refused" { // without a PING, TCP finds out about a watch
					failed["watch"] = make(chan error, 1)
					go func() { _, err := watch.Body.Read(make([]byte, 1)); failed["watch"] <- err }()
				}
				b.fail(server.link)
				r.await(Offline)
				for name, failed := range failed {
					if err := eventually.Receive(t, "the "+name+" to fail", failed); !IsLinkError(err) || errors.Is(err, context.Canceled) {
						t.Errorf("the %s failed with %v", name, err)
					}
				}
				if r.Online() {
					t.Error("Online() is true")
				}
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
				// Refused while bytes came just before: suspect for a second.
				got := slices.DeleteFunc(r.states(), func(s State) bool { return s == Suspect })
				if diff := cmp.Diff([]State{Online, Offline, Online}, got); diff != "" {
					t.Errorf("changes (-want +got):\n%s", diff)
				}
				if r.Outage() <= 0 {
					t.Errorf("the outage took %s", r.Outage())
				}
			})
		}
	}
}

func TestStateChangesAreCountedAndLogged(t *testing.T) {
	server := newServer(t, true, respond("ok"))
	clock := fakeclock.New()
	options := fastOptions(server.asServer())
	options.Clock = clock
	options.RetryInterval = time.Hour
	r := newHarness(t, options)
	offline := testutil.ToFloat64(transitions.WithLabelValues("offline"))
	if r.State() != Suspect || !r.Online() || r.Outage() != 0 {
		t.Errorf("starts as %s, online: %t, outage: %s", r.State(), r.Online(), r.Outage())
	}
	r.text(http.MethodGet, "/")
	r.fail(0, errors.New("no"))
	if r.State() != Offline || testutil.ToFloat64(stateGauge) != 0 {
		t.Errorf("the state is %s", r.State())
	}
	clock.SetTime(clock.Now().Add(90 * time.Second)) // which also tries again
	r.await(Online)
	if r.Outage() != 90*time.Second || testutil.ToFloat64(stateGauge) != 3 {
		t.Errorf("the outage took %s", r.Outage())
	}
	if n := r.logs.FilterMessage("link state changed").Len(); n != 3 {
		t.Errorf("%d log lines for 3 changes", n)
	}
	if got := testutil.ToFloat64(transitions.WithLabelValues("offline")) - offline; got != 1 {
		t.Errorf("counted %v transitions to offline", got)
	}
	if reason := r.reasons[1]; !strings.Contains(reason, server.asServer().URL.String()+": no") {
		t.Errorf("the reason is %q", reason)
	}
}

func TestABlackHoleIsToldInTime(t *testing.T) {
	t.Parallel()
	for _, roundTrip := range []time.Duration{0, 300 * time.Millisecond} {
		for _, open := range []bool{true, false} {
			name := "at start, round trip " + roundTrip.String()
			if open {
				name = "over an open connection, round trip " + roundTrip.String()
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				server := newServer(t, true, respond("ok"))
				server.link.setRoundTrip(roundTrip)
				r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}}).run()
				if open {
					r.text(http.MethodGet, "/")
				}
				server.link.blackhole()
				began := time.Now()
				_, err := r.RoundTrip(r.request(http.MethodGet, "/", nil))
				if took := time.Since(began); !IsLinkError(err) || took > 3*time.Second {
					t.Errorf("failed after %s with %v", took, err)
				}
				if r.State() != Offline {
					t.Errorf("the state is %s", r.State())
				}
			})
		}
	}
}

// TestManyBlackHolesAreToldInTime: each of the addresses has been used, and looks alive.
func TestManyBlackHolesAreToldInTime(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		for _, roundTrip := range []time.Duration{40 * time.Millisecond, 300 * time.Millisecond} {
			t.Run(fmt.Sprintf("over %s, round trip %s", v.name, roundTrip), func(t *testing.T) {
				t.Parallel()
				clock := fakeclock.New()
				settings := Settings{Mode: RoundRobin}
				var links []*link
				for range 4 {
					server := newServer(t, v.h2, respond("ok"))
					links, settings.Servers = append(links, server.link), append(settings.Servers, server.asServer())
				}
				r := newHarness(t, Options{Settings: settings, Clock: clock})
				for range links {
					r.text(http.MethodGet, "/")
				}
				for i, link := range links {
					link.blackhole()
					a := r.address(i)
					a.mu.Lock()
					a.rtt = roundTrip
					a.mu.Unlock()
				}
				clock.Step(time.Minute) // since a byte came
				failed := r.try("/")
				took := elapsed(t, clock, "the request to fail", func() bool { return len(failed) > 0 })
				t.Logf("failed after %s", took)
				// The clock runs on while goroutines begin.
				if err := <-failed; !IsLinkError(err) || took > 3500*time.Millisecond || r.State() != Offline {
					t.Errorf("failed after %s, %s, with %v", took, r.State(), err)
				}
			})
		}
	}
}

func TestRequestsWhileOfflineAreNotTried(t *testing.T) {
	server := newServer(t, true, respond("ok"))
	options := fastOptions(server.asServer())
	options.Clock = fakeclock.New()
	r := newHarness(t, options)
	r.fail(0, errors.New("no"))
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

func TestNothingIsSentAfterRunReturns(t *testing.T) {
	server := newServer(t, true, respond("ok"))
	r := newHarness(t, fastOptions(server.asServer())).run()
	r.text(http.MethodGet, "/")
	r.stop()
	_, err := r.RoundTrip(r.request(http.MethodGet, "/", nil))
	if !IsLinkError(err) || !strings.Contains(err.Error(), errStopped.Error()) {
		t.Errorf("got %v", err)
	}
	if _, err := r.HTTP1().RoundTrip(r.request(http.MethodGet, "/", nil)); !IsLinkError(err) || !strings.Contains(err.Error(), errStopped.Error()) {
		t.Errorf("over HTTP/1.1: %v", err)
	}
}

func TestTheEndOfRunEndsWhatWaits(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			server := newServer(t, v.h2, nil)
			server.link.blackhole()
			r := newHarness(t, fastOptions(server.asServer())).run()
			waiting := r.try("/")
			eventually.True(t, "the dial", func() bool { return server.link.dials() == 1 })
			began := time.Now()
			r.stop()
			if err := eventually.Receive(t, "the request", waiting); !errors.Is(err, errStopped) || !IsLinkError(err) {
				t.Errorf("it ended with %v", err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("that took %s", took)
			}
		})
	}
}

func TestAClientThatLeavesSaysNothingOfTheLink(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for _, connected := range []bool{false, true} {
		r := newHarness(t, fastOptions(server.asServer()))
		if connected {
			r.text(http.MethodGet, "/readyz")
		} else {
			server.link.blackhole()
		}
		before := r.State()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := r.RoundTrip(r.request(http.MethodGet, "/", nil).WithContext(ctx))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || IsLinkError(err) || r.State() != before {
			t.Errorf("connected: %t: %v, %s", connected, err, r.State())
		}
		server.link.restore()
	}
}

// TestAFlappingLink has requests, watches and updates of the settings on a link that breaks in all
// ways. It must neither lock up nor stay broken.
func TestAFlappingLink(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			server, other := newServer(t, v.h2, answerName("1")), newServer(t, v.h2, answerName("2"))
			settings := fastOptions(server.asServer(), other.asServer()).Settings
			settings.Mode = RoundRobin
			settings.ConnectTimeout = 300 * time.Millisecond
			r := newHarness(t, Options{Settings: settings}).run()
			ctx, cancel := context.WithCancel(t.Context())
			var group sync.WaitGroup
			for i := range 8 {
				path := []string{"/", "/watch"}[i%2]
				group.Go(func() {
					for ctx.Err() == nil {
						request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://x"+path, http.NoBody)
						if err != nil {
							t.Error(err)
							return
						}
						response, err := r.RoundTrip(request)
						if err == nil {
							_, err = io.Copy(io.Discard, response.Body)
							_ = response.Body.Close()
						}
						if err != nil {
							r.Wake()
							time.Sleep(10 * time.Millisecond)
						}
					}
				})
			}
			for i := range 24 {
				broken := []*apiServer{server, other}[i%2].link
				[]func(){broken.refuse, broken.blackhole, broken.forgetConns}[i/2%3]()
				time.Sleep(time.Duration(i%5) * 60 * time.Millisecond)
				settings.ProbeTimeout++
				if err := r.Update(settings); err != nil {
					t.Error(err)
				}
				broken.restore()
			}
			cancel()
			group.Wait()
			eventually.True(t, "both to answer again", func() bool {
				return r.address(0).verdict() == Up && r.address(1).verdict() == Up && r.State() == Online
			})
			for range 4 {
				r.text(http.MethodGet, "/")
			}
		})
	}
}
