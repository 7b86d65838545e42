package upstream

import (
	"math/rand/v2"
	"testing"
	"time"
)

// at gives times of a test, in ms after its beginning.
func at(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }

func TestVerdictOverSequencesOfEvidence(t *testing.T) {
	type step struct {
		name string
		ms   int
		do   func(*Evidence)
		want Verdict
	}
	nothing := func(*Evidence) {}
	heard := func(ms int) func(*Evidence) { return func(e *Evidence) { e.Heard = at(ms) } }
	connected := func(ms int) func(*Evidence) {
		return func(e *Evidence) { e.Usable, e.Heard, e.Failed = true, at(ms), time.Time{} }
	}
	closed := func(e *Evidence) { e.Usable, e.Open = false, false }
	full := func(e *Evidence) { e.Usable, e.Open = false, true } // or after a GOAWAY
	failed := func(ms int) func(*Evidence) {
		return func(e *Evidence) { e.Usable, e.Failed = false, at(ms) }
	}
	cases := []struct {
		name      string
		roundTrip time.Duration
		steps     []step
	}{
		{"the first contact", 0, []step{
			{"nothing was tried", 0, nothing, Unknown},
			{"nobody asks for an hour", 3600_000, nothing, Unknown},
			{"it is reached", 3600_100, connected(3600_100), Up},
		}},
		{"a first contact that fails, and its return", 0, []step{
			{"the first dial fails", 2500, failed(2500), Down},
			{"a second one too", 6000, failed(6000), Down},
			{"a third one succeeds", 9000, connected(9000), Up},
		}},
		{"a connection that ends for want of use", 40 * time.Millisecond, []step{
			{"it is reached", 0, connected(0), Up},
			{"it ends", 90_000, closed, Up},
			{"a day passes", 86_400_000, nothing, Up},
		}},
		{"a black hole", 40 * time.Millisecond, []step{
			{"it is reached", 0, connected(0), Up},
			{"the silent connection is closed", 1500, closed, Up},
			{"the dial fails", 2700, failed(2700), Down},
		}},
		{"a dial that fails while bytes come over an old connection", 40 * time.Millisecond, []step{
			{"it is reached", 0, connected(0), Up},
			{"it takes no new requests", 100, closed, Up},
			{"the dial fails", 500, failed(500), Unknown},
			{"a byte comes", 900, heard(900), Unknown},
			{"another comes", 1800, heard(1800), Unknown},
			{"none comes for 999 ms", 2799, nothing, Unknown},
			{"none comes for a second", 2800, nothing, Down},
			{"one comes again", 4000, heard(4000), Unknown},
		}},
		{"a watch that goes on after a GOAWAY, while no new connection can be made", 40 * time.Millisecond, []step{
			{"it is reached", 0, connected(0), Up},
			{"a GOAWAY comes", 1000, full, Up},
			{"a dial fails", 2100, failed(2100), Unknown},
			{"an event comes", 5000, heard(5000), Unknown},
			{"none comes for half a minute", 34_900, nothing, Unknown},
			{"a PING is answered", 35_000, heard(35_000), Unknown},
			{"another dial fails", 60_000, failed(60_000), Unknown},
			{"the last PING had no answer", 70_000, closed, Down},
		}},
		{"a connection whose streams are all taken, and no second one", 40 * time.Millisecond, []step{
			{"it is reached", 0, connected(0), Up},
			{"all its streams are taken", 100, full, Up},
			{"the dial of a second one fails", 1200, failed(1200), Unknown},
			{"an hour passes", 3600_000, nothing, Unknown},
			{"a stream ends", 3600_100, connected(3600_100), Up},
		}},
		{"a satellite's patience is longer", 2 * time.Second, []step{
			{"it is reached", 0, connected(0), Up},
			{"the dial fails", 5999, failed(5999), Unknown},
			{"no byte for three round trips", 6000, nothing, Down},
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e := Evidence{RoundTrip: c.roundTrip}
			for _, s := range c.steps {
				s.do(&e)
				if got := e.Verdict(at(s.ms)); got != s.want {
					t.Errorf("%s: %d, want %d", s.name, got, s.want)
				}
			}
		})
	}
}

