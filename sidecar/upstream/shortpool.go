package upstream

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
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
)

// errIdle ends a connection for short requests that nobody uses.
var errIdle = errors.New("it is not used any more")

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
		if c.beside == beside && !c.closing.Load() && c.quiet() {
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

// isPlain reports whether a URL can be written as a request target: nothing in it is left to be
// escaped.
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
