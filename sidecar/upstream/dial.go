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
	"time"

	"golang.org/x/net/http2"
)

// attemptDelay is how long one IP address of a name may be silent before the next is tried as well
// (RFC 8305 §5).
const attemptDelay = 250 * time.Millisecond

// dialing is a connection on its way. All requests that need a connection wait for the same one.
type dialing struct {
	done     chan struct{}
	err      error
	progress time.Time // when its latest step ended; guarded by the lock of the address
}

// dialError is the error of a request that got no connection, so that nothing of it was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// connect gives the connection on its way, or begins one. The lock is held.
func (a *address) connect() *dialing {
	if a.dialing != nil {
		return a.dialing
	}
	d := &dialing{done: make(chan struct{}), progress: a.clock.Now()}
	a.dialing, a.tried = d, d.progress
	a.goes.Go(func() {
		c, err := a.dial(a.ctx, d, http2.NextProtoTLS, "http/1.1")
		if err == nil {
			err = a.serve(c)
		}
		a.mu.Lock()
		d.err, a.dialing = err, nil
		a.mu.Unlock()
		a.dialed(err)
		close(d.done)
	})
	return d
}

// serve lets requests use a new connection. When the API server, or a gateway before it, speaks
// HTTP/1.1 only, the address uses the transport that is made for that.
func (a *address) serve(c *conn) error {
	if c.ConnectionState().NegotiatedProtocol != http2.NextProtoTLS {
		a.mu.Lock()
		a.http1Only = true
		a.mu.Unlock()
		return c.Close()
	}
	client, err := a.http2.NewClientConn(c) //nolint:staticcheck // see address.http2
	if err != nil {
		_ = c.Close()
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	c.http2, a.http1Only = client, false
	return nil
}

// dialed notes how a dial ended. That the client of a request has left says nothing.
func (a *address) dialed(err error) {
	a.mu.Lock()
	switch {
	case errors.Is(err, context.Canceled):
	case err == nil:
		a.failures, a.failed, a.lastErr = 0, time.Time{}, nil
		if a.lastLogged != "up" {
			a.lastLogged = "up"
			a.logger.Info("API server answers", a.field())
		}
	case a.closeReason == nil:
		a.failures++
		a.failed = a.clock.Now()
		a.recordFailure(err)
	}
	a.mu.Unlock()
	a.changed()
}

// dial makes a verified connection. It gives up when nothing is heard for the budget: no progress
// of its own, and no byte over any other connection of the address.
func (a *address) dial(ctx context.Context, d *dialing, protocols ...string) (*conn, error) {
	a.reloadTrust()
	roots, err := a.trust.current()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var look func()
	look = func() {
		if ctx.Err() != nil {
			return
		}
		a.mu.Lock()
		budget := dialBudget(a.settings.ConnectTimeout, a.rtt, a.failures)
		since := latest(d.progress, a.lastHeard())
		a.mu.Unlock()
		if left := budget - a.clock.Since(since); left > 0 {
			a.clock.AfterFunc(left, look)
			return
		}
		cancel(noAnswer{budget})
	}
	look()
	c, err := a.verified(ctx, d, roots, protocols)
	if late := (noAnswer{}); err != nil && errors.As(context.Cause(ctx), &late) {
		return nil, late
	}
	return c, err
}

// verified does TCP and TLS.
func (a *address) verified(ctx context.Context, d *dialing, roots *roots, protocols []string) (*conn, error) {
	raw, took, err := a.dialTCP(ctx)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	d.progress = a.clock.Now()
	a.rtt = smooth(a.rtt, took)
	sessions := a.sessionsFor(roots)
	a.mu.Unlock()
	s := &socket{Conn: raw, address: a}
	secure := tls.Client(s, &tls.Config{
		RootCAs: roots.pool, ClientSessionCache: sessions, NextProtos: protocols,
		ServerName: cmp.Or(a.server.TLSServerName, strings.TrimSuffix(a.server.URL.Hostname(), ".")),
	})
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	s.verified.Store(true)
	s.stamp()
	c := &conn{Conn: secure, socket: s, address: a, waiters: map[*waiter]struct{}{}}
	return c, a.add(c)
}

// dialTCP connects to one of the IP addresses of the host, and gives the time of the round trip.
// Silent addresses do not delay the others for long (RFC 8305).
func (a *address) dialTCP(ctx context.Context) (net.Conn, time.Duration, error) {
	ips, err := lookup(ctx, a.server.URL.Hostname())
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		took time.Duration
		err  error
	}
	results := make(chan result, len(ips))
	port := cmp.Or(a.server.URL.Port(), "443")
	begin := func(ip netip.Addr) {
		started := a.clock.Now()
		a.goes.Go(func() {
			c, err := a.dialer.DialContext(ctx, "tcp", net.JoinHostPort(ip.String(), port))
			results <- result{c, a.clock.Since(started), err}
		})
	}
	var failure error
	for begun, ended := 0, 0; ended < len(ips); {
		next := a.clock.NewTimer(attemptDelay)
		if begun < len(ips) && (begun == ended) {
			begin(ips[begun])
			begun++
		}
		select {
		case r := <-results:
			if ended++; r.err == nil {
				a.goes.Go(func() { // connections that come too late
					for ; ended < begun; ended++ {
						if late := <-results; late.err == nil {
							_ = late.conn.Close()
						}
					}
				})
				next.Stop()
				return r.conn, r.took, nil
			}
			if failure == nil {
				failure = r.err
			}
		case <-next.C():
			if begun < len(ips) {
				begin(ips[begun])
				begun++
			}
		}
		next.Stop()
	}
	return nil, 0, failure
}

// lookup gives the IP addresses of a host, the families in turn.
func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	var first, second []netip.Addr
	for _, ip := range found {
		ip = ip.Unmap()
		if ip.Is4() == found[0].Unmap().Is4() {
			first = append(first, ip)
		} else {
			second = append(second, ip)
		}
	}
	var ips []netip.Addr
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			ips = append(ips, first[i])
		}
		if i < len(second) {
			ips = append(ips, second[i])
		}
	}
	return ips, nil
}
