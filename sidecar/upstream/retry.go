package upstream

import (
	"math/rand/v2"
	"time"
)

const (
	// firstRetry is the longest wait before an address that is down is tried again, see retryWait.
	firstRetry = time.Second
	// wakeInterval is the shortest time between two attempts that requests wake.
	wakeInterval = 2 * time.Second
)

// retryWait is how long to wait after some failures before an address that is down is tried again: a
// random part of a time that doubles up to most, once a random part of most, and then most. Many
// sidecars come back at the same time. By then their attempts are spread evenly over most, and a
// steady interval keeps them so, with half as many attempts as more random waits would take.
func retryWait(failures int, most time.Duration) time.Duration {
	longest := firstRetry << min(failures, 12)
	if longest >= 2*most {
		return most
	}
	return rand.N(min(longest, most)) //nolint:gosec // no secret
}

// retry tries again to connect while that fails and no connection takes requests, until the address
// is closed.
func (a *address) retry() {
	var due time.Time // of the next attempt; zero: none is needed
	for failures := 0; a.ctx.Err() == nil; {
		now := a.clock.Now()
		a.mu.Lock()
		most, tried := a.settings.RetryInterval, a.tried
		a.mu.Unlock()
		e := a.evidence()
		switch {
		case e.Usable || !a.wanted() || (e.Failed.IsZero() && (!e.Heard.IsZero() || !a.isOnlyHope())):
			due, failures = time.Time{}, 0
			a.hastened.Store(false)
		case due.IsZero():
			due = latest(now, tried.Add(retryWait(failures, most)))
		}
		var next <-chan time.Time
		stop := func() bool { return true }
		if !due.IsZero() {
			timer := a.clock.NewTimer(due.Sub(now))
			next, stop = timer.C(), timer.Stop
		}
		select {
		case <-next:
			failures++
			due = time.Time{}
			a.hastened.Store(false)
			a.tryAgain()
			a.hastened.Store(false)
		case <-a.woken:
			if soon := latest(now, tried.Add(a.wakeInterval())); soon.Before(due) {
				due = soon
			}
			a.hastened.Store(!due.IsZero())
		case <-a.look:
		case <-a.ctx.Done():
		}
		stop()
	}
}

// tryAgain dials, and waits for the end of that. A dial that is on its way already, and whoever wakes
// the address meanwhile, have one more attempt begin.
func (a *address) tryAgain() {
	a.mu.Lock()
	if a.closeReason != nil {
		a.mu.Unlock()
		return
	}
	joined := a.dialing != nil
	d := a.connect()
	a.mu.Unlock()
	if joined {
		a.hurry(d)
	}
	var soon <-chan time.Time
	for {
		select {
		case <-d.done:
			return
		case <-a.woken:
			if soon == nil {
				a.mu.Lock()
				soon = a.clock.After(a.wakeInterval() - a.clock.Since(a.tried))
				a.mu.Unlock()
				a.hastened.Store(true)
			}
		case <-soon:
			soon = nil
			a.hastened.Store(false)
			a.hurry(d)
		}
	}
}

// hurry has a dial begin one more attempt.
func (a *address) hurry(d *dialing) {
	a.mu.Lock()
	a.tried = a.clock.Now()
	a.mu.Unlock()
	select {
	case d.again <- struct{}{}:
	default:
	}
}

// wake has the address tried again soon if it is down.
func (a *address) wake() {
	if a.hastened.Load() {
		return // each request of an outage comes here
	}
	select {
	case a.woken <- struct{}{}:
	default:
	}
}

// reconsider has the retries look at the evidence again.
func (a *address) reconsider() {
	select {
	case a.look <- struct{}{}:
	default:
	}
}
