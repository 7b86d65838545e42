package upstream

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"
)

// errSilent ends a connection that gave no sign of life while somebody waited on it. A NAT gateway
// or a firewall may have forgotten it, or the link is down.
var errSilent = errors.New("nothing was heard on the connection, not even an answer to a PING")

// closeTimeout is how long the TLS goodbye of a connection may take.
const closeTimeout = 250 * time.Millisecond

// epoch is when the process began. Times are kept as their distance from it, because a node without
// a clock of its own sets its time after it has started.
var epoch = time.Now()

// instant is a time that several goroutines move forward. Its zero value is no time.
type instant struct{ sinceEpoch atomic.Int64 }

func (i *instant) advance(to time.Time) {
	for at := int64(to.Sub(epoch)); ; {
		before := i.sinceEpoch.Load()
		if at <= before || i.sinceEpoch.CompareAndSwap(before, at) {
			return
		}
	}
}

func (i *instant) time() time.Time {
	if at := i.sinceEpoch.Load(); at != 0 {
		return epoch.Add(time.Duration(at))
	}
	return time.Time{}
}

// socket is the TCP connection below TLS. It notes when bytes come.
type socket struct {
	net.Conn
	address  *address
	dialing  *dialing
	verified atomic.Bool // the handshake is done: later bytes come from the API server
	heard    instant     // the latest byte after that
	reads    atomic.Int64
}

func (s *socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if n > 0 {
		s.reads.Add(1)
		s.hear(s.address.clock.Now())
		s.address.meter.Wire(n, 0)
	}
	return n, err
}

func (s *socket) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	s.address.meter.Wire(0, n)
	return n, err
}

// hear notes that something came. Before the handshake is verified it is progress of the dial only.
func (s *socket) hear(at time.Time) {
	if !s.verified.Load() {
		s.dialing.progress.advance(at)
		return
	}
	s.heard.advance(at)
	s.address.heard.advance(at)
}

// conn is one verified connection. Locks are taken in the order Upstream.eventMu, conn.mu,
// address.mu or upload.mu. No lock is held when the HTTP transports, or Upstream.refresh, are called.
type conn struct {
	*tls.Conn
	socket  *socket
	address *address
	roots   *roots
	http2   *http2Conn // nil: HTTP/1.1
	beside  *conn      // of a shortPool; nil: it is of none
	closing atomic.Bool
	removed bool // guarded by the lock of the address

	mu       sync.Mutex
	waiters  map[*waiter]struct{}
	streams  int // open responses
	pinged   time.Time
	progress uint64      // of its segments, when the PING was sent or later
	timer    clock.Timer // of the next look; nil: none
	due      time.Time   // of that look
	closed   error       // why it was closed here; nil: it was not
}

// waiter is somebody who waits for bytes on a connection.
type waiter struct {
	conn   *conn
	since  time.Time
	upload *upload // nil: none
	body   *part   // of it, for this connection
}

// silence is the evidence, without Upload. The lock is held.
func (c *conn) silence() Silence {
	s := Silence{
		Heard: c.socket.heard.time(), Pinged: c.pinged, Streams: c.streams > 0,
		CanPing: c.http2 != nil, RoundTrip: c.address.roundTrip(),
	}
	for w := range c.waiters {
		if s.Waiting.IsZero() || s.asks(w.since).Before(s.asks(s.Waiting)) {
			s.Waiting = w.since
		}
	}
	return s
}

// upload is the longest of those who wait. The lock is held.
func (c *conn) upload() (longest time.Duration) {
	for w := range c.waiters {
		longest = max(longest, w.upload.duration())
	}
	return longest
}

