package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
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
		for _, roundTrip := range []time.Duration{0, 300 * time.Millisecond} {
			t.Run(fmt.Sprintf("over %s, round trip %s", v.name, roundTrip), func(t *testing.T) {
				t.Parallel()
				var servers []*apiServer
				settings := Settings{Mode: RoundRobin}
				for range 4 {
					server := newServer(t, v.h2, respond("ok"))
					server.link.setRoundTrip(roundTrip)
					servers, settings.Servers = append(servers, server), append(settings.Servers, server.asServer())
				}
				r := newHarness(t, Options{Settings: settings}).run()
				for range servers {
					r.text(http.MethodGet, "/")
				}
				for _, server := range servers {
					server.link.blackhole()
				}
				began := time.Now()
				_, err := r.RoundTrip(r.request(http.MethodGet, "/", nil))
				took := time.Since(began)
				t.Logf("failed after %s", took)
				if !IsLinkError(err) || took > 3*time.Second || r.State() != Offline {
					t.Errorf("failed after %s, %s, with %v", took, r.State(), err)
				}
			})
		}
	}
}

// TestSlowLinksWork: at start, after GOAWAY while a watch is quiet, and after a connection has ended.
func TestSlowLinksWork(t *testing.T) {
	t.Parallel()
	for _, roundTrip := range []time.Duration{400 * time.Millisecond, 1200 * time.Millisecond} {
		t.Run(roundTrip.String(), func(t *testing.T) {
			t.Parallel()
			event := make(chan struct{})
			server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/goaway":
					w.Header().Set("Connection", "close")
				case "/watch":
					w.(http.Flusher).Flush()
					<-event
				}
				_, _ = io.WriteString(w, "ok")
			})
			server.link.setRoundTrip(roundTrip)
			r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}}).run()
			began := time.Now()
			watch := r.send(http.MethodGet, "/watch")
			if took := time.Since(began); took > 4*roundTrip+time.Second {
				t.Errorf("the first answer took %s", took)
			}
			r.text(http.MethodGet, "/goaway")
			if got := r.text(http.MethodGet, "/"); got != "ok" || server.link.dials() != 2 {
				t.Errorf("after GOAWAY: %q, %d connections", got, server.link.dials())
			}
			close(event)
			if data, err := io.ReadAll(watch.Body); string(data) != "ok" || err != nil {
				t.Errorf("the watch: %q, %v", data, err)
			}
			for _, c := range r.address(0).all() {
				_ = c.Close()
			}
			if got := r.text(http.MethodGet, "/"); got != "ok" || server.link.dials() != 3 {
				t.Errorf("after the end of the connection: %q, %d connections", got, server.link.dials())
			}
			if diff := cmp.Diff([]State{Online}, r.states()); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheFirstRequestOverASatelliteIsAnswered(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, respond("ok"))
	server.link.setRoundTrip(2 * time.Second)
	r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}}).run()
	if got := r.text(http.MethodGet, "/"); got != "ok" || server.link.dials() != 1 {
		t.Errorf("%q over %d connections", got, server.link.dials())
	}
	if diff := cmp.Diff([]State{Online}, r.states()); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

// TestAThinLinkIsNotADeadOne: for four seconds all answers, also those of PINGs, wait in the queue.
func TestAThinLinkIsNotADeadOne(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			const size = 400_000
			server := newServer(t, v.h2, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/watch":
					_, _ = io.WriteString(w, "x")
					w.(http.Flusher).Flush()
					<-r.Context().Done()
				case "/list":
					_, _ = w.Write(make([]byte, size))
				}
			})
			r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}}).run()
			watch := r.send(http.MethodGet, "/watch")
			if _, err := watch.Body.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			cut := make(chan error, 1)
			go func() { _, err := watch.Body.Read(make([]byte, 1)); cut <- err }()
			server.link.setRate(size / 4)
			list := make(chan int, 1)
			go func() { list <- len(r.text(http.MethodGet, "/list")) }()
			time.Sleep(time.Second)
			small := r.try("/small")
			if got := eventually.Receive(t, "the list", list); got != size {
				t.Errorf("%d bytes", got)
			}
			if err := eventually.Receive(t, "the small request", small); err != nil {
				t.Errorf("the small request: %v", err)
			}
			if len(cut) != 0 {
				t.Errorf("the watch ended with %v", <-cut)
			}
			if diff := cmp.Diff([]State{Online}, r.states()); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSlowAnswersMayTakeTheirTime(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			server := newServer(t, v.h2, func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(2500 * time.Millisecond)
				_, _ = io.WriteString(w, "late")
			})
			r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}}).run()
			if got := r.text(http.MethodGet, "/slow"); got != "late" {
				t.Errorf("got %q", got)
			}
			if got := r.states(); len(got) != 1 {
				t.Errorf("states %v", got)
			}
		})
	}
}

