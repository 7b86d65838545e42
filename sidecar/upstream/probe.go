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
