package proxy

import (
	"io"
	"net/http"
	"sync"
)

// A body is copied with a small buffer until a read fills it, then with a large one until a read
// would fit into the small one. A watch holds its buffer while it is quiet: hundreds of watches
// must not hold 32 KiB each, also after their first events. A large list is faster with the large
// buffer.
const (
	smallBuffer = 4 << 10
	largeBuffer = 32 << 10
)

var (
	smallBuffers = bufferPool{sync.Pool{New: func() any { return newBuffer(smallBuffer) }}}
	largeBuffers = bufferPool{sync.Pool{New: func() any { return newBuffer(largeBuffer) }}}
)

func newBuffer(size int) *[]byte { b := make([]byte, size); return &b }

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) get() *[]byte  { return p.pool.Get().(*[]byte) }
func (p *bufferPool) put(b *[]byte) { p.pool.Put(b) }

// body is the body of upstream's response. It keeps the errors, because goproxy ends the response
// as if it were complete. It is used as a pointer, because goproxy compares bodies to see whether
// one was replaced. It is a WriterTo, because goproxy's io.Copy would otherwise allocate 32 KiB per
// response.
type body struct {
	source   io.ReadCloser
	from, to *http.Response // whose trailers are known, and wanted, at the end
	readErr  error          // reading from upstream
	writeErr error          // writing to the client
}

var _ io.WriterTo = (*body)(nil)

func (b *body) Read(p []byte) (int, error) {
	n, err := b.source.Read(p)
	switch err {
	case nil:
	case io.EOF:
		b.to.Trailer = b.from.Trailer
	default:
		b.readErr = err
	}
	return n, err
}

func (b *body) WriteTo(w io.Writer) (written int64, err error) {
	if source, ok := b.source.(io.WriterTo); ok {
		return b.writeAll(w, source)
	}
	pool := &smallBuffers
	buffer := pool.get()
	defer func() { pool.put(buffer) }()
	for {
		n, readErr := b.Read(*buffer)
		if n > 0 {
			m, writeErr := w.Write((*buffer)[:n])
			written += int64(m)
			if writeErr != nil {
				b.writeErr = writeErr
				return written, writeErr
			}
		}
		if readErr == io.EOF {
			return written, nil
		}
		if readErr != nil {
			return written, readErr
		}
		next := pool
		switch {
		case n == len(*buffer):
			next = &largeBuffers
		case n < smallBuffer:
			next = &smallBuffers
		}
		if next != pool {
			pool.put(buffer)
			pool, buffer = next, next.get()
		}
	}
}

// writeAll is WriteTo for a body that writes itself, such as a list from the cache.
func (b *body) writeAll(w io.Writer, source io.WriterTo) (written int64, err error) {
	to := &observed{Writer: w}
	written, err = source.WriteTo(to)
	switch {
	case to.err != nil:
		b.writeErr = to.err
	case err != nil:
		b.readErr = err
	default:
		b.to.Trailer = b.from.Trailer
	}
	return written, err
}

// observed keeps the error of a Write.
type observed struct {
	io.Writer
	err error
}

func (o *observed) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	o.err = err
	return n, err
}

func (b *body) Close() error { return b.source.Close() }

// upload is the body of the client's request. http.Transport closes the body when it fails, and
// closing a body of net/http's server waits for bytes that a client with "Expect: 100-continue" may
// never send. The server closes the body after the handler anyway, so Close only makes later reads
// fail.
type upload struct {
	source io.ReadCloser
	mu     sync.Mutex
	closed bool
	ended  bool // all of it was read, or its client has gone
}

func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	closed := u.closed
	u.mu.Unlock()
	if closed {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := u.source.Read(p)
	if err != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.ended = true
	}
	return n, err
}

// pending tells that there is more to read.
func (u *upload) pending() bool {
	if u == nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.ended
}

func (u *upload) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	return nil
}