func TestAQuietLinkCostsNothing(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		if r.URL.Path == "/watch" {
			<-r.Context().Done()
		}
	})
	options := fastOptions(server.asServer())
	options.KeepaliveInterval = 300 * time.Millisecond
	r := newHarness(t, options).run()
	settled := func() int {
		t.Helper()
		before := -1
		eventually.True(t, "a pause on the link", func() bool {
			now := server.link.forwarded()
			same := now == before
			before = now
			time.Sleep(50 * time.Millisecond)
			return same
		})
		return before
	}
	r.text(http.MethodGet, "/")
	before := settled()
	time.Sleep(800 * time.Millisecond)
	if more := server.link.forwarded() - before; more != 0 {
		t.Errorf("%d bytes without a stream", more)
	}
	watch := r.send(http.MethodGet, "/watch")
	before = server.link.forwarded()
	time.Sleep(800 * time.Millisecond)
	// Two PINGs of 17 bytes, their answers, and what TLS adds to each.
	if more := server.link.forwarded() - before; more < 68 || more > 400 {
		t.Errorf("%d bytes with a quiet watch", more)
	}
	_ = watch.Body.Close()
	if server.link.dials() != 1 || server.probeCount() != 0 {
		t.Errorf("%d connections, %d probes", server.link.dials(), server.probeCount())
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

// elapsed steps the clock until the condition holds, and returns how far that was.
func elapsed(t *testing.T, clock fakeclock.Clock, what string, condition func() bool) time.Duration {
	t.Helper()
	began := clock.Now()
	eventually.True(t, what, func() bool {
		if condition() {
			return true
		}
		clock.Step(50 * time.Millisecond)
		time.Sleep(time.Millisecond)
		return condition()
	})
	return clock.Since(began)
}

func TestAReturnIsUsedSoon(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		asked bool
		limit time.Duration
	}{
		{"while programs ask", true, wakeInterval},
		{"when nobody asks", false, DefaultRetryInterval},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := newServer(t, true, respond("ok"))
			server.link.refuse()
			clock := fakeclock.New()
			r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}, Clock: clock})
			if err := eventually.Receive(t, "the first request", r.try("/")); !IsLinkError(err) || r.State() != Offline {
				t.Fatalf("%v, %s", err, r.State())
			}
			failures := r.address(0).failureCount
			for range 7 {
				before := failures()
				if took := elapsed(t, clock, "another attempt", func() bool { return failures() > before }); took > DefaultRetryInterval+time.Second {
					t.Errorf("the next attempt came after %s", took)
				}
			}
			server.link.restore()
			took := elapsed(t, clock, "the return", func() bool {
				if c.asked {
					r.Wake()
				}
				return r.State() == Online
			})
			if took > c.limit+time.Second { // the clock runs on while a real dial takes place
				t.Errorf("the return was used after %s", took)
			}
			if c.asked && server.link.dials() != 1 {
				t.Errorf("%d connections", server.link.dials())
			}
		})
	}
}

func TestRequestsWakeAtMostOneAttemptInTwoSeconds(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, nil)
	server.link.refuse()
	clock := fakeclock.New()
	r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}, RetryInterval: time.Hour}, Clock: clock})
	eventually.Receive(t, "the first request", r.try("/"))
	began := clock.Now()
	elapsed(t, clock, "a minute", func() bool { r.Wake(); return clock.Since(began) >= time.Minute })
	failures := r.address(0).failureCount()
	// The first few come by themselves.
	if failures < 10 || failures > 36 {
		t.Errorf("%d attempts in a minute", failures)
	}
}

// TestTheLastResortIsNotAskedWhileAnotherIsUp also says when it is.
func TestTheLastResortIsNotAskedWhileAnotherIsUp(t *testing.T) {
	t.Parallel()
	first, last := newServer(t, true, answerName("1")), newServer(t, true, answerName("last"))
	entry := last.asServer()
	entry.LastResort = true
	last.link.blackhole()
	options := fastOptions(first.asServer(), entry)
	options.ProbeInterval = 5 * time.Millisecond
	options.ConnectTimeout = 200 * time.Millisecond
	r := newHarness(t, options).run()
	for range 30 {
		if got := r.text(http.MethodGet, "/"); got != "1" {
			t.Errorf("got %q", got)
		}
	}
	if last.link.dials() != 0 {
		t.Errorf("%d connections to the last resort", last.link.dials())
	}
	first.link.refuse()
	eventually.True(t, "the first to be down", func() bool {
		_, err := r.RoundTrip(r.request(http.MethodGet, "/", nil))
		return err != nil && r.address(0).verdict() == Down
	})
	r.await(Offline)
	last.link.restore()
	r.await(Online)
	if got := r.text(http.MethodGet, "/"); got != "last" {
		t.Errorf("got %q", got)
	}
	first.link.restore()
	eventually.True(t, "the first to be used again", func() bool { return r.text(http.MethodGet, "/") == "1" })
	for _, line := range r.logs.FilterField(r.address(1).field()).All() {
		if line.Level.String() != "info" {
			t.Errorf("the last resort is logged as %s: %s", line.Level, line.Message)
		}
	}
}

