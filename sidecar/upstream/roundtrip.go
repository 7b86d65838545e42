package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync/atomic"
	"time"
)

// RoundTrip implements http.RoundTripper. Scheme, host and Host of the request do not matter. The
// request goes to the best address, and to the next one if it failed in a way that is safe to
// retry.
//
// The error is a *LinkError if no address answered. Reading a body that ends early because the link
// failed returns a *LinkError too. A request whose own context has ended gets that context's error,
// which does not count against the link.
func (u *Upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	return u.roundTrip(r, func(p *pool) *http.Transport { return p.http2 })
}

// HTTP1 returns a RoundTripper to the same addresses that never speaks HTTP/2, because HTTP/2 has
// no upgrades. The body of a 101 response is an io.ReadWriteCloser.
func (u *Upstream) HTTP1() http.RoundTripper { return overHTTP1{u} }

type overHTTP1 struct{ upstream *Upstream }

func (o overHTTP1) RoundTrip(r *http.Request) (*http.Response, error) {
	return o.upstream.roundTrip(r, func(p *pool) *http.Transport { return p.http1 })
}

func (u *Upstream) roundTrip(r *http.Request, transport func(*pool) *http.Transport) (*http.Response, error) {
	up := newUpload(r.Body)
	defer up.release()
	failures := &LinkError{}
	turn := u.requestCount.Add(1)
	var tried []*address
	for u.State() != Offline {
		p := u.plan.Load() // may differ from the plan of the previous attempt
		a := p.nextUntried(turn, tried)
		if a == nil {
			break
		}
		tried = append(tried, a)
		response, sent, err := u.attempt(r, up, a, p.ProbeTimeout/2, transport)
		if err == nil {
			a.requestAnswered(p.FailureThreshold)
			u.event(requestSucceeded, func() string { return a.name + " answers" })
			return response, nil
		}
		if ctxErr := r.Context().Err(); ctxErr != nil {
			return nil, ctxErr
		}
		if uploadErr := up.failure(); uploadErr != nil {
			return nil, fmt.Errorf("read request body: %w", uploadErr)
		}
		var interruption interrupted
		switch {
		case errors.As(err, &interruption):
			err = interruption.reason // recorded already
		case errors.Is(err, errClosedSilent):
			tried = tried[:len(tried)-1] // the address answers over another connection
		case !isConnectionError(err):
			return nil, fmt.Errorf("%s: %w", a.name, err)
		default:
			a.requestFailed(err)
			u.probeNow()
		}
		failures.Servers = append(failures.Servers, ServerError{a.name, err})
		failures.Sent = failures.Sent || sent || up.started()
		if up.started() || sent && !safe(r.Method) {
			break // the API server may have executed the request
		}
	}
	if len(failures.Servers) == 0 {
		failures = u.linkError()
	}
	u.requestFailed(failures)
	return nil, failures
}

// requestFailed moves the state after a failed request. While any address is healthy, the failure
// concerns one address and not the link.
func (u *Upstream) requestFailed(err *LinkError) {
	p := u.plan.Load()
	if slices.ContainsFunc(p.addresses, func(a *address) bool { return a.health(p.FailureThreshold) == healthy }) {
		u.probeNow()
		return
	}
	u.event(requestFailed, err.Error)
}

// nextUntried returns the best address that is not in tried, or nil.
func (p *plan) nextUntried(turn uint64, tried []*address) *address {
	for _, a := range p.order(turn) {
		if !slices.Contains(tried, a) {
			return a
		}
	}
	return nil
}

// safe reports whether a method is safe (RFC 9110 §9.2.1), so that a request may be sent twice.
// Other idempotent methods do not qualify: the second answer to a DELETE is a 404.
func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}

// attempt sends the request to one address, and asks for a probe after it has waited for slow. sent
// reports whether any part of the request may have arrived.
func (u *Upstream) attempt(
	r *http.Request, up *upload, a *address, slow time.Duration, transport func(*pool) *http.Transport,
) (_ *http.Response, sent bool, _ error) {
	if _, err := a.trust.roots(); err != nil {
		return nil, false, err
	}
	connections, addressCtx := a.current()
	ctx, cancel := context.WithCancelCause(r.Context())
	stopInterrupts := context.AfterFunc(addressCtx, func() { cancel(context.Cause(addressCtx)) })
	// A request that waits for the first byte of its body asks for a probe, unless a round of
	// probes was answered meanwhile. The request itself continues: its answer may just take long.
	started := u.clock.Now().UnixNano()
	waiting := u.clock.AfterFunc(slow, func() {
		if u.lastAnswered.Load() < started {
			u.probeNow()
		}
	})
	end := func() { waiting.Stop(); stopInterrupts(); cancel(nil) }

	var connected atomic.Bool
	var used atomic.Pointer[conn]
	out := r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			connected.Store(true)
			used.Store(connOf(info.Conn))
		},
	}))
	out.URL = a.target(r.URL)
	out.Host = out.URL.Host
	out.Body = up.body(r.Body)
	response, err := transport(connections).RoundTrip(out)
	if err == nil {
		err = refuseBalancer(r.Method, response)
	}
	if err != nil {
		var interruption interrupted
		if raw := used.Load(); raw != nil && raw.closedSilent.Load() {
			err = errClosedSilent
		}
		if errors.As(context.Cause(addressCtx), &interruption) {
			err = interruption
		}
		end()
		return nil, connected.Load(), err
	}
	response.Request = r
	response.Body = guardBody(response.Body, &guard{
		upstream: u, address: a, conn: used.Load(), clientCtx: r.Context(), addressCtx: addressCtx,
		firstByte: func() { waiting.Stop() }, end: end,
	})
	return response, true, nil
}
