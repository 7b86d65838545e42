package proxy

import (
	"io"
	"net/http"
	"sync"
)

// A body is copied with a small buffer until a read fills it: a watch holds its buffer for as long as it is open, so
// hundreds of them must not hold 32 KiB each, while a large list wants the large one.
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

// body is upstream's response body on its way to the client. It keeps what went wrong, because goproxy ends the
// response as if it were complete. It is a pointer, as goproxy compares bodies to see whether one was replaced, and
// a WriterTo, as goproxy's io.Copy would otherwise allocate 32 KiB for each response.
type body struct {
	source   io.ReadCloser
	readErr  error // from upstream
	writeErr error // from the client
}

var _ io.WriterTo = (*body)(nil)

func (b *body) Read(p []byte) (int, error) {
	n, err := b.source.Read(p)
	if err != nil && err != io.EOF {
		b.readErr = err
	}
	return n, err
}

func (b *body) WriteTo(w io.Writer) (written int64, err error) {
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
		if n == smallBuffer && pool == &smallBuffers {
			pool.put(buffer)
			pool = &largeBuffers
			buffer = pool.get()
		}
	}
}

func (b *body) Close() error { return b.source.Close() }

// upload is the client's request body on its way to upstream. http.Transport closes the body when it fails, and
// closing net/http's server body waits for bytes that a client with "Expect: 100-continue" has not been
// asked for. The server closes it anyway after the handler; so Close only makes later reads fail.
type upload struct {
	source io.ReadCloser
	mu     sync.Mutex
	closed bool
}

func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	closed := u.closed
	u.mu.Unlock()
	if closed {
		return 0, http.ErrBodyReadAfterClose
	}
	return u.source.Read(p)
}

func (u *upload) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	return nil
}