// Nobody asks after the first address has failed.
func TestTheLastResortIsTriedOnceTheOthersAreDown(t *testing.T) {
	t.Parallel()
	for name, works := range map[string]bool{"it answers": true, "it does not answer": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, last := newServer(t, true, answerName("1")), newServer(t, true, answerName("last"))
			entry := last.asServer()
			entry.LastResort = true
			want := Online
			if !works {
				last.link.refuse()
				want = Offline
			}
			r := newHarness(t, fastOptions(first.asServer(), entry)).run()
			if got := r.text(http.MethodGet, "/"); got != "1" {
				t.Errorf("got %q", got)
			}
			first.link.refuse()
			r.address(0).reach()
			eventually.True(t, "the last resort to be tried", func() bool {
				return r.State() == want && last.link.dials() > 0 == works
			})
		})
	}
}

func TestTheLastResortKeepsTheLinkSuspectUntilItFails(t *testing.T) {
	parse := func(host string, last bool) Server {
		return Server{URL: &url.URL{Scheme: "https", Host: host}, LastResort: last}
	}
	options := fastOptions(parse("a", false), parse("z", true))
	options.Clock = fakeclock.New()
	r := newHarness(t, options)
	for _, step := range []struct {
		address int
		err     error
		want    State
	}{{0, errors.New("no"), Suspect}, {1, errors.New("no"), Offline}, {0, nil, Online}, {0, errors.New("no"), Offline}} {
		if step.err == nil {
			r.address(step.address).heard.advance(r.clock.Now())
			r.address(step.address).dialed(nil)
		} else {
			r.fail(step.address, step.err)
		}
		if r.State() != step.want {
			t.Errorf("%+v: %s", step, r.State())
		}
	}
}

func TestAnInClusterAddressAloneWorks(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, respond("ok"))
	entry := server.asServer()
	entry.LastResort = true
	r := newHarness(t, fastOptions(entry)).run()
	if got := r.text(http.MethodGet, "/"); got != "ok" {
		t.Errorf("got %q", got)
	}
	server.link.refuse()
	r.try("/")
	r.await(Offline)
	server.link.restore()
	r.await(Online)
}

// TestAnAcknowledgedUploadIsNotSilent: the answer comes after the upload, which a thin link takes
// long to carry. Only the kernel hears of the peer meanwhile.
func TestAnAcknowledgedUploadIsNotSilent(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, respond("ok"))
	r := newHarness(t, fastOptions(server.asServer()))
	r.text(http.MethodGet, "/")
	var acknowledged atomic.Bool
	acknowledged.Store(true)
	var bytes atomic.Uint64
	r.address(0).segments = func(net.Conn) segments {
		if acknowledged.Load() {
			bytes.Add(1000)
		}
		return segments{progress: bytes.Load()} // the latest just now
	}
	server.link.blackhole()
	failed := make(chan error, 1)
	request := r.request(http.MethodPost, "/", strings.NewReader("x"))
	go func() { _, err := r.RoundTrip(request); failed <- err }()
	time.Sleep(3 * time.Second)
	if len(failed) != 0 {
		t.Fatalf("the request failed with %v", <-failed)
	}
	acknowledged.Store(false)
	if err := eventually.Receive(t, "the end of the request", failed); !errors.Is(err, errSilent) || !MayHaveArrived(err) {
		t.Errorf("got %v", err)
	}
}

// TestAnUploadMayTakeItsTimeBehindAProxy: a proxy on the way takes the whole body at once, and passes
// it on over a thin link. The kernel hears nothing meanwhile, and the PING is behind the body.
func TestAnUploadMayTakeItsTimeBehindAProxy(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n)
	})
	r := newHarness(t, fastOptions(server.asServer()))
	r.text(http.MethodGet, "/")
	server.link.setRate(8 << 10)
	for _, length := range []int64{24 << 10, -1} { // three seconds
		request := r.request(http.MethodPost, "/", io.NopCloser(strings.NewReader(strings.Repeat("x", 24<<10))))
		request.ContentLength = length
		response, err := r.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(response.Body); string(got) != fmt.Sprint(24<<10) || err != nil {
			t.Errorf("the API server got %s bytes, %v", got, err)
		}
		_ = response.Body.Close()
	}
	if diff := cmp.Diff([]State{Online}, r.states()); diff != "" || server.link.dials() != 1 {
		t.Errorf("%d connections; changes (-want +got):\n%s", server.link.dials(), diff)
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