// wait is called by somebody who waits for bytes; done must be called. Until then w is in use.
func (c *conn) wait(w *waiter, upload *upload) {
	*w = waiter{c, c.address.clock.Now(), upload, upload.current()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters[w] = struct{}{}
	if c.closing.Load() {
		_ = w.body.Close()
	}
	if c.timer == nil || c.due.After(w.since.Add(askAfter)) {
		c.lookLocked()
	}
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
	defer c.mu.Unlock()
	c.streams += more
	if more > 0 && c.timer == nil {
		c.lookLocked()
	}
}

// look judges the connection and does what it needs.
func (c *conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lookLocked()
}

func (c *conn) lookLocked() {
	c.stopTimer()
	if c.closing.Load() {
		return
	}
	now, keepalive := c.address.clock.Now(), c.address.keepalive()
	todo, at := c.silence().next(now, keepalive)
	if todo == closeConn {
		// A segment that the peer only repeats does not tell that ours arrive.
		kernel := c.address.segments(c.socket.Conn)
		if kernel.progress != c.progress {
			c.progress = kernel.progress
			c.socket.hear(now.Add(-kernel.ago))
		}
		s := c.silence()
		if kernel.arrived {
			s.Upload = c.upload()
		}
		todo, at = s.next(now, keepalive)
	}
	switch todo {
	case sendPing:
		c.ping(now)
		_, at = c.silence().next(now, keepalive)
	case askDial:
		at = c.ask(now)
	case closeConn:
		c.close(errSilent)
		return
	}
	if !at.IsZero() {
		c.due = at
		c.timer = c.address.clock.AfterFunc(at.Sub(now), c.look)
	}
}

// ask finds out whether the address answers while a request waits over HTTP/1.1, and gives the time
// of the next look. The lock is held.
func (c *conn) ask(now time.Time) (next time.Time) {
	if c.beside == nil {
		c.address.reach()
		return now.Add(http1Interval)
	}
	// The HTTP/2 connection can be asked. What it tells of the link holds for this connection, too,
	// except that this one alone may be dead: after longAsk its request is sent over the other one.
	wait := patience(c.address.roundTrip())
	silent := now.Sub(latest(c.socket.heard.time(), c.silence().Waiting))
	if silent >= longAsk || silent >= wait && (!c.beside.open() || !c.address.segments(c.socket.Conn).arrived) {
		c.close(errSilent)
		return time.Time{}
	}
	c.address.run(c.address.check)
	return now.Add(wait)
}

// ping sends a PING, whose answer measures the round trip. The lock is held.
func (c *conn) ping(now time.Time) {
	if c.http2 == nil || !c.pinged.IsZero() || c.closing.Load() {
		return
	}
	reads := c.socket.reads.Load()
	c.progress = c.address.segments(c.socket.Conn).progress
	if c.address.run(func() {
		err := c.http2.Ping(c.address.ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.pinged = time.Time{}
		if err == nil {
			// An answer that came after other bytes may have waited for them in a queue.
			alone := c.socket.reads.Load() == reads+1
			c.address.measured(c.address.clock.Since(now), alone)
			c.lookLocked()
		}
	}) {
		c.pinged = now
	}
}

// close ends the connection for a reason. The lock is held. TLS does not say goodbye: that would
// wait for a peer that may be gone.
func (c *conn) close(reason error) {
	if c.closing.Swap(true) {
		return
	}
	c.closed = reason
	c.stopTimer()
	_ = c.socket.Close()
}

// end closes the connection for a reason.
func (c *conn) end(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.close(reason)
}

func (c *conn) stopTimer() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
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

// Close is called by the HTTP transport that uses the connection. The transport waits for those who
// read bodies of requests, and those may wait for their clients.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closing.Store(true)
	c.stopTimer()
	for w := range c.waiters {
		_ = w.body.Close()
	}
	c.mu.Unlock()
	c.address.remove(c)
	force := time.AfterFunc(closeTimeout, func() { _ = c.socket.Close() })
	defer force.Stop()
	return c.Conn.Close()
}

// open tells that PINGs can show whether the connection is alive.
func (c *conn) open() bool { return c.http2 != nil && !c.closing.Load() }

// usable tells that the connection takes new requests. It waits for no writer: the HTTP transport's
// own State does, and a writer may wait for a dead link.
func (c *conn) usable() bool { return c.open() && c.http2.CanTakeNewRequest() }

// doubt is called when a new connection has failed: this one ends unless a PING is answered.
func (c *conn) doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ping(c.address.clock.Now())
	c.lookLocked()
}

// down is called when the address is. HTTP/1.1 has no PING that could tell who waits in vain.
func (c *conn) down() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http2 == nil && len(c.waiters) > 0 {
		c.close(errSilent)
	}
}
