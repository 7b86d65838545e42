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
	// minProbeInterval is the shortest time from one round of probes to the next, so that one brief
	// disturbance of the link does not fail two rounds.
	minProbeInterval = 250 * time.Millisecond
	// probeJitter is the largest part of the interval by which probes come early, at random.
	// Otherwise all pods of a site would probe at the same moment after a power cut.
	probeJitter = 0.25
	// maxProbeBody is how many bytes of a response are read so that the connection can be reused.
	maxProbeBody = 16 << 10
)

// Run probes the addresses until ctx ends, then ends all requests in flight and returns nil. The
// Upstream cannot be used afterwards.
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

// interval returns the time from the start of a round to the start of the next. It is shorter while
// the link is down: by default Online needs two answers, and both must fit into the interval that
// the user has set.
func (u *Upstream) interval() time.Duration {
	interval := float64(u.plan.Load().ProbeInterval)
	early := probeJitter * u.jitter()
	if !u.Online() {
		early += probeJitter
	}
	return time.Duration(interval * (1 - early))
}

// pause waits until interval after started, or until a probe is wanted. It reports whether to go
// on.
func (u *Upstream) pause(ctx context.Context, started time.Time, interval time.Duration) bool {
	probeWanted := u.probeWanted
	for {
		wait := interval - u.clock.Since(started)
		if wait <= 0 {
			return ctx.Err() == nil
		}
		timer := u.clock.NewTimer(wait)
		select {
		case <-timer.C():
			return true
		case <-probeWanted:
			timer.Stop()
			probeWanted, interval = nil, min(interval, minProbeInterval)
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// reload reads the CA files again. Addresses whose file has changed get new connections.
func (u *Upstream) reload(p *plan) {
	for _, t := range p.trusts {
		changed, err := t.reload()
		if changed {
			u.logger.Info("CA file loaded", zap.String("file", t.file))
		} else if _, neverLoaded := t.roots(); err != nil && neverLoaded == nil {
			u.logger.Debug("cannot read the CA file; keeping the certificates loaded before", zap.Error(err))
		}
		for _, a := range p.addresses {
			if changed && a.trust == t {
				a.renewPool()
			}
		}
	}
}

// probe asks one address for /readyz. Any status below 500 counts as an answer: an API server also
// sends 401 and 403.
func (u *Upstream) probe(ctx context.Context, p *plan, a *address) error {
	if _, err := a.trust.roots(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(nil) })()
	late := noAnswer{p.probeTimeout(a)}
	timer := u.clock.AfterFunc(late.after, func() { cancel(late) })
	defer timer.Stop()

	ready := *a.server.URL
	ready.Path, ready.RawPath = "/readyz", ""
	var used atomic.Pointer[conn]
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if raw := connOf(info.Conn); raw != nil {
				raw.silent.Store(true)
				used.Store(raw)
			}
		},
	}), http.MethodGet, "https://probe/", nil)
	if err != nil {
		return err
	}
	request.URL = a.target(&ready)
	request.Host = request.URL.Host
	request.Header.Set("User-Agent", "rockpool-sidecar")
	if token := u.token(); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	connections, _ := a.current()
	response, err := connections.http2.RoundTrip(request)
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(response.Body, maxProbeBody))
		_ = response.Body.Close()
	}
	switch {
	case err != nil && errors.As(context.Cause(ctx), &noAnswer{}):
		if silent := used.Load(); silent != nil {
			a.probeTimedOut(silent)
		}
		return context.Cause(ctx)
	case err != nil:
		return err
	case response.StatusCode >= http.StatusInternalServerError:
		return unavailable{response.Status}
	}
	return nil
}

// probeTimeout returns how long a probe of an address may take. While the address is not down, a
// connection exists and a request may be waiting for the outcome. Once it is down, no request
// waits, and the probe has to connect first. Where a packet takes 300 ms each way, TCP, TLS and the
// response together take longer than ProbeTimeout: with it the address would stay down forever.
func (p *plan) probeTimeout(a *address) time.Duration {
	if a.health(p.FailureThreshold) != down {
		return p.ProbeTimeout
	}
	return 2*p.ConnectTimeout + p.ProbeTimeout // TCP, TLS, the response
}

// token returns the probe's token, or "". The file is read each time, because kubelet replaces it.
func (u *Upstream) token() string {
	if u.options.TokenFile == "" {
		return ""
	}
	data, err := os.ReadFile(u.options.TokenFile)
	if err != nil {
		u.logger.Debug("cannot read the token file; probing without a token",
			zap.Error(fmt.Errorf("read token file: %w", err)))
		return ""
	}
	return string(bytes.TrimSpace(data))
}

func (u *Upstream) stop() {
	u.updateMu.Lock()
	defer u.updateMu.Unlock()
	u.stopped = true
	p := u.plan.Load()
	p.end()
	for _, a := range slices.Concat(p.addresses, u.removed) {
		a.close(errStopped)
	}
	u.probes.Wait()
}
