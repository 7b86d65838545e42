package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
)

// conn is a TCP connection to an address, which can be closed whatever waits on it.
type conn struct {
	net.Conn
	candidate *candidate
	quiet     atomic.Bool // nothing was read since a probe was sent over it
	stranded  atomic.Bool // and closed for that
}

// errStranded is a connection whose other end is gone without a word, as when a NAT gateway or a firewall has forgotten it, while the
// address answers over another. A connection that is only slow can be taken for one, when the link has just been
// silent for as long as a probe may take: then what is under way on it is asked again.
var errStranded = errors.New("the connection was silent while another one was answered")

// connOf finds the connection below TLS, nil if it is none of ours.
func connOf(c net.Conn) *conn {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	raw, _ := c.(*conn)
	return raw
}

func (c *candidate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := c.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tracked := &conn{Conn: raw, candidate: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil {
		_ = raw.Close()
		return nil, c.closed
	}
	c.conns[tracked] = struct{}{}
	return tracked, nil
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.quiet.Load() {
		c.quiet.Store(false)
	}
	return n, err
}

// strand closes a connection that is still silent after another was answered.
func (c *conn) strand() {
	if c.quiet.Load() {
		c.stranded.Store(true)
		_ = c.Conn.Close() // what reads from it closes it again, and takes it off the list
	}
}

func (c *conn) Close() error {
	c.candidate.mu.Lock()
	delete(c.candidate.conns, c)
	c.candidate.mu.Unlock()
	return c.Conn.Close()
}

// givenUp takes note of the connection that a probe got no answer over.
func (c *candidate) givenUp(silent *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = append(c.silent, silent)
}
