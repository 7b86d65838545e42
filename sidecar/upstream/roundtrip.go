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

// RoundTrip implements http.RoundTripper. Scheme, host and Host of the request do not matter; it goes to
// the best address, and to the next if that fails in a way that makes it safe to try again.
//
// The error is a *LinkError if no address answered, and so is that of a read from a body that breaks off because
// the link does. A request whose own context has ended gets that context's error, and is not held against the link.
func (u *Upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	return u.roundTrip(r, func(p *pool) *http.Transport { return p.http2 })
}

// HTTP1 returns a RoundTripper to the same addresses that never speaks HTTP/2, which has no upgrades. The
// body of a 101 response is an io.ReadWriteCloser.
func (u *Upstream) HTTP1() http.RoundTripper { return overHTTP1{u} }

type overHTTP1 struct{ upstream *Upstream }

func (o overHTTP1) RoundTrip(r *http.Request) (*http.Response, error) {
	return o.upstream.roundTrip(r, func(p *pool) *http.Transport { return p.http1 })
}

func (u *Upstream) roundTrip(r *http.Request, transport func(*pool) *http.Transport) (*http.Response, error) {
	up := newUpload(r.Body)
	defer up.release()
	failures := &LinkError{}
	turn := u.turns.Add(1)
	var tried []*candidate
	for u.State() != Offline {
		p := u.plan.Load() // which may be another one after a failure that took long
		c := p.untried(turn, tried)
		if c == nil {
			break
		}
		tried = append(tried, c)
		response, sent, err := u.attempt(r, up, c, p.ProbeTimeout/2, transport)
		if err == nil {
			c.requestAnswered(p.FailureThreshold)
			u.event(requestSucceeded, func() string { return c.name + " answers" })
			return response, nil
		}
		if ctxErr := r.Context().Err(); ctxErr != nil {
			return nil, ctxErr
		}
		if uploadErr := up.failure(); uploadErr != nil {
			return nil, fmt.Errorf("read request body: %w", uploadErr)
		}
		var severed cut
		switch {
		case errors.As(err, &severed):
			err = severed.reason // known already
		case errors.Is(err, errStranded):
			tried = tried[:len(tried)-1] // the address is well, and has another connection
		case !isConnectionError(err):
			return nil, fmt.Errorf("%s: %w", c.name, err)
		default:
			c.requestFailed(err)
			u.kick()
		}
		failures.Servers = append(failures.Servers, ServerError{c.name, err})
		failures.Sent = failures.Sent || sent || up.begun()
		if up.begun() || sent && !safe(r.Method) {
			break // it may have been done
		}
	}
	if len(failures.Servers) == 0 {
		failures = u.linkError()
	}
	u.requestFailed(failures)
	return nil, failures
}

// requestFailed draws the conclusion for the link. While another address is well, it is the trouble of one address alone.
func (u *Upstream) requestFailed(err *LinkError) {
	p := u.plan.Load()
	if slices.ContainsFunc(p.candidates, func(c *candidate) bool { return c.health(p.FailureThreshold) == well }) {
		u.kick()
		return
	}
	u.event(requestFailed, err.Error)
}

// untried returns the best address that is not among those tried, nil if there is none.
func (p *plan) untried(turn uint64, tried []*candidate) *candidate {
	for _, c := range p.order(turn) {
		if !slices.Contains(tried, c) {
			return c
		}
	}
	return nil
}

// safe reports whether a request does the same when it is done twice (RFC 9110 §9.2.1). Other idempotent
// methods are not among them: the second answer to a DELETE is a 404.
func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}

// attempt sends the request to one address, and asks for a probe when it has waited for slow. sent tells whether any of it may have got there.
func (u *Upstream) attempt(r *http.Request, up *upload, c *candidate, slow time.Duration, transport func(*pool) *http.Transport) (_ *http.Response, sent bool, _ error) {
	if _, err := c.trust.roots(); err != nil {
		return nil, false, err
	}
	connections, link := c.current()
	ctx, cancel := context.WithCancelCause(r.Context())
	unlink := context.AfterFunc(link, func() { cancel(context.Cause(link)) })
	// A request that waits, up to the first byte of the body, is a reason to look whether the link is still there, unless that was
	// done meanwhile. It is not given up for that: it may be one that takes long.
	started := u.clock.Now().UnixNano()
	waiting := u.clock.AfterFunc(slow, func() {
		if u.proven.Load() < started {
			u.kick()
		}
	})
	end := func() { waiting.Stop(); unlink(); cancel(nil) }

	var connected atomic.Bool
	var used atomic.Pointer[conn]
	out := r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			connected.Store(true)
			used.Store(connOf(info.Conn))
		},
	}))
	out.URL = c.target(r.URL)
	out.Host = out.URL.Host
	out.Body = up.body(r.Body)
	response, err := transport(connections).RoundTrip(out)
	if err == nil {
		err = refuseBalancer(r.Method, response)
	}
	if err != nil {
		var severed cut
		if raw := used.Load(); raw != nil && raw.stranded.Load() {
			err = errStranded
		}
		if errors.As(context.Cause(link), &severed) {
			err = severed
		}
		end()
		return nil, connected.Load(), err
	}
	response.Request = r
	response.Body = watchBody(response.Body, &guard{upstream: u, candidate: c, conn: used.Load(), client: r.Context(), link: link, heard: func() { waiting.Stop() }, end: end})
	return response, true, nil
}
