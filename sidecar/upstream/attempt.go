package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// maxReplay bounds, in bytes, a request body that is kept so that it can be sent again. What the
// API server says it has not begun is sent again on a new connection.
const maxReplay = 1 << 20

// maxKept bounds, in bytes, all bodies together that are kept. What finds no room is sent as it
// comes, and cannot be sent again.
const maxKept = 16 << 20

var keptBytes atomic.Int64

// chunkSize is how many bytes of a body are read at once, if they are read as they are sent.
const chunkSize = 32 << 10

// upload is the body of a request, over several attempts. An attempt can end while its client sends
// nothing: fill reads the client's body, and only fill waits for it. A nil upload is no body.
type upload struct {
	source io.ReadCloser
	length int64 // negative: not known

	mu      sync.Mutex
	changed sync.Cond // any of the fields below
	read    int       // bytes of source that were read
	bytes   []byte    // the latest of them: all, or if lost those that came last
	lost    bool      // they cannot be sent again
	end     error     // of source: io.EOF, or the client's error
	reader  *part     // of the latest attempt; the ones before get no bytes any more
	filling bool      // fill runs
	chunk   []byte    // used by fill
}

// newUpload reads a body whose length is known, up to maxReplay. A client that breaks off its own
// body fails here, before anything of it is sent. Other bodies are read as they are sent: their
// client may wait for an answer before it goes on.
func newUpload(r *http.Request) (*upload, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	u := &upload{source: r.Body, length: r.ContentLength}
	u.changed.L = &u.mu
	if u.length <= 0 || u.length > maxReplay || !keep(int(u.length)) {
		u.length = cmp.Or(u.length, -1) // as in http.Request, 0 is not known either
		u.lost = u.length > 0
		return u, nil
	}
	u.bytes, u.read, u.end = make([]byte, u.length), int(u.length), io.EOF
	if _, err := io.ReadFull(r.Body, u.bytes); err != nil {
		u.close()
		return nil, fmt.Errorf("read request body: %w", err)
	}
	return u, nil
}

// keep takes room for bytes of a body, if there is any.
func keep(n int) bool {
	for {
		before := keptBytes.Load()
		if n > 0 && before+int64(n) > maxKept {
			return false
		}
		if keptBytes.CompareAndSwap(before, before+int64(n)) {
			return true
		}
	}
}

