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

// guard watches over a response body: it tells the link's failures from the client's, and ends the request's context.
type guard struct {
	upstream  *Upstream
	candidate *candidate
	conn      *conn // nil if it is not known
	client    context.Context
	link      context.Context // ended, with a cut as its cause, when the address is found to be down
	heard     func()          // called once a part of the body has come
	end       func()
}

// failed words an error that is not io.EOF.
func (g *guard) failed(err error) error {
	defer g.end()
	var severed cut
	switch {
	case g.client.Err() != nil:
		return g.client.Err()
	case errors.As(context.Cause(g.link), &severed):
		return &LinkError{Servers: []ServerError{{g.candidate.name, severed.reason}}}
	case g.conn != nil && g.conn.stranded.Load():
		return &LinkError{Servers: []ServerError{{g.candidate.name, errStranded}}}
	case !isConnectionError(err):
		return err
	}
	link := &LinkError{Servers: []ServerError{{g.candidate.name, err}}}
	g.candidate.requestFailed(err)
	g.upstream.requestFailed(link)
	return link
}

// watchBody wraps a body, and keeps it writable if it is, as that of a 101 is.
func watchBody(body io.ReadCloser, g *guard) io.ReadCloser {
	guarded := &guardedBody{source: body, guard: g}
	if writer, ok := body.(io.ReadWriteCloser); ok {
		return &guardedConn{guardedBody: guarded, writer: writer}
	}
	return guarded
}

type guardedBody struct {
	source io.ReadCloser
	guard  *guard
	begun  bool        // to come
	err    error       // that Read returned; it is returned again
	closed atomic.Bool // by the caller, whose pending read then fails; that is no failure of the link
}

func (b *guardedBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.source.Read(p)
	if !b.begun && n > 0 {
		b.begun = true
		b.guard.heard()
	}
	if err == nil {
		return n, nil
	}
	switch {
	case b.closed.Load():
		b.guard.end()
	case err == io.EOF && b.guard.client.Err() == nil && b.guard.link.Err() == nil:
		b.guard.end()
	default:
		// A server that is told of a cancellation may end its response as if it were complete, and be
		// quicker than the connection's end. It must not pass for complete.
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

// guardedConn is the body of a 101. After the switch HTTP is over: the context means nothing to the connection, which
// ends when either side closes it, or when the address is found to be down.
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

// CloseWrite lets one direction end before the other, if the connection can.
func (c *guardedConn) CloseWrite() error {
	if half, ok := c.writer.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// maxStatusBody is more than any Status needs.
const maxStatusBody = 64 << 10

// refuseBalancer returns an error for a gateway's status whose body shows that a load balancer made it up. An
// API server's own goes to the client: it is an answer.
func refuseBalancer(method string, response *http.Response) error {
	switch response.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return nil
	}
	// kube-apiserver marks all it says, also what it says in plain text: a 503 for an aggregated API without a backend.
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
	response.Body = &replayed{Reader: io.MultiReader(bytes.NewReader(data), response.Body), Closer: response.Body}
	return nil
}

type replayed struct {
	io.Reader
	io.Closer
}

// isStatus recognises a Status in JSON, and anything in Kubernetes' protobuf, which nobody else speaks.
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

// upload is a request body over several attempts. http.Transport closes the body of an attempt that fails; the client's
// own stays open as long as nothing was read from it and another attempt may follow.
type upload struct {
	source io.ReadCloser // nil if there is no body

	mu       sync.Mutex
	read     bool
	released bool // there will be no further attempt
	closed   bool // by the last attempt, or there was none
	err      error
}

func newUpload(body io.ReadCloser) *upload {
	if body == http.NoBody {
		body = nil
	}
	return &upload{source: body, closed: true} // nobody reads from it yet
}

// body returns what to send: the same, if it is none, as http.Transport looks for http.NoBody.
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

// release is called when roundTrip returns.
func (u *upload) release() {
	if u.source == nil {
		return
	}
	u.mu.Lock()
	u.released = true
	closeNow := u.closed
	u.mu.Unlock()
	if closeNow {
		_ = u.source.Close() // twice, perhaps, which a body must bear
	}
}

func (u *upload) begun() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.read
}

// failure returns the error of the client's body, if that is what failed.
func (u *upload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}
