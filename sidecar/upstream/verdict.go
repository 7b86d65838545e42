package upstream

import "time"

// Verdict says what the evidence of an address amounts to.
type Verdict int

// The verdicts, the best first.
const (
	// Up: the address was reached, and nothing has failed since.
	Up Verdict = iota
	// Unknown: the address was never reached, or an attempt to connect has failed although an older
	// connection is alive.
	Unknown
	// Down: no connection is open, an attempt to connect has failed, and nothing was heard for as
	// long as a round trip may take.
	Down
)

const (
	// askAfter is how long a request waits in silence before it asks for a PING.
	askAfter = 500 * time.Millisecond
	// longAsk is the longest time until a request that has waited for long asks for another PING.
	longAsk = 5 * time.Second
	// thinnestLink is the rate, in bytes per second, at which an upload may take its time, and
	// longestUpload is the longest such time.
	thinnestLink  = 8 << 10
	longestUpload = 10 * time.Second
	// minPatience is the shortest silence that ends a connection on which somebody waits.
	minPatience = time.Second
	// roundTrips is how many round trips that silence lasts on a slow link, and how many each step
	// of a dial may take: TCP, then TLS. With four, a black hole on a link of 300 ms would be told
	// only after three seconds.
	roundTrips = 3
	// minBudget is the least that each step may take. The kernel repeats a lost SYN after 1 s.
	minBudget = 1100 * time.Millisecond
	// maxBudget bounds the steps of a dial that is tried again and again.
	maxBudget = 20 * time.Second
)

// patience is how long a connection may be silent while somebody waits on it.
func patience(roundTrip time.Duration) time.Duration {
	return max(minPatience, roundTrips*roundTrip)
}

// Verdict judges an address. It never says Down within the patience of the last byte, nor before a
// connection is found to be dead: while bytes come over any connection, the link carries them,
// however slowly.
func (e Evidence) Verdict(now time.Time) Verdict {
	switch {
	case e.Usable:
		return Up
	case !e.Failed.IsZero():
		if e.Open || !e.Heard.IsZero() && now.Sub(e.Heard) < patience(e.RoundTrip) {
			return Unknown
		}
		return Down
	case e.Heard.IsZero():
		return Unknown
	}
	return Up
}

// changes is when the verdict becomes another by the passing of time alone. Zero: never.
func (e Evidence) changes(now time.Time) time.Time {
	if e.Failed.IsZero() || e.Open || e.Verdict(now) != Unknown {
		return time.Time{}
	}
	return e.Heard.Add(patience(e.RoundTrip))
}

// action is what a connection needs.
type action int

const (
	doNothing action = iota
	sendPing
	askDial   // HTTP/1.1 has no PING: a new connection shows whether the address answers
	closeConn // nobody answers on it
)

// http1Interval is how often a request that waits over HTTP/1.1 asks for that.
const http1Interval = 5 * time.Second

// next judges a connection: what it needs now, and when to look at it again. Zero: when something
// changes. A connection ends only for its own silence, and only when a PING found no answer.
func (s Silence) next(now time.Time, keepalive time.Duration) (action, time.Time) {
	if s.Waiting.IsZero() && s.Pinged.IsZero() && (!s.Streams || !s.CanPing) {
		return doNothing, time.Time{}
	}
	if !s.Pinged.IsZero() {
		end := latest(s.Heard, s.Pinged).Add(patience(s.RoundTrip) + s.Upload)
		if now.Before(end) {
			return doNothing, end
		}
		return closeConn, time.Time{}
	}
	due := s.Heard.Add(keepalive)
	if !s.Waiting.IsZero() {
		due = s.asks(s.Waiting)
	}
	switch {
	case now.Before(due):
		return doNothing, due
	case !s.CanPing:
		return askDial, time.Time{}
	}
	return sendPing, time.Time{}
}

// asks is when somebody who waits since then asks for a PING. Before one and a half round trips
// nothing can have come. Who has waited for long, with all PINGs answered, waits for the API server
// and not for the link.
func (s Silence) asks(since time.Time) time.Time {
	answered := min(s.Heard.Sub(since)/2, longAsk)
	return latest(s.Heard, since).Add(max(askAfter, s.RoundTrip*3/2, answered))
}

// dialBudget is how long a step of a dial may take without an answer: at the first contact as long
// as the setting says, then by the measured round trip, and longer after each failure.
func dialBudget(setting, roundTrip time.Duration, failures int) time.Duration {
	budget := setting
	if roundTrip > 0 {
		budget = max(minBudget, roundTrips*roundTrip)
	}
	return min(budget<<min(failures, 5), max(budget, maxBudget))
}

// judge folds the verdicts of all addresses into the state of the link.
func judge(verdicts []Verdict) State {
	best := Down
	for _, v := range verdicts {
		best = min(best, v)
	}
	switch best {
	case Up:
		return Online
	case Unknown:
		return Suspect
	}
	return Offline
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
