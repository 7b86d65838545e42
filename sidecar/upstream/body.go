package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"rockpool.dev/sidecar/api/origin"
)

// guard belongs to a response body. It tells failures of the link from those of the client.
type guard struct {
	conn      *conn // nil if unknown
	address   *address
	clientCtx context.Context
	stream    bool               // nobody expects a byte at any time
	cancel    context.CancelFunc // of the request
	upload    *upload
	once      sync.Once
}

// finish is called when the body has ended, however it did.
func (g *guard) finish() {
	g.once.Do(func() {
		if g.conn != nil {
			g.conn.stream(-1)
		}
		g.cancel()
		g.upload.close()
	})
}

// failed returns the error to report for a read error.
func (g *guard) failed(err error) error {
	defer g.finish()
	switch reason := g.conn.reason(); {
	case g.clientCtx.Err() != nil:
		return g.clientCtx.Err()
	case reason != nil:
		err = reason
	case !isConnectionError(err):
		return err
	}
	return &LinkError{Servers: []ServerError{{g.address.name, err}}}
}

// guardBody wraps a body. The wrapped body of a 101 stays writable.
func guardBody(guarded *guardedBody) io.ReadCloser {
	if c := guarded.guard.conn; c != nil {
		c.stream(1)
	}
	body := guarded.source
	if writer, ok := body.(io.ReadWriteCloser); ok {
		return &guardedConn{guardedBody: guarded, writer: writer}
	}
	return guarded
}

type guardedBody struct {
	source io.ReadCloser
	guard  guard
	waiter waiter      // of a Read that waits
	err    error       // returned by Read, and again by each Read after it
	closed atomic.Bool // by the caller: a pending Read then fails, but the link has not failed
}

func (b *guardedBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	var w *waiter
	if b.guard.conn != nil && !b.guard.stream {
		w = &b.waiter
		b.guard.conn.wait(w, nil)
	}
	n, err := b.source.Read(p)
	w.done()
	if err == nil {
		return n, nil
	}
	switch {
	case b.closed.Load():
		b.guard.finish()
	case err == io.EOF && b.guard.clientCtx.Err() == nil && b.guard.conn.reason() == nil:
		b.guard.finish()
	default:
		// A server that sees the cancellation may end its response normally, and its EOF may arrive
		// before the connection is closed. The response must not look complete.
		err = b.guard.failed(err)
	}
	b.err = err
	return n, err
}

// Close cancels the request first: closing a stream would wait for a writer, which may wait for a
// dead link.
func (b *guardedBody) Close() error {
	b.closed.Store(true)
	b.guard.finish()
	return b.source.Close()
}

// guardedConn is the body of a 101. After the switch of protocols the connection no longer depends
// on the request. It ends when either side closes it, or when the kernel finds its peer gone.
type guardedConn struct {
	*guardedBody
	writer io.Writer
}

var _ io.ReadWriteCloser = (*guardedConn)(nil)

func (c *guardedConn) Read(p []byte) (int, error) {
	n, err := c.source.Read(p)
	if err != nil {
		c.guard.finish()
	}
	return n, err
}

func (c *guardedConn) Write(p []byte) (int, error) { return c.writer.Write(p) }

// CloseWrite ends one direction before the other, if the connection supports that.
func (c *guardedConn) CloseWrite() error {
	if half, ok := c.writer.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// refuseBalancer returns an error for a 502, 503 or 504 that a load balancer sent. If the API server
// sent it, it is an answer and goes to the client.
func refuseBalancer(response *http.Response) error {
	switch response.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		if !origin.FromAPIServer(response) {
			_ = response.Body.Close()
			return unavailable{response.Status}
		}
	}
	return nil
}
