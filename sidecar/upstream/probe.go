package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// confirmAfter is the shortest time from one round of probes to the next, so that a connection reset by
	// a moment's trouble is not confirmed by the same trouble.
	confirmAfter = 250 * time.Millisecond
	// probeJitter is the part of the interval by which probes come early, at random: all pods of a site would probe together
	// after a power cut.
	probeJitter = 0.25
	// maxProbeBody is as much of an answer as is read in order to use the connection again.
	maxProbeBody = 16 << 10
)

// Run probes the addresses until ctx ends, and then ends all that is under way. It returns nil. After that the
// Upstream is of no use.
func (u *Upstream) Run(ctx context.Context) error {
	defer u.stop()
	for {
		started := u.clock.Now()
		u.round(ctx)
		if ctx.Err() != nil || !u.pause(ctx, started, u.interval()) {
			return nil
		}
	}
}

// interval is the time from the start of a round to the start of the next. While the link is down it is shorter, because one answer
// is not enough to believe that it is back, and that is to be known within the interval that the user has set.
func (u *Upstream) interval() time.Duration {
	interval := float64(u.plan.Load().ProbeInterval)
	early := probeJitter * u.jitter()
	if !u.Online() {
		early += probeJitter
	}
	return time.Duration(interval * (1 - early))
}

// pause waits until interval after started, or until a probe is wanted, and reports whether to go on.
func (u *Upstream) pause(ctx context.Context, started time.Time, interval time.Duration) bool {
	kicked := u.kicked
	for {
		wait := interval - u.clock.Since(started)
		if wait <= 0 {
			return ctx.Err() == nil
		}
		timer := u.clock.NewTimer(wait)
		select {
		case <-timer.C():
			return true
		case <-kicked:
			timer.Stop()
			kicked, interval = nil, min(interval, confirmAfter)
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

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

// reload reads the CA files that have changed.
func (u *Upstream) reload(p *plan) {
	for _, t := range p.trusts {
		changed, err := t.reload()
		if changed {
			u.logger.Info("CA file read", zap.String("file", t.file))
		} else if _, never := t.roots(); err != nil && never == nil {
			u.logger.Debug("CA file cannot be read, going on with what was in it", zap.Error(err))
		}
		for _, c := range p.candidates {
			if changed && c.trust == t {
				c.renew()
			}
		}
	}
}

// probe asks one address whether there is an API server. Any answer below 500 will do: 401 and 403 come from one too.
func (u *Upstream) probe(ctx context.Context, p *plan, c *candidate) error {
	if _, err := c.trust.roots(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(nil) })()
	late := noAnswer{p.patience(c)}
	timer := u.clock.AfterFunc(late.after, func() { cancel(late) })
	defer timer.Stop()

	ready := *c.server.URL
	ready.Path, ready.RawPath = "/readyz", ""
	var used atomic.Pointer[conn]
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if raw := connOf(info.Conn); raw != nil {
				raw.quiet.Store(true)
				used.Store(raw)
			}
		},
	}), http.MethodGet, "https://probe/", nil)
	if err != nil {
		return err
	}
	request.URL = c.target(&ready)
	request.Host = request.URL.Host
	request.Header.Set("User-Agent", "rockpool-sidecar")
	if token := u.token(); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	connections, _ := c.current()
	response, err := connections.http2.RoundTrip(request)
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(response.Body, maxProbeBody))
		_ = response.Body.Close()
	}
	switch {
	case err != nil && errors.As(context.Cause(ctx), &noAnswer{}):
		if silent := used.Load(); silent != nil {
			c.givenUp(silent)
		}
		return context.Cause(ctx)
	case err != nil:
		return err
	case response.StatusCode >= http.StatusInternalServerError:
		return unavailable{response.Status}
	}
	return nil
}

// patience is how long a probe may take. While an address is not down a request may be waiting for the verdict, and there is a
// connection already. Once it is down nobody waits, and the connection has to be made: where a packet takes 300 ms
// each way, TCP, TLS and the answer take longer than the timeout together, and the address would never be back.
func (p *plan) patience(c *candidate) time.Duration {
	if c.health(p.FailureThreshold) != down {
		return p.ProbeTimeout
	}
	return 2*p.ConnectTimeout + p.ProbeTimeout // TCP, TLS, the answer
}

// token returns the probe's token, or "". It is not kept: kubelet replaces the file.
func (u *Upstream) token() string {
	if u.options.TokenFile == "" {
		return ""
	}
	data, err := os.ReadFile(u.options.TokenFile)
	if err != nil {
		u.logger.Debug("probing without a token", zap.Error(fmt.Errorf("read token file: %w", err)))
		return ""
	}
	return string(bytes.TrimSpace(data))
}

func (u *Upstream) stop() {
	u.updating.Lock()
	defer u.updating.Unlock()
	u.stopped = true
	p := u.plan.Load()
	p.end()
	for _, c := range slices.Concat(p.candidates, u.removed) {
		c.retire(errStopped)
	}
	u.probes.Wait()
}
