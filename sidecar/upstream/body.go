package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// guard belongs to a response body. It tells failures of the link from those of the client, and
// ends the request's context.
type guard struct {
	upstream   *Upstream
	address    *address
	conn       *conn // nil if unknown
	clientCtx  context.Context
	addressCtx context.Context // ends when the address is down; its cause is an interrupted
	firstByte  func()          // called when the first part of the body has arrived
	end        func()
}

// failed returns the error to report for a read error, or for an io.EOF that cannot be trusted.
func (g *guard) failed(err error) error {
	defer g.end()
	var interruption interrupted
	switch {
	case g.clientCtx.Err() != nil:
		return g.clientCtx.Err()
	case errors.As(context.Cause(g.addressCtx), &interruption):
		return &LinkError{Servers: []ServerError{{g.address.name, interruption.reason}}}
	case g.conn != nil && g.conn.closedSilent.Load():
		return &LinkError{Servers: []ServerError{{g.address.name, errClosedSilent}}}
	case !isConnectionError(err):
		return err
	}
	link := &LinkError{Servers: []ServerError{{g.address.name, err}}}
	g.address.requestFailed(err)
	g.upstream.requestFailed(link)
	return link
}

// guardBody wraps a body. The wrapped body of a 101 stays writable.
func guardBody(body io.ReadCloser, g *guard) io.ReadCloser {
	guarded := &guardedBody{source: body, guard: g}
	if writer, ok := body.(io.ReadWriteCloser); ok {
		return &guardedConn{guardedBody: guarded, writer: writer}
	}
	return guarded
}

type guardedBody struct {
	source  io.ReadCloser
	guard   *guard
	started bool        // the first byte has arrived
	err     error       // returned by Read, and again by each Read after it
	closed  atomic.Bool // by the caller: a pending Read then fails, but the link has not failed
}

func (b *guardedBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.source.Read(p)
	if !b.started && n > 0 {
		b.started = true
		b.guard.firstByte()
	}
	if err == nil {
		return n, nil
	}
	switch {
	case b.closed.Load():
		b.guard.end()
	case err == io.EOF && b.guard.clientCtx.Err() == nil && b.guard.addressCtx.Err() == nil:
		b.guard.end()
	default:
		// A server that sees the cancellation may end its response normally, and its EOF may arrive
		// before the connection is closed. The response must not look complete.
		err = b.guard.failed(err)
	}
	b.err = err
	return n, err
}

func (b *guardedBody) Close() error {
	b.closed.Store(true)
	err := b.source.Close()
	b.guard.end()
	return err
}

// guardedConn is the body of a 101. After the switch of protocols the connection no longer depends
// on the request's context. It ends when either side closes it, or when the address goes down.
type guardedConn struct {
	*guardedBody
	writer io.Writer
}

var _ io.ReadWriteCloser = (*guardedConn)(nil)

func (c *guardedConn) Read(p []byte) (int, error) {
	n, err := c.source.Read(p)
	if err != nil {
		c.guard.end()
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

// maxStatusBody is larger than any Status.
const maxStatusBody = 64 << 10

// refuseBalancer returns an error for a 502, 503 or 504 whose body shows that a load balancer sent
// it. If the API server sent it, it is an answer and goes to the client.
func refuseBalancer(method string, response *http.Response) error {
	switch response.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return nil
	}
	// kube-apiserver sets Audit-Id on every response, also on those in plain text, such as a 503
	// for an aggregated API without a backend.
	if method == http.MethodHead || response.Header.Get("Audit-Id") != "" {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxStatusBody))
	if err != nil {
		_ = response.Body.Close()
		return err
	}
	if !isStatus(response.Header.Get("Content-Type"), data) {
		_ = response.Body.Close()
		return unavailable{response.Status}
	}
	response.Body = &prefixedBody{Reader: io.MultiReader(bytes.NewReader(data), response.Body), Closer: response.Body}
	return nil
}

type prefixedBody struct {
	io.Reader
	io.Closer
}

// isStatus recognises a Status in JSON, and any message in Kubernetes' protobuf, which only API
// servers send.
func isStatus(contentType string, data []byte) bool {
	if strings.HasPrefix(contentType, "application/vnd.kubernetes.protobuf") {
		return bytes.HasPrefix(data, []byte("k8s\x00"))
	}
	var object struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
	}
	return json.Unmarshal(data, &object) == nil && object.Kind == "Status" && object.APIVersion == "v1"
}

// upload is a request body over several attempts. http.Transport closes the body of a failed
// attempt. The client's body stays open while nothing was read from it and another attempt may
// follow.
type upload struct {
	source io.ReadCloser // nil if there is no body

	mu       sync.Mutex
	read     bool
	released bool // no attempt will follow
	closed   bool // the last attempt closed it, or there was no attempt
	err      error
}

func newUpload(body io.ReadCloser) *upload {
	if body == http.NoBody {
		body = nil
	}
	return &upload{source: body, closed: true}
}

// body returns the body to send. Without a source it returns the original, because http.Transport
// looks for http.NoBody.
func (u *upload) body(original io.ReadCloser) io.ReadCloser {
	if u.source == nil {
		return original
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = false
	return u
}

func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	u.read = true
	u.mu.Unlock()
	n, err := u.source.Read(p)
	if err != nil && err != io.EOF {
		u.mu.Lock()
		u.err = err
		u.mu.Unlock()
	}
	return n, err
}

func (u *upload) Close() error {
	u.mu.Lock()
	u.closed = true
	last := u.released || u.read
	u.mu.Unlock()
	if last {
		return u.source.Close()
	}
	return nil
}

// release is called when roundTrip returns: no attempt will follow.
func (u *upload) release() {
	if u.source == nil {
		return
	}
	u.mu.Lock()
	u.released = true
	closeNow := u.closed
	u.mu.Unlock()
	if closeNow {
		_ = u.source.Close() // perhaps for the second time, which a body must allow
	}
}

func (u *upload) started() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.read
}

// failure returns the error of reading the client's body, or nil.
func (u *upload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}