// TestAnAddressIsNeverDownWithinItsPatience goes through random evidence.
func TestAnAddressIsNeverDownWithinItsPatience(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		now := at(random.IntN(1_000_000))
		past := func() time.Time {
			if random.IntN(4) == 0 {
				return time.Time{}
			}
			return now.Add(-time.Duration(random.Int64N(int64(10 * time.Second))))
		}
		e := Evidence{
			Usable: random.IntN(3) == 0, Open: random.IntN(3) == 0, Heard: past(), Failed: past(),
			RoundTrip: time.Duration(random.Int64N(int64(3 * time.Second))),
		}
		verdict := e.Verdict(now)
		silent := e.Heard.IsZero() || now.Sub(e.Heard) >= max(time.Second, 3*e.RoundTrip)
		if want := !e.Usable && !e.Open && !e.Failed.IsZero() && silent; (verdict == Down) != want {
			t.Fatalf("%+v at %s: %d", e, now, verdict)
		}
		if change := e.changes(now); !change.IsZero() {
			if before, after := e.Verdict(change.Add(-1)), e.Verdict(change); before != verdict || after == verdict {
				t.Fatalf("%+v changes from %d to %d at %s", e, before, after, change)
			}
		} else if later := e.Verdict(now.Add(time.Hour)); later != verdict {
			t.Fatalf("%+v becomes %d by time, unannounced", e, later)
		}
	}
}

func TestSilenceOfAConnection(t *testing.T) {
	const keepalive = 30 * time.Second
	never := time.Time{}
	cases := []struct {
		name string
		s    Silence
		now  int
		want action
		at   time.Time
	}{
		{"nobody waits and no stream is open", Silence{Heard: at(0), CanPing: true}, 999_000, doNothing, never},
		{"a quiet watch", Silence{Heard: at(0), Streams: true, CanPing: true}, 29_999, doNothing, at(30_000)},
		{"a watch that is quiet for the keepalive interval", Silence{Heard: at(0), Streams: true, CanPing: true}, 30_000, sendPing, never},
		{"a quiet watch over HTTP/1.1", Silence{Heard: at(0), Streams: true}, 999_000, doNothing, never},
		{"a request that waits a little", Silence{Heard: at(0), Waiting: at(1000), CanPing: true}, 1499, doNothing, at(1500)},
		{"a request that waits in silence", Silence{Heard: at(0), Waiting: at(1000), CanPing: true}, 1500, sendPing, never},
		{"a request that waits while bytes come", Silence{Heard: at(1400), Waiting: at(1000), CanPing: true}, 1500, doNothing, at(1900)},
		{"a request on a slow link waits for its round trip", Silence{Heard: at(0), Waiting: at(1000), CanPing: true, RoundTrip: 2 * time.Second}, 3999, doNothing, at(4000)},
		{"a request that waits over HTTP/1.1", Silence{Heard: at(0), Waiting: at(1000)}, 1500, askDial, never},
		{"a PING on its way", Silence{Heard: at(0), Waiting: at(1000), Pinged: at(1500), CanPing: true}, 2499, doNothing, at(2500)},
		{"a PING without an answer", Silence{Heard: at(0), Waiting: at(1000), Pinged: at(1500), CanPing: true}, 2500, closeConn, never},
		{"a PING without an answer, for which nobody waits any more", Silence{Heard: at(0), Pinged: at(1500), CanPing: true}, 2500, closeConn, never},
		{"a PING behind other bytes", Silence{Heard: at(9000), Waiting: at(1000), Pinged: at(1500), CanPing: true}, 9999, doNothing, at(10_000)},
		{"a PING on a slow link", Silence{Heard: at(0), Streams: true, Pinged: at(1500), CanPing: true, RoundTrip: 2 * time.Second}, 7499, doNothing, at(7500)},
		{"a PING behind an upload", Silence{Heard: at(0), Waiting: at(1000), Pinged: at(1500), Upload: 4 * time.Second, CanPing: true}, 6499, doNothing, at(6500)},
		{"a PING that no upload can hold up so long", Silence{Heard: at(0), Waiting: at(1000), Pinged: at(1500), Upload: 4 * time.Second, CanPing: true}, 6500, closeConn, never},
		{"a request that has waited for long, with its PINGs answered", Silence{Heard: at(5000), Waiting: at(1000), CanPing: true}, 6999, doNothing, at(7000)},
		{"a request that has waited for an hour", Silence{Heard: at(3600_000), Waiting: at(1000), CanPing: true}, 3605_000, sendPing, never},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got, next := c.s.next(at(c.now), keepalive); got != c.want || !next.Equal(c.at) {
				t.Errorf("%d, next look at %s; want %d, %s", got, next, c.want, c.at)
			}
		})
	}
}

