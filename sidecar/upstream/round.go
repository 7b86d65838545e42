package upstream

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// round probes all addresses in parallel and updates the state. It waits for the addresses that are
// not down; if all are down, for the first answer. Connecting to an address that is down may take
// long: its probe continues after the round, and the next rounds skip that address meanwhile.
func (u *Upstream) round(ctx context.Context) {
	p := u.plan.Load()
	u.reload(p)
	r := &round{upstream: u, plan: p, started: u.clock.Now(), outcomes: make(chan outcome, len(p.addresses))}
	waitFor := p.usable()
	if len(waitFor) == 0 {
		waitFor, r.untilFirst = p.addresses, true
	}
	awaited := 0
	for _, a := range p.addresses {
		if !a.probing.CompareAndSwap(false, true) {
			continue
		}
		report := slices.Contains(waitFor, a)
		if report {
			awaited++
		}
		u.probes.Go(func() { r.probe(ctx, a, report) })
	}
	if awaited == 0 { // the probes of a replaced plan have not ended yet
		u.probeNow()
		return
	}
	r.conclude(ctx, awaited)
}

// round is a round of probes in flight.
type round struct {
	upstream    *Upstream
	plan        *plan
	started     time.Time
	untilFirst  bool         // stop waiting at the first answer
	outcomes    chan outcome // of the awaited probes; has room for all
	firstAnswer sync.Once
	anyAnswered atomic.Bool
}

type outcome struct {
	address *address
	err     error
}

// probe probes one address. An answer is recorded at once, and the first one is an event. A failure
// becomes an event in conclude, if the round waits for this address.
func (r *round) probe(ctx context.Context, a *address, report bool) {
	err := r.upstream.probe(ctx, r.plan, a)
	defer func() {
		a.probing.Store(false)
		if report {
			r.outcomes <- outcome{a, err}
		}
	}()
	if ctx.Err() != nil || r.plan.ctx.Err() != nil {
		return // a probe that was cancelled proves nothing
	}
	a.recordProbe(err)
	if err == nil {
		r.firstAnswer.Do(func() {
			r.upstream.lastAnswered.Store(r.started.UnixNano())
			r.upstream.event(roundSucceeded, func() string { return a.name + " answers" })
			r.anyAnswered.Store(true)
		})
		return
	}
	// The next probe must not depend on this connection, which may be dead while the link is up.
	a.renewPool()
	if !report {
		a.interruptAll(err) // a request may have chosen the address just before it went down
	}
}

// conclude waits for the given number of outcomes and updates the state.
func (r *round) conclude(ctx context.Context, awaited int) {
	u := r.upstream
	var failed []outcome
	for range awaited {
		o := <-r.outcomes
		if o.err == nil && r.untilFirst {
			return
		}
		if o.err != nil {
			failed = append(failed, o)
		}
	}
	if ctx.Err() != nil || r.plan.ctx.Err() != nil {
		return
	}
	if !r.anyAnswered.Load() {
		u.event(roundFailed, u.linkErrorText)
	}
	// After the event: requests that fail now must see the new state.
	for _, o := range failed {
		if o.address.health(r.plan.FailureThreshold) == down {
			o.address.interruptAll(o.err)
		} else {
			u.probeNow() // a request may be waiting for the outcome
		}
	}
}

// usable returns the addresses that are not down.
func (p *plan) usable() (list []*address) {
	for _, a := range p.addresses {
		if a.health(p.FailureThreshold) != down {
			list = append(list, a)
		}
	}
	return list
}