// duration is how long the body, as far as it is known, may be on its way over the thinnest link.
func (u *upload) duration() time.Duration {
	if u == nil {
		return 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	// In this order it does not overflow.
	seconds := min(max(u.length, int64(u.read))/thinnestLink, int64(longestUpload/time.Second))
	return time.Duration(seconds) * time.Second
}

// forget lets go of the bytes: the request has been answered. Its body may go on.
func (u *upload) forget() {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.reader == nil || u.reader.at >= u.read {
		u.lose()
	}
}

// lose is called with the lock held.
func (u *upload) lose() {
	if !u.lost {
		keptBytes.Add(-int64(len(u.bytes)))
	}
	u.bytes, u.lost = nil, true
}

// give puts the body into a request that is about to be sent.
func (u *upload) give(r *http.Request) {
	if u == nil {
		r.Body, r.ContentLength = http.NoBody, 0
		return
	}
	r.ContentLength, r.GetBody = u.length, u.again
	r.Body = u.begin()
}

// begin gives the body from its beginning. Whoever read it before gets no bytes any more.
func (u *upload) begin() *part {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reader = &part{upload: u}
	u.changed.Broadcast()
	return u.reader
}

// current is the body for the latest attempt, nil if there is none.
func (u *upload) current() *part {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.reader
}

// again is http.Request.GetBody.
func (u *upload) again() (io.ReadCloser, error) {
	if !u.repeatable() {
		return nil, errors.New("the body of the request is not kept, so that it cannot be sent again")
	}
	return u.begin(), nil
}

// fill reads from the source once. It ends when the client sends something, or when the client's
// request ends.
func (u *upload) fill() {
	n, err := u.source.Read(u.chunk)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.filling, u.end = false, err
	u.read += n
	if !u.lost && u.read <= maxReplay && keep(n) {
		u.bytes = append(u.bytes, u.chunk[:n]...)
	} else {
		u.lose()
		u.bytes = u.chunk[:n]
	}
	u.changed.Broadcast()
}

// part is the body for one attempt.
type part struct {
	upload *upload
	at     int // how many bytes were read, under the lock of upload
}

func (p *part) Read(b []byte) (int, error) {
	u := p.upload
	u.mu.Lock()
	defer u.mu.Unlock()
	for {
		switch behind := u.read - p.at; {
		case u.reader != p || behind > len(u.bytes):
			return 0, io.ErrUnexpectedEOF
		case behind > 0 || len(b) == 0:
			n := copy(b, u.bytes[len(u.bytes)-behind:])
			p.at += n
			return n, nil
		case u.end != nil:
			return 0, u.end
		case !u.filling:
			if u.chunk == nil {
				u.chunk = make([]byte, chunkSize)
			}
			u.filling = true
			go u.fill()
		}
		u.changed.Wait()
	}
}

// Close ends a Read that waits for the client. It is called when the connection has ended.
func (p *part) Close() error {
	if p == nil {
		return nil
	}
	u := p.upload
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.reader == p {
		u.reader = nil
		u.changed.Broadcast()
	}
	return nil
}

// repeatable tells that the body can be sent again. If so, the attempt before reads none of it any
// more.
func (u *upload) repeatable() bool {
	if u == nil {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.lost && u.read > 0 {
		return false
	}
	u.reader = nil
	u.changed.Broadcast()
	return true
}

// broken is the error of the client's body, nil if there was none.
func (u *upload) broken() error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.end == io.EOF {
		return nil
	}
	return u.end
}

func (u *upload) close() {
	if u == nil {
		return
	}
	u.mu.Lock()
	u.lose()
	u.reader = nil
	u.changed.Broadcast()
	u.mu.Unlock()
	_ = u.source.Close()
}

// attempt is a request on its way over one address. It is the request's context, so that the
// connections find it.
type attempt struct {
	context.Context
	stream  bool // its body may be silent for long
	upgrade bool // it needs HTTP/1.1
	upload  *upload
	sent    atomic.Bool // something of it may have arrived; not known of requests that are safe

	mu     sync.Mutex
	conn   *conn // that it uses; nil: none yet
	waiter *waiter
	first  waiter // which nearly all attempts have alone
}

type attemptKey struct{}

// Value gives the attempt to attemptOf.
func (x *attempt) Value(key any) any {
	if key == (attemptKey{}) {
		return x
	}
	return x.Context.Value(key)
}

// trace has the HTTP transports say which HTTP/1.1 connection the request uses, and when something
// of it may have arrived.
func (x *attempt) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if c, ok := info.Conn.(*conn); ok && c.http2 == nil {
				x.on(c)
			}
		},
		WroteHeaders: func() { x.sent.Store(true) },
	})
}

func attemptOf(ctx context.Context) *attempt {
	x, _ := ctx.Value(attemptKey{}).(*attempt)
	return x
}

// on notes the connection that the request uses now.
func (x *attempt) on(c *conn) {
	x.mu.Lock()
	before, w := x.waiter, &x.first
	if before == w {
		w = &waiter{}
	}
	c.wait(w, x.upload)
	x.conn, x.waiter = c, w
	before.done()
	x.mu.Unlock()
	if c.address.verdict() == Down { // since the address was chosen
		c.down()
	}
}

// used tells that the request had a connection.
func (x *attempt) used() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.conn != nil
}

// ended notes that the first bytes of the answer are here, or that none will come. It gives the
// connection, or nil.
func (x *attempt) ended(answered bool) *conn {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.waiter != nil && answered {
		// The API server's own time is in it, so it only shows that the link is faster than thought.
		x.conn.address.measured(x.conn.address.clock.Since(x.waiter.since), false)
	}
	x.waiter.done()
	x.waiter = nil
	return x.conn
}
