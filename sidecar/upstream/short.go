package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"
)

// Short requests may go over a few HTTP/1.1 connections beside the HTTP/2 connection. One goroutine
// writes such a request and reads its answer, which takes less CPU time than handing both to the
// goroutines of an HTTP/2 connection.
//
// That only happens where the API server is near: over a thin link a second connection would cost
// bytes, and the time of a request would be that of the link. Nothing of the link depends on these
// connections: without a free one, or after a failure of one, a request goes over HTTP/2.
const (
	// nearby is the longest round trip of an API server that is near.
	nearby = 5 * time.Millisecond
	// maxShort is how many connections there may be.
	maxShort = 16
	// busy is how many short requests in a busyTime have a connection made.
	busy     = 10
	busyTime = time.Second
	// shortRetry is how long after a failed dial the next one may begin.
	shortRetry = time.Minute
	// maxResponseHeader bounds the header of an answer, in bytes, as net/http does.
	maxResponseHeader = 10 << 20
	// maxInterim bounds the 1xx responses before an answer.
	maxInterim = 5
)

var (
	errAbandoned = errors.New("its request has ended before its answer")
	errHeader    = errors.New("the header of the answer is too large")
	errUnasked   = errors.New("it sent bytes that nobody has asked for")
	errIdle      = errors.New("it is not used any more")
	errInterim   = errors.New("too many 1xx responses")
)

// shortPool has the HTTP/1.1 connections of an address for short requests.
type shortPool struct {
	address *address

	mu      sync.Mutex
	idle    []*shortConn // the latest used last
	open    int          // idle, in use and on their way
	dialing bool
	next    time.Time // when a dial may begin; zero: at any time
	asked   int       // since began
	began   time.Time
	timer   clock.Timer // closes idle connections; nil: there are none
}

// take gives a connection for a request, or nil: the request goes over HTTP/2.
func (p *shortPool) take(r *http.Request) *shortConn {
	a := p.address
	if r.Method != http.MethodGet || (r.Body != nil && r.Body != http.NoBody) || !isPlain(r.URL) {
		return nil
	}
	beside := a.near()
	if beside == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(a.clock.Now())
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if c.beside == beside && !c.closing.Load() {
			return c
		}
		p.open--
		a.run(func() { c.discard(errIdle) })
	}
	if p.asked >= busy && !p.dialing && p.open < maxShort && !a.clock.Now().Before(p.next) && a.run(func() { p.dial(beside) }) {
		p.dialing = true
		p.open++
	}
	return nil
}

