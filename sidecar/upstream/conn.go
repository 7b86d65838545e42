package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
)

// conn is a TCP connection to an address. It can be closed while reads and writes wait on it.
type conn struct {
	net.Conn
	address      *address
	silent       atomic.Bool // nothing was read since a probe was sent over it
	closedSilent atomic.Bool // it was closed because it was silent
}

// errClosedSilent is a connection whose other end vanished without a reset while the address
// answers over another connection: a NAT gateway or a firewall has forgotten it, for example. A
// slow connection can be mistaken for one if the link was silent for as long as a probe may take.
// Safe requests on it are then sent again.
var errClosedSilent = errors.New("the connection was silent while another one was answered")

// connOf returns the conn below TLS, or nil if the connection was not dialed by this package.
func connOf(c net.Conn) *conn {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	raw, _ := c.(*conn)
	return raw
}

func (a *address) dial(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := a.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tracked := &conn{Conn: raw, address: a}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closeReason != nil {
		_ = raw.Close()
		return nil, a.closeReason
	}
	a.conns[tracked] = struct{}{}
	return tracked, nil
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.silent.Load() {
		c.silent.Store(false)
	}
	return n, err
}

// closeIfSilent closes a connection that is still silent after a probe over another was answered.
func (c *conn) closeIfSilent() {
	if c.silent.Load() {
		c.closedSilent.Store(true)
		_ = c.Conn.Close() // its reader calls Close, which takes it off the list
	}
}

func (c *conn) Close() error {
	c.address.mu.Lock()
	delete(c.address.conns, c)
	c.address.mu.Unlock()
	return c.Conn.Close()
}

// probeTimedOut records the connection over which a probe got no answer.
func (a *address) probeTimedOut(silent *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silentConns = append(a.silentConns, silent)
}
