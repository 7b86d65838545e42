package upstream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// maxReplay bounds, in bytes, a request body that is kept so that it can be sent again. What the
// API server says it has not begun is sent again on a new connection.
const maxReplay = 1 << 20

// upload is the body of a request, over several attempts.
type upload struct {
	kept   []byte    // all of it, or its beginning
	whole  bool      // kept is all of it
	rest   io.Reader // what comes after kept; nil: nothing
	source io.Closer // nil: no body

	mu     sync.Mutex
	reader *part // of the latest attempt; the ones before get no bytes any more
	begun  bool  // something of a body that is not whole was read
	failed error // by the client
}

// newUpload reads a body up to maxReplay. A client that breaks off its own body fails here, before
// anything of it is sent.
func newUpload(r *http.Request) (*upload, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return &upload{whole: true}, nil
	}
	u := &upload{source: r.Body}
	var err error
	u.kept, err = io.ReadAll(io.LimitReader(r.Body, maxReplay+1))
	if err != nil {
		_ = r.Body.Close()
		return nil, fmt.Errorf("read request body: %w", err)
	}
	if u.whole = len(u.kept) <= maxReplay; !u.whole {
		u.rest = r.Body
	}
	return u, nil
}

// give puts the body into a request that is about to be sent.
func (u *upload) give(r *http.Request) {
	if u.source == nil {
		r.Body, r.ContentLength = http.NoBody, 0
		return
	}
	if u.whole {
		r.ContentLength = int64(len(u.kept))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(u.kept)), nil }
		r.Body, _ = r.GetBody()
		if len(u.kept) == 0 {
			r.Body = http.NoBody
		}
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reader = &part{io.MultiReader(bytes.NewReader(u.kept), u.rest), u}
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
	if u.source != nil {
		_ = u.source.Close()
	}
}

// attempt is a request on its way over one address.
type attempt struct {
	stream bool        // its body may be silent for long
	sent   atomic.Bool // something of it may have arrived

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
	w := c.wait()
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
	x.waiter.done()
	x.waiter = nil
	return x.conn
}
