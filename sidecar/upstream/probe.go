package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
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
		if ctx.Err() != nil {
			return nil
		}
		interval := float64(u.options.ProbeInterval)
		interval -= interval * probeJitter * u.jitter()
		if !u.pause(ctx, started, time.Duration(interval)) {
			return nil
		}
	}
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

// round probes all addresses at once and draws the conclusions.
func (u *Upstream) round(ctx context.Context) {
	started := u.clock.Now()
	if changed, err := u.trust.reload(); changed {
		u.logger.Info("CA file read", zap.String("file", u.options.CAFile))
		u.renewAll()
	} else if _, never := u.trust.roots(); err != nil && never == nil {
		u.logger.Debug("CA file cannot be read, going on with what was in it", zap.Error(err))
	}
	outcomes := u.probeAll(ctx, started)
	if ctx.Err() != nil {
		return
	}

	var (
		answered *candidate
		down     []*candidate
		reasons  []error
	)
	for i, c := range u.candidates {
		switch isDown := c.probed(outcomes[i]); {
		case isDown:
			down, reasons = append(down, c), append(reasons, outcomes[i])
		case outcomes[i] == nil && answered == nil:
			answered = c
		}
	}
	if answered != nil {
		u.proven.Store(started.UnixNano())
		u.event(roundSucceeded, func() string { return answered.name + " answers" })
	} else {
		u.event(roundFailed, u.why)
	}
	// After the event: what fails now must find the state as it is.
	for i, c := range down {
		c.severAll(reasons[i])
	}
	// The next probe must not depend on a connection that may be dead for reasons of its own.
	roots, err := u.trust.roots()
	for i, c := range u.candidates {
		if outcomes[i] != nil && err == nil {
			c.renew(roots)
		}
	}
}

// probeAll probes all addresses. Once one has answered the others have no more than the
// timeout: then somebody may be waiting, for the link that is back.
func (u *Upstream) probeAll(ctx context.Context, started time.Time) []error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	outcomes := make([]error, len(u.candidates))
	var group sync.WaitGroup
	for i, c := range u.candidates {
		group.Go(func() {
			if outcomes[i] = u.probe(ctx, c); outcomes[i] == nil {
				late := noAnswer{u.options.ProbeTimeout}
				timer := u.clock.AfterFunc(late.after-u.clock.Since(started), func() { cancel(late) })
				context.AfterFunc(ctx, func() { timer.Stop() })
			}
		})
	}
	group.Wait()
	return outcomes
}

func (u *Upstream) renewAll() {
	roots, err := u.trust.roots()
	if err != nil {
		return
	}
	for _, c := range u.candidates {
		c.renew(roots)
	}
}

// probe asks one address whether there is an API server. Any answer below 500 will do: 401 and 403 come from one too.
func (u *Upstream) probe(ctx context.Context, c *candidate) error {
	if _, err := u.trust.roots(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := noAnswer{u.patience()}
	timer := u.clock.AfterFunc(late.after, func() { cancel(late) })
	defer timer.Stop()

	ready := *c.server.URL
	ready.Path, ready.RawPath = "/readyz", ""
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://probe/", nil)
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
		return context.Cause(ctx)
	case err != nil:
		return err
	case response.StatusCode >= http.StatusInternalServerError:
		return unavailable{response.Status}
	}
	return nil
}

// patience is how long a probe may take. While the link is up a request may be waiting for the verdict, and there is a
// connection already. While it is down nobody waits before an address has answered, and the connection has to be made: where a packet takes 300 ms
// each way, TCP, TLS and the answer take longer than the timeout together, and the link would never be back.
func (u *Upstream) patience() time.Duration {
	if u.State().online() {
		return u.options.ProbeTimeout
	}
	return 2*u.options.ConnectTimeout + u.options.ProbeTimeout // TCP, TLS, the answer
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
	for _, c := range u.candidates {
		c.severAll(errStopped)
	}
}
