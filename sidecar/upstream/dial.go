package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// attemptDelay is how long one IP address of a name may be silent before the next one is
// tried too (RFC 8305 §5).
const attemptDelay = 250 * time.Millisecond

// dialing is a connection on its way. All requests that need a connection wait for the same one.
type dialing struct {
	done     chan struct{}
	err      error
	progress instant       // when its latest step ended, or a byte came
	again    chan struct{} // has a value when one more attempt should begin
}

func newDialing(now time.Time) *dialing {
	d := &dialing{done: make(chan struct{}), again: make(chan struct{}, 1)}
	d.progress.advance(now)
	return d
}

// dialError is the error of a request that got no connection, so that nothing of it was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// connect gives the connection on its way, or begins one. The lock is held, and the address is not
// closed.
func (a *address) connect() *dialing {
	if a.dialing != nil {
		return a.dialing
	}
	a.tried = a.clock.Now()
	d := newDialing(a.tried)
	a.dialing = d
	a.goes.Go(func() {
		c, err := a.dial(a.ctx, d, http2.NextProtoTLS, "http/1.1")
		if err == nil {
			err = a.serve(c)
		}
		if err == nil && c.http2 == nil {
			err = c.Close() // the HTTP/1.1 transport makes its own
		}
		a.mu.Lock()
		d.err, a.dialing = cmp.Or(a.closeReason, err), nil
		a.mu.Unlock()
		a.dialed(d.err)
		close(d.done)
	})
	return d
}

// serve lets requests use a new connection, for which the API server, or a gateway before it, had the
// choice of the protocol. Later requests use the transport of that protocol.
func (a *address) serve(c *conn) error {
	isHTTP2 := c.ConnectionState().NegotiatedProtocol == http2.NextProtoTLS
	if isHTTP2 {
		client, err := a.onConn(c)
		if err != nil {
			return err
		}
		c.http2 = client
	}
	a.http1.Store(!isHTTP2)
	return a.add(c)
}

// dialHTTP1 makes a connection for the HTTP/1.1 transport. Unless it is for an upgrade, the API
// server may choose HTTP/2 all the same, as after an upgrade of a gateway.
func (a *address) dialHTTP1(ctx context.Context, _, _ string) (net.Conn, error) {
	if !a.begin() {
		return nil, &dialError{a.reasonToClose()}
	}
	defer a.goes.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.ctx, cancel)()
	protocols, use := []string{"http/1.1"}, a.add
	if x := attemptOf(ctx); x != nil {
		if x.used() && a.verdict() == Down { // the transport tries again by itself
			return nil, &dialError{a.serverError().Err}
		}
		if !x.upgrade {
			protocols, use = []string{http2.NextProtoTLS, "http/1.1"}, a.serve
		}
	}
	c, err := a.dial(ctx, newDialing(a.clock.Now()), protocols...)
	if err == nil {
		err = use(c)
	}
	a.dialed(err)
	switch {
	case err != nil:
		return nil, &dialError{err}
	case c.http2 != nil:
		return nil, errHTTP2
	}
	return c, nil
}

// dialed notes how a dial ended. It says nothing if the client of a request has left, or if another
// connection takes requests.
func (a *address) dialed(err error) {
	failed := false
	a.mu.Lock()
	switch {
	case errors.Is(err, context.Canceled), a.closeReason != nil:
	case err == nil:
		a.failures, a.failed, a.lastErr = 0, time.Time{}, nil
		if a.lastLogged != "up" {
			a.lastLogged = "up"
			a.logger.Info("API server answers", a.field())
		}
	default:
		failed = true
		a.recordFailure(err)
		if !a.usable() {
			a.failures++
			a.failed = a.clock.Now()
		}
	}
	a.mu.Unlock()
	if failed {
		for _, c := range a.all() {
			c.doubt()
		}
		a.overHTTP1.CloseIdleConnections() // which cannot be asked
		a.short.closeAllIdle()
	}
	a.changed()
}

// dial makes a verified connection. While it goes on, d.again begins one more attempt: in a black
// hole the kernel repeats a SYN only after 1, 3, 7 and 15 s.
func (a *address) dial(ctx context.Context, d *dialing, protocols ...string) (*conn, error) {
	a.reloadTrust()
	roots, err := a.trust.current()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var parts sync.WaitGroup
	defer func() { cancel(nil); parts.Wait() }()
	parts.Go(func() { a.watch(ctx, cancel, d) })
	results := make(chan dialResult)
	begin := func() {
		parts.Go(func() {
			c, err := a.verified(ctx, d, roots, protocols)
			select {
			case results <- dialResult{c, err}:
			case <-ctx.Done(): // another was faster
				if err == nil {
					_ = c.socket.Close()
				}
			}
		})
	}
	begin()
	for running := 1; running > 0; {
		select {
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			running--
			err = cmp.Or(err, r.err)
		case <-d.again:
			running++
			begin()
		case <-ctx.Done():
			running, err = 0, ctx.Err()
		}
	}
	if late := (noAnswer{}); errors.As(context.Cause(ctx), &late) {
		return nil, late
	}
	return nil, err
}