// TestAConnectionIsNeverClosedWithinItsPatience goes through random silences.
func TestAConnectionIsNeverClosedWithinItsPatience(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 200_000 {
		now := at(random.IntN(1_000_000))
		past := func() time.Time {
			if random.IntN(3) == 0 {
				return time.Time{}
			}
			return now.Add(-time.Duration(random.Int64N(int64(40 * time.Second))))
		}
		s := Silence{
			Heard: now.Add(-time.Duration(random.Int64N(int64(40 * time.Second)))), Waiting: past(), Pinged: past(),
			Streams: random.IntN(2) == 0, CanPing: random.IntN(2) == 0,
			RoundTrip: time.Duration(random.Int64N(int64(3 * time.Second))),
			Upload:    time.Duration(random.Int64N(int64(5 * time.Second))),
		}
		todo, next := s.next(now, 30*time.Second)
		if todo == closeConn && (s.Pinged.IsZero() || now.Sub(latest(s.Heard, s.Pinged)) < patience(s.RoundTrip)+s.Upload) {
			t.Fatalf("%+v is closed at %s", s, now)
		}
		if !next.IsZero() && !next.After(now) {
			t.Fatalf("%+v: the next look is at %s, which is not after %s", s, next, now)
		}
	}
}

func TestBudgetOfADial(t *testing.T) {
	cases := []struct {
		name      string
		roundTrip time.Duration
		failures  int
		want      time.Duration
	}{
		{"at the first contact, as the setting says", 0, 0, 2500 * time.Millisecond},
		{"twice as long after a failure", 0, 1, 5 * time.Second},
		{"bounded after many", 0, 100, maxBudget},
		{"on a fast link, long enough for a lost SYN", 40 * time.Millisecond, 0, minBudget},
		{"three round trips on a slow one", 2 * time.Second, 0, 6 * time.Second},
		{"never less than three round trips", 9 * time.Second, 3, 27 * time.Second},
	}
	for _, c := range cases {
		if got := dialBudget(2500*time.Millisecond, c.roundTrip, c.failures); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestStateOfTheLink(t *testing.T) {
	cases := []struct {
		name     string
		verdicts []Verdict
		want     State
	}{
		{"one is up", []Verdict{Down, Unknown, Up}, Online},
		{"one is worth a try", []Verdict{Down, Unknown, Down}, Suspect},
		{"all are down", []Verdict{Down, Down}, Offline},
		{"at start", []Verdict{Unknown, Unknown}, Suspect},
	}
	for _, c := range cases {
		if got := judge(c.verdicts); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestSmoothedRoundTrip(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct{ before, measured, want time.Duration }{
		{0, 40 * ms, 40 * ms}, {40 * ms, 80 * ms, 50 * ms}, {4000 * ms, 40 * ms, 2020 * ms},
	} {
		if got := smooth(c.before, c.measured); got != c.want {
			t.Errorf("%s after %s: %s, want %s", c.measured, c.before, got, c.want)
		}
	}
}

// TestAnInstantKeepsTheMonotonicClock: the node's time may be set while the sidecar runs.
func TestAnInstantKeepsTheMonotonicClock(t *testing.T) {
	var i instant
	if !i.time().IsZero() {
		t.Errorf("before the first time: %s", i.time())
	}
	now := time.Now()
	i.advance(now)
	i.advance(now.Add(-time.Second))
	if got := i.time(); !got.Equal(now) || got.String() == got.Round(0).String() {
		t.Errorf("%s, want %s", got, now)
	}
}

func TestWhoHasWaitedForLongAsksSeldom(t *testing.T) {
	s := Silence{Heard: at(20_000), CanPing: true}
	for _, c := range []struct {
		name        string
		since, asks int
	}{
		{"a request that has just begun", 20_100, 20_600},
		{"one that has heard the answer to one PING", 19_000, 20_500},
		{"one that has waited for six seconds", 14_000, 23_000},
		{"one that has waited for long", 1000, 25_000},
	} {
		if got := s.asks(at(c.since)); !got.Equal(at(c.asks)) {
			t.Errorf("%s asks at %s, want %s", c.name, got, at(c.asks))
		}
	}
}
