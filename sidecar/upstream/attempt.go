package upstream

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// maxReplay bounds, in bytes, a request body that is kept so that it can be sent again. What the
// API server says it has not begun is sent again on a new connection.
const maxReplay = 1 << 20

// upload is the body of a request, over several attempts.
type upload struct {
	kept   []byte    // all of it; nil: it is not kept
	whole  bool      // it is kept
	rest   io.Reader // a body that is not kept
	source io.Closer // nil: no body
	length int64     // negative: not known

	mu     sync.Mutex
	reader *part // of the latest attempt; the ones before get no bytes any more
	begun  bool  // something of a body that is not whole was read
	failed error // by the client
}

// maxKept bounds, in bytes, all bodies together that are kept. A body that finds no room is sent as
// it comes, and cannot be sent again.
const maxKept = 16 << 20

var keptBytes atomic.Int64

// newUpload reads a body whose length is known, up to maxReplay. A client that breaks off its own
// body fails here, before anything of it is sent. Other bodies are sent as they come: their client
// may wait for an answer before it goes on.
func newUpload(r *http.Request) (*upload, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return &upload{whole: true}, nil
	}
	u := &upload{source: r.Body, length: r.ContentLength}
	if u.length <= 0 || u.length > maxReplay || !keep(u.length) {
		u.length, u.rest = cmp.Or(u.length, -1), r.Body // as in http.Request, 0 is not known either
		return u, nil
	}
	u.whole, u.kept = true, make([]byte, u.length)
	if _, err := io.ReadFull(r.Body, u.kept); err != nil {
		u.close()
		return nil, fmt.Errorf("read request body: %w", err)
	}
	return u, nil
}

// keep takes room for a body, if there is any.
func keep(length int64) bool {
	if keptBytes.Add(length) <= maxKept {
		return true
	}
	keptBytes.Add(-length)
	return false
}

// duration is how long the body may be on its way over the thinnest link.
func (u *upload) duration() time.Duration {
	switch {
	case u.source == nil:
		return 0
	case u.length < 0:
		return ackTimeout
	}
	return min(time.Duration(u.length)*time.Second/thinnestLink, ackTimeout)
}

// forget lets go of the bytes: the request has been answered.
func (u *upload) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	keptBytes.Add(-int64(len(u.kept)))
	u.kept = nil
}

// give puts the body into a request that is about to be sent.
func (u *upload) give(r *http.Request) {
	if u.source == nil {
		r.Body, r.ContentLength = http.NoBody, 0
		return
	}
	if u.whole {
		r.ContentLength = u.length
		kept := u.kept
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(kept)), nil }
		r.Body, _ = r.GetBody()
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reader = &part{u.rest, u}
	r.GetBody = nil
	r.Body = io.NopCloser(u.reader)
}

// part is a body that is not whole, for one attempt.
type part struct {
	source io.Reader
	upload *upload
}

func (p *part) Read(b []byte) (int, error) {
	u := p.upload
	u.mu.Lock()
	current := u.reader == p
	u.begun = u.begun || current
	u.mu.Unlock()
	if !current {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := p.source.Read(b)
	if err != nil && err != io.EOF {
		u.mu.Lock()
		u.failed = err
		u.mu.Unlock()
	}
	return n, err
}

// repeatable tells that the body can be sent again. If so, the attempt before reads none of it any
// more.
func (u *upload) repeatable() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.begun {
		u.reader = nil
	}
	return !u.begun
}

// broken is the error of the client's body, nil if there was none.
func (u *upload) broken() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.failed
}

func (u *upload) close() {
	u.forget()
	if u.source != nil {
		_ = u.source.Close()
	}
}

// attempt is a request on its way over one address.
type attempt struct {
	stream bool          // its body may be silent for long
	upload time.Duration // see Silence
	sent   atomic.Bool   // something of it may have arrived

	mu     sync.Mutex
	conn   *conn // that it uses; nil: none yet
	waiter *waiter
}

type attemptKey struct{}

func attemptOf(ctx context.Context) *attempt {
	x, _ := ctx.Value(attemptKey{}).(*attempt)
	return x
}

// on notes the connection that the request uses now.
func (x *attempt) on(c *conn) {
	w := c.wait(x.upload)
	x.mu.Lock()
	before := x.waiter
	x.conn, x.waiter = c, w
	x.mu.Unlock()
	before.done()
}

// answered notes that the first bytes of the answer are here.
func (x *attempt) answered() *conn {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.waiter != nil {
		// The API server's own time is in it, so it only shows that the link is faster than thought.
		x.conn.address.measured(x.conn.address.clock.Since(x.waiter.since), false)
	}
	x.waiter.done()
	x.waiter = nil
	return x.conn
}
