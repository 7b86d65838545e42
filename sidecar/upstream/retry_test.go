package upstream

import (
	"testing"
	"time"

	"rockpool.dev/tests/eventually"
	"rockpool.dev/tests/fakeclock"
)

func TestWaitsBeforeAnAttempt(t *testing.T) {
	const most = 30 * time.Second
	for _, c := range []struct {
		name     string
		failures int
		from, to time.Duration
	}{
		{"a random part of a second at first", 0, 0, time.Second},
		{"twice as long after a failure", 1, 0, 2 * time.Second},
		{"a random part of the longest", 5, 0, most},
		{"then always the longest", 6, most, most},
		{"also after many failures", 1000, most, most},
	} {
		shortest, longest := most, time.Duration(0)
		for range 1000 {
			wait := retryWait(c.failures, most)
			shortest, longest = min(shortest, wait), max(longest, wait)
		}
		if shortest < c.from || longest > c.to || shortest > c.from+c.to/10 || longest < c.to*9/10 {
			t.Errorf("%s: from %s to %s", c.name, shortest, longest)
		}
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
		clock.Step(25 * time.Millisecond)
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
			took := elapsed(t, clock, "a connection", func() bool {
				if c.asked {
					r.Wake()
				}
				return server.link.dials() > 0
			})
			if took > c.limit+time.Second { // the clock runs on while a real dial takes place
				t.Errorf("the return was used after %s", took)
			}
			eventually.True(t, "the return", func() bool { return r.State() == Online })
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

func TestRequestsThatCannotHastenTheNextAttemptWakeNobody(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, nil)
	server.link.refuse()
	clock := fakeclock.New()
	r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}, RetryInterval: time.Hour}, Clock: clock})
	eventually.Receive(t, "the first request", r.try("/"))
	a := r.address(0)
	for range 3 {
		eventually.True(t, "a request to hasten the next attempt", func() bool { r.Wake(); return a.hastened.Load() })
		eventually.True(t, "the wakes before that to be taken", func() bool { return len(a.woken) == 0 })
		failures := a.failureCount()
		for range 100 {
			r.Wake()
		}
		if a.hastened.Load() && len(a.woken) != 0 {
			t.Error("a further request has woken somebody")
		}
		elapsed(t, clock, "the next attempt", func() bool { return a.failureCount() > failures })
	}
}
