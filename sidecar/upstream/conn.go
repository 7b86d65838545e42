package upstream

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"k8s.io/utils/clock"
)

// errSilent ends a connection that gave no sign of life while somebody waited on it. A NAT gateway
// or a firewall may have forgotten it, or the link is down.
var errSilent = errors.New("nothing was heard on the connection, not even an answer to a PING")

// socket is the TCP connection below TLS. It notes when bytes come.
type socket struct {
	net.Conn
	address  *address
	verified atomic.Bool  // the handshake is done: what comes now comes from the API server
	heard    atomic.Int64 // when the latest byte came after that, in ns since 1970
}

func (s *socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if n > 0 && s.verified.Load() {
		s.stamp()
	}
	return n, err
}

func (s *socket) stamp() {
	now := s.address.clock.Now().UnixNano()
	s.heard.Store(now)
	s.address.heard.Store(now)
}

// conn is one verified connection.
type conn struct {
	*tls.Conn
	socket  *socket
	address *address
	http2   *http2.ClientConn // nil: HTTP/1.1

	mu      sync.Mutex
	waiters map[*waiter]struct{}
	streams int // open responses
	pinged  time.Time
	timer   clock.Timer // of the next look; nil: none
	closed  error       // why it was closed here; nil: it was not
}

// waiter is somebody who waits for bytes on a connection.
type waiter struct {
	conn  *conn
	since time.Time
}

// silence is the evidence. The lock is held.
func (c *conn) silence() Silence {
	s := Silence{
		Heard: time.Unix(0, c.socket.heard.Load()), Pinged: c.pinged, Streams: c.streams > 0,
		CanPing: c.http2 != nil, RoundTrip: c.address.roundTrip(),
	}
	for w := range c.waiters {
		if s.Waiting.IsZero() || w.since.Before(s.Waiting) {
			s.Waiting = w.since
		}
	}
	return s
}

// wait is called by somebody who waits for bytes; done must be called.
func (c *conn) wait() *waiter {
	w := &waiter{c, c.address.clock.Now()}
	c.mu.Lock()
	c.waiters[w] = struct{}{}
	look := c.timer == nil || len(c.waiters) == 1
	c.mu.Unlock()
	if look {
		c.look()
	}
	return w
}

func (w *waiter) done() {
	if w == nil {
		return
	}
	w.conn.mu.Lock()
	defer w.conn.mu.Unlock()
	delete(w.conn.waiters, w)
}

// stream notes that a response is open, or no more.
func (c *conn) stream(more int) {
	c.mu.Lock()
	c.streams += more
	look := more > 0 && c.timer == nil
	c.mu.Unlock()
	if look {
		c.look()
	}
}

// look judges the connection and does what it needs.
func (c *conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if c.closed != nil {
		return
	}
	now := c.address.clock.Now()
	todo, at := c.silence().next(now, c.address.keepalive())
	switch todo {
	case sendPing:
		c.ping(now)
		_, at = c.silence().next(now, c.address.keepalive())
	case askDial:
		c.address.reach()
		at = now.Add(http1Interval)
	case closeConn:
		c.close(errSilent)
		return
	}
	if !at.IsZero() {
		c.timer = c.address.clock.AfterFunc(at.Sub(now), c.look)
	}
}

// ping sends a PING, whose answer measures the round trip. The lock is held.
func (c *conn) ping(now time.Time) {
	if c.http2 == nil || !c.pinged.IsZero() {
		return
	}
	c.pinged = now
	c.address.goes.Go(func() {
		err := c.http2.Ping(c.address.ctx)
		c.mu.Lock()
		c.pinged = time.Time{}
		c.mu.Unlock()
		if err == nil {
			c.address.measured(c.address.clock.Since(now))
			c.look()
		}
	})
}

// ask asks for a sign of life.
func (c *conn) ask() {
	c.mu.Lock()
	if c.closed == nil {
		c.ping(c.address.clock.Now())
	}
	c.mu.Unlock()
	c.look()
}

// close ends the connection for a reason. The lock is held.
func (c *conn) close(reason error) {
	if c.closed != nil {
		return
	}
	c.closed = reason
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	// TLS would wait for the peer to take its goodbye.
	c.address.goes.Go(func() { _ = c.socket.Close() })
}

// end closes the connection for a reason.
func (c *conn) end(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.close(reason)
}

// reason is why the connection was closed here; nil: it was not, or there is none.
func (c *conn) reason() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// Close is called by the HTTP transport that uses the connection.
func (c *conn) Close() error {
	c.address.remove(c)
	c.mu.Lock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

// usable tells that the connection takes new requests.
func (c *conn) usable() bool {
	return c.http2 != nil && c.reason() == nil && c.http2.CanTakeNewRequest()
}

// retire lets requests in flight go on, and has new ones use another connection.
func (c *conn) retire() {
	if c.http2 != nil {
		c.http2.SetDoNotReuse()
	}
}

// down is called when the address is: nobody shall wait longer than for an answer to a PING.
func (c *conn) down() {
	c.mu.Lock()
	waited := len(c.waiters) > 0
	c.mu.Unlock()
	switch {
	case c.http2 != nil:
		c.ask()
	case waited:
		c.end(errSilent)
	}
}
