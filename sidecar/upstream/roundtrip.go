package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
)

// RoundTrip implements http.RoundTripper. Scheme, host and Host of the request do not matter. The
// request goes to the best address, and to the next one if it failed in a way that is safe to
// retry.
//
// The error is a *LinkError if no address answered. Reading a body that ends early because the link
// failed returns a *LinkError too. A request whose own context has ended gets that context's error.
func (u *Upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	return u.roundTrip(r, false, 0)
}

// HTTP1 returns a RoundTripper to the same addresses that never speaks HTTP/2, because HTTP/2 has
// no upgrades. The body of a 101 response is an io.ReadWriteCloser.
func (u *Upstream) HTTP1() http.RoundTripper { return overHTTP1{u} }

type overHTTP1 struct{ upstream *Upstream }

func (o overHTTP1) RoundTrip(r *http.Request) (*http.Response, error) {
	return o.upstream.roundTrip(r, true, 0)
}

// attemptsEach is how often one address is tried for one request: once over a connection that may
// be dead, and once over a new one.
const attemptsEach = 2

func (u *Upstream) roundTrip(r *http.Request, upgrade bool, patience time.Duration) (*http.Response, error) {
	if u.State() == Offline {
		u.refresh() // time alone may have changed it
	}
	if u.isOut(patience) {
		u.Wake()
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, u.linkError()
	}
	body, err := newUpload(r)
	if err != nil {
		return nil, err
	}
	deadline := u.clock.Now().Add(patience)
	response, err := u.tryAll(r, body, upgrade)
	for err != nil && u.pause(r, body, err, deadline) {
		response, err = u.tryAll(r, body, upgrade)
	}
	if err == nil {
		return response, nil
	}
	body.close()
	if ctxErr := r.Context().Err(); ctxErr != nil {
		return nil, ctxErr
	}
	return nil, err
}

// tryAll sends the request to one address after the other.
func (u *Upstream) tryAll(r *http.Request, body *upload, upgrade bool) (*http.Response, error) {
	var failures *LinkError // nil: none
	turn := u.requestCount.Add(1)
	var tried map[*address]int // nil: none has failed yet
	short := !upgrade && u.options.IsShort != nil && u.options.IsShort(r)
	for {
		a := u.plan.Load().next(turn, tried)
		if a == nil {
			break
		}
		a.used.Store(true)
		var over *shortConn // nil: HTTP/2, or what the address speaks
		if short {
			over = a.short.take(r)
		}
		forget := u.prepareOthers(a, tried)
		response, x, err := u.attempt(r, body, a, upgrade, over)
		forget()
		if err == nil {
			return response, nil
		}
		if ctxErr := r.Context().Err(); ctxErr != nil {
			return nil, ctxErr
		}
		if broken := body.broken(); broken != nil {
			return nil, fmt.Errorf("read request body: %w", broken)
		}
		if tried == nil {
			tried = map[*address]int{}
		}
		var undialed *dialError
		var foreign unavailable
		switch {
		case errors.As(err, &undialed):
			tried[a] = attemptsEach
			err = undialed.err
		case errors.As(err, &foreign):
			tried[a] = attemptsEach
		case strings.Contains(err.Error(), "request header list larger than peer's advertised limit"):
			return nil, &RequestError{metav1.Status{
				Status: metav1.StatusFailure, Code: http.StatusRequestHeaderFieldsTooLarge, Reason: metav1.StatusReasonBadRequest,
				Message: "the header of the request is larger than the API server takes",
			}}
		case !isConnectionError(err):
			return nil, &addressError{a.name, err}
		case over != nil:
			short = false // the other connection may carry it
			continue
		default:
			tried[a]++
		}
		if failures == nil {
			failures = &LinkError{}
		}
		failures.Servers = append(failures.Servers, ServerError{a.name, err})
		failures.Sent = failures.Sent || x.sent.Load()
		if x.sent.Load() && !safe(r.Method) || !body.repeatable() {
			break // the API server may have executed the request
		}
	}
	if failures == nil {
		return nil, u.linkError()
	}
	return nil, failures
}