// dialResult is how one attempt ended.
type dialResult struct {
	conn *conn
	err  error
}

// watch ends a dial for which nothing is heard within the budget: no progress of its own, and no
// byte over any other connection of the address. Those bytes prolong it up to maxBudget.
func (a *address) watch(ctx context.Context, cancel context.CancelCauseFunc, d *dialing) {
	a.mu.Lock()
	budget := dialBudget(a.settings.ConnectTimeout, a.rtt, a.failures)
	a.mu.Unlock()
	begun := d.progress.time()
	for {
		heard := d.progress.time()
		if other := a.heard.time(); other.Before(begun.Add(maxBudget)) {
			heard = latest(heard, other)
		}
		left := budget - a.clock.Since(heard)
		if left <= 0 {
			cancel(noAnswer{budget})
			return
		}
		timer := a.clock.NewTimer(left)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// verified does TCP and TLS. The handshake of TLS measures the round trip: that of TCP may end at a
// proxy of the satellite's modem.
func (a *address) verified(
	ctx context.Context, d *dialing, roots *roots, protocols []string,
) (*conn, error) {
	raw, err := a.dialTCP(ctx, d)
	if err != nil {
		return nil, err
	}
	began := a.clock.Now()
	d.progress.advance(began)
	s := &socket{Conn: raw, address: a, dialing: d}
	secure := tls.Client(s, &tls.Config{
		RootCAs: roots.pool, ClientSessionCache: a.sessionsFor(roots), NextProtos: protocols,
		ServerName: cmp.Or(a.server.TLSServerName, strings.TrimSuffix(a.server.URL.Hostname(), ".")),
	})
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		if !isLinkFailure(err) && !refusesProtocols(err) {
			a.dropSessions()
		}
		return nil, err
	}
	s.verified.Store(true)
	s.hear(a.clock.Now())
	a.mu.Lock()
	if a.failures == 0 || a.rtt == 0 { // else it may have waited for the link to return
		a.rtt = smooth(a.rtt, a.clock.Since(began))
	}
	a.mu.Unlock()
	if tcp, ok := raw.(*net.TCPConn); ok && secure.ConnectionState().NegotiatedProtocol != http2.NextProtoTLS {
		_ = tcp.SetKeepAliveConfig(keepAlive)
	}
	return &conn{Conn: secure, socket: s, address: a, roots: roots, waiters: map[*waiter]struct{}{}}, nil
}

// dialTCP connects to one of the IP addresses of the host. Silent addresses do not delay the others
// for long (RFC 8305).
func (a *address) dialTCP(ctx context.Context, d *dialing) (net.Conn, error) {
	ips, err := a.lookup(ctx, a.server.URL.Hostname())
	if err != nil {
		return nil, err
	}
	d.progress.advance(a.clock.Now())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	running := 0
	begin := func() {
		host := net.JoinHostPort(ips[0].String(), cmp.Or(a.server.URL.Port(), "443"))
		ips = ips[1:]
		running++
		go func() {
			c, err := a.dialer.DialContext(ctx, "tcp", host)
			select {
			case results <- result{c, err}:
			case <-ctx.Done(): // another was faster
				if err == nil {
					_ = c.Close()
				}
			}
		}()
	}
	begin()
	var failure error
	for running > 0 {
		timer := a.clock.NewTimer(attemptDelay)
		select {
		case r := <-results:
			if r.err == nil {
				timer.Stop()
				return r.conn, nil
			}
			failure = cmp.Or(failure, r.err)
			if running--; running == 0 && len(ips) > 0 {
				begin()
			}
		case <-timer.C():
			if len(ips) > 0 {
				begin()
			}
		case <-ctx.Done():
			running, failure = 0, ctx.Err()
		}
		timer.Stop()
	}
	return nil, failure
}

// lookup gives the IP addresses of a host, the families in turn.
func (a *address) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	found, err := a.resolve(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	var first, second, ips []netip.Addr
	for _, ip := range found {
		if ip = ip.Unmap(); ip.Is4() == found[0].Unmap().Is4() {
			first = append(first, ip)
		} else {
			second = append(second, ip)
		}
	}
	for i := range max(len(first), len(second)) {
		ips = append(ips, first[min(i, len(first)):min(i+1, len(first))]...)
		ips = append(ips, second[min(i, len(second)):min(i+1, len(second))]...)
	}
	return ips, nil
}