// isPlain reports whether a URL can be written as a request target: nothing in it is left to be escaped.
func isPlain(u *url.URL) bool {
	return u.Opaque == "" && strings.HasPrefix(u.Path, "/") &&
		!strings.ContainsFunc(u.RawQuery, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// count counts a request. The lock is held.
func (p *shortPool) count(now time.Time) {
	if now.Sub(p.began) > busyTime {
		p.began, p.asked = now, 0
	}
	p.asked++
}

// near gives the HTTP/2 connection of an API server that is near, or nil. It tells whether the link is
// up. When it takes no more requests, because the API server goes away or the CAs have changed, the
// connections beside it are not used any more either.
func (a *address) near() *conn {
	if a.http1.Load() {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rtt == 0 || a.rtt > nearby || a.closeReason != nil {
		return nil
	}
	for _, c := range slices.Backward(a.conns) {
		if c.usable() {
			return c
		}
	}
	return nil
}

// dial makes one more connection.
func (p *shortPool) dial(beside *conn) {
	a := p.address
	c, err := a.dial(a.ctx, newDialing(a.clock.Now()), "http/1.1")
	if err == nil {
		c.beside = beside
		err = a.add(c)
	}
	if err != nil {
		a.logger.Debug("cannot make an HTTP/1.1 connection for short requests; they go over HTTP/2", a.field(), zap.Error(err))
	}
	p.mu.Lock()
	p.dialing = false
	if err != nil {
		p.open--
		p.next = a.clock.Now().Add(shortRetry)
	}
	p.mu.Unlock()
	if err == nil {
		p.put(newShortConn(p, c))
	}
}

// put gives back a connection whose answer was read to its end.
func (p *shortPool) put(c *shortConn) {
	if !c.beside.usable() {
		p.drop()
		c.discard(errIdle)
		return
	}
	c.since = p.address.clock.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, c)
	if p.timer == nil {
		p.timer = p.address.clock.AfterFunc(idleConnTimeout, p.expire)
	}
}

// expire closes the connections that were idle for long.
func (p *shortPool) expire() {
	now := p.address.clock.Now()
	p.closeIdle(func(c *shortConn) bool { return now.Sub(c.since) >= idleConnTimeout })
}

// closeIdle closes the idle connections that are of no more use.
func (p *shortPool) closeIdle(useless func(*shortConn) bool) {
	var closed []*shortConn
	p.mu.Lock()
	p.idle = slices.DeleteFunc(p.idle, func(c *shortConn) bool {
		if !useless(c) {
			return false
		}
		closed = append(closed, c)
		return true
	})
	p.open -= len(closed)
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	if len(p.idle) > 0 {
		p.timer = p.address.clock.AfterFunc(idleConnTimeout, p.expire)
	}
	p.mu.Unlock()
	for _, c := range closed {
		c.discard(errIdle)
	}
}

// drop forgets a connection that was in use.
func (p *shortPool) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
}

// closeAllIdle closes the idle connections.
func (p *shortPool) closeAllIdle() { p.closeIdle(func(*shortConn) bool { return true }) }

// shortConn is a connection for short requests, of one after the other.
type shortConn struct {
	*conn
	pool  *shortPool
	in    *bufio.Reader
	out   *bufio.Writer
	limit int64     // bytes of the header that may still come
	since time.Time // when it was put back
}

const shortBuffer = 4 << 10

func newShortConn(p *shortPool, c *conn) *shortConn {
	s := &shortConn{conn: c, pool: p}
	s.in, s.out = bufio.NewReaderSize(shortReader{s}, shortBuffer), bufio.NewWriterSize(c, shortBuffer)
	return s
}

// shortReader bounds the header of an answer.
type shortReader struct{ *shortConn }

func (r shortReader) Read(p []byte) (int, error) {
	if r.limit <= 0 {
		return 0, errHeader
	}
	n, err := r.conn.Read(p[:min(int64(len(p)), r.limit)])
	r.limit -= int64(n)
	return n, err
}

// discard closes the connection for good. The peer is not told: nobody waits for that.
func (c *shortConn) discard(reason error) {
	c.end(reason)
	_ = c.Close()
}

// shortUse is the use of a connection by one request, and the body of its answer.
type shortUse struct {
	conn  *shortConn
	stop  func() bool // ends the wait for the end of the request's context
	keep  bool        // the API server keeps the connection
	body  io.ReadCloser
	atEnd atomic.Bool // the answer was read to its end
}

// use takes the connection for a request. It is closed when the context ends before done is called.
func (c *shortConn) use(ctx context.Context) *shortUse {
	return &shortUse{conn: c, stop: context.AfterFunc(ctx, func() { c.end(errAbandoned) })}
}

// done ends the use. The connection is used again if the answer was read to its end.
func (s *shortUse) done() {
	switch c := s.conn; {
	case !s.stop() || !s.keep || !s.atEnd.Load() || c.closing.Load():
		c.pool.drop()
		c.discard(errAbandoned)
	case c.in.Buffered() > 0:
		c.pool.drop()
		c.discard(errUnasked)
	default:
		c.pool.put(c)
	}
}

// roundTrip sends a request and reads the header of its answer. It asks for gzip if compressed.
func (s *shortUse) roundTrip(r *http.Request, x *attempt, compressed bool) (*http.Response, error) {
	c := s.conn
	x.on(c.conn)
	if err := c.send(r, compressed); err != nil {
		return nil, err
	}
	for range maxInterim {
		c.limit = maxResponseHeader
		response, err := http.ReadResponse(c.in, r)
		if err != nil {
			return nil, err
		}
		if response.StatusCode >= http.StatusOK {
			c.limit = math.MaxInt64
			s.keep = !response.Close
			if response.Body == http.NoBody {
				s.atEnd.Store(true)
			} else {
				s.body, response.Body = response.Body, s
			}
			return response, nil
		}
		if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(response.StatusCode, textproto.MIMEHeader(response.Header)); err != nil {
				return nil, err
			}
		}
	}
	return nil, errInterim
}

// notForwarded are fields of a request's header that are written for each connection.
var notForwarded = map[string]bool{"Host": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true, "Connection": true}

// send writes a request without a body (RFC 9112 §3). http.Request.Write would do it with a copy of the
// request, its URL and its header for this address.
func (c *shortConn) send(r *http.Request, compressed bool) error {
	uri := c.address.uri(r.URL)
	for _, text := range []string{http.MethodGet, " ", uri, " HTTP/1.1\r\nHost: ", c.address.server.URL.Host, "\r\n"} {
		_, _ = c.out.WriteString(text) // Flush has the error
	}
	if compressed {
		_, _ = c.out.WriteString("Accept-Encoding: gzip\r\n")
	}
	if err := r.Header.WriteSubset(c.out, notForwarded); err != nil {
		return err
	}
	_, _ = c.out.WriteString("\r\n")
	return c.out.Flush()
}

func (s *shortUse) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if err == io.EOF {
		s.atEnd.Store(true)
	}
	return n, err
}

// Close does nothing: guard has called done, and the connection may be in use again.
func (s *shortUse) Close() error { return nil }