// prepareOthers has the other addresses looked at, all at the same time, while a request still waits
// for this one and nothing is heard from it, not even an answer to a PING. Otherwise each silent
// address would cost the request its whole patience. The function that it returns ends that.
func (u *Upstream) prepareOthers(a *address, before map[*address]int) (forget func()) {
	if len(u.plan.Load().addresses) < 2 {
		return func() {}
	}
	began := u.clock.Now()
	tried := map[*address]int{a: attemptsEach}
	for other, attempts := range before {
		if other != a {
			tried[other] = attempts
		}
	}
	roundTrip := a.roundTrip()
	timer := u.clock.AfterFunc(max(askAfter, roundTrip*3/2)+patience(roundTrip)/2, func() {
		if a.heard.time().After(began) {
			return
		}
		ready, unready, others := u.plan.Load().left(tried)
		if len(ready)+len(unready) > 0 {
			others = slices.Concat(ready, unready)
		}
		for _, other := range others {
			other.check()
		}
	})
	return func() { timer.Stop() }
}

// addressError names the address of an error.
type addressError struct {
	name string
	err  error
}

func (e *addressError) Error() string { return e.name + ": " + e.err.Error() }
func (e *addressError) Unwrap() error { return e.err }

// RequestError is the answer to a request that cannot be sent as it is.
type RequestError struct{ status metav1.Status }

func (e *RequestError) Error() string { return e.status.Message }

// Status returns the Status for the client.
func (e *RequestError) Status() metav1.Status { return e.status }

// safe reports whether a method is safe (RFC 9110 §9.2.1), so that a request may be sent twice.
// Other idempotent methods do not qualify: the second answer to a DELETE is a 404.
func safe(method string) bool {
	return slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions}, method)
}

// attempt sends the request to one address, over a short connection unless over is nil.
func (u *Upstream) attempt(
	r *http.Request, body *upload, a *address, upgrade bool, over *shortConn,
) (*http.Response, *attempt, error) {
	x := &attempt{Context: r.Context(), stream: u.options.IsStream != nil && u.options.IsStream(r), upgrade: upgrade, upload: body}
	use, began := u.options.Meter.Attempt(r), u.clock.Now()
	compressed := !upgrade && mayBeCompressed(r)
	var cancel context.CancelFunc
	var response *http.Response
	var err error
	if over != nil {
		s := over.use(r.Context())
		cancel = s.done
		response, err = s.roundTrip(r, x, compressed)
	} else {
		var ctx context.Context
		if ctx, cancel = context.WithCancel(x); !safe(r.Method) {
			ctx = x.trace(ctx)
		}
		response, err = a.send(a.addressed(r.WithContext(ctx), compressed), x, use)
	}
	if err == nil {
		if err = refuseBalancer(response); err != nil {
			a.notReady()
		}
	}
	c := x.ended(err == nil)
	if err != nil {
		cancel()
		return nil, x, cmp.Or(c.reason(), err)
	}
	body.forget()
	response.Request = r
	var waits clock.PassiveClock // nil: nobody waits for a stream
	if !x.stream && response.StatusCode != http.StatusSwitchingProtocols {
		waits = u.clock
		use.Waited(u.clock.Since(began))
	}
	response.Body = meterBody(response.Body, use, waits)
	if compressed {
		decompress(response)
	}
	response.Body = guardBody(&guardedBody{source: response.Body, guard: guard{
		conn: c, address: a, clientCtx: r.Context(), stream: x.stream, cancel: cancel, upload: body,
	}})
	return response, x, nil
}

// addressed makes a copy of a request one to this address. It asks for gzip if compressed.
func (a *address) addressed(r *http.Request, compressed bool) *http.Request {
	r.URL = a.target(r.URL)
	r.Host = r.URL.Host
	expects := r.Header.Get("Expect") != ""
	if expects || compressed {
		r.Header = maps.Clone(r.Header)
	}
	if expects { // the body is here
		r.Header.Del("Expect")
	}
	if compressed {
		askCompressed(r)
	}
	return r
}

// send sends a request in the protocol of the address.
func (a *address) send(r *http.Request, x *attempt, use Use) (response *http.Response, err error) {
	over := func(transport http.RoundTripper, r *http.Request) (*http.Response, error) {
		x.upload.give(r)
		meterUpload(r, use)
		return transport.RoundTrip(r)
	}
	err = errHTTP1
	if !x.upgrade && !a.http1.Load() {
		response, err = over(a.overHTTP2, r)
	}
	if errors.Is(err, errHTTP1) {
		response, err = over(a.overHTTP1, r.WithContext(x.trace(r.Context())))
	}
	if errors.Is(err, errHTTP2) {
		response, err = over(a.overHTTP2, r)
	}
	return response, err
}
