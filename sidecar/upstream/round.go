package upstream

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// round probes the addresses, all at once, and draws the conclusions. It waits for those that are not known to be down, and when all
// are for the first answer. An address that is down may take long to connect to: its probe goes on behind the round, and
// the next rounds leave it alone.
func (u *Upstream) round(ctx context.Context) {
	p := u.plan.Load()
	u.reload(p)
	r := &round{upstream: u, plan: p, started: u.clock.Now(), outcomes: make(chan outcome, len(p.candidates))}
	waitFor := p.notDown()
	if len(waitFor) == 0 {
		waitFor, r.untilFirst = p.candidates, true
	}
	awaited := 0
	for _, c := range p.candidates {
		if !c.probing.CompareAndSwap(false, true) {
			continue
		}
		report := slices.Contains(waitFor, c)
		if report {
			awaited++
		}
		u.probes.Go(func() { r.probe(ctx, c, report) })
	}
	if awaited == 0 { // the probes of a plan that was replaced have not quite ended
		u.kick()
		return
	}
	r.conclude(ctx, awaited)
}

// round is one on its way.
type round struct {
	upstream   *Upstream
	plan       *plan
	started    time.Time
	untilFirst bool         // answer, not until all awaited have come
	outcomes   chan outcome // of those that are awaited; has room for all
	answered   sync.Once
	any        atomic.Bool // has answered
}

type outcome struct {
	candidate *candidate
	err       error
}

// probe probes one address. An answer is told at once, the first as an event. A failure is the round's to tell, if it waits for it.
func (r *round) probe(ctx context.Context, c *candidate, report bool) {
	err := r.upstream.probe(ctx, r.plan, c)
	defer func() {
		c.probing.Store(false)
		if report {
			r.outcomes <- outcome{c, err}
		}
	}()
	if ctx.Err() != nil || r.plan.ctx.Err() != nil {
		return // it says nothing
	}
	c.probed(err)
	if err == nil {
		r.answered.Do(func() {
			r.upstream.proven.Store(r.started.UnixNano())
			r.upstream.event(roundSucceeded, func() string { return c.name + " answers" })
			r.any.Store(true)
		})
		return
	}
	// The next probe must not depend on a connection that may be dead for reasons of its own.
	c.renew()
	if !report {
		c.severAll(err) // a request may have chosen it just before it was found to be down
	}
}

// conclude waits for so many outcomes and draws the conclusions.
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
	if !r.any.Load() {
		u.event(roundFailed, u.why)
	}
	// After the event: what fails now must find the state as it is.
	for _, o := range failed {
		if o.candidate.health(r.plan.FailureThreshold) == down {
			o.candidate.severAll(o.err)
		} else {
			u.kick() // a request may be waiting for the verdict
		}
	}
}

// notDown gives the addresses that are not known to be down.
func (p *plan) notDown() (list []*candidate) {
	for _, c := range p.candidates {
		if c.health(p.FailureThreshold) != down {
			list = append(list, c)
		}
	}
	return list
}
