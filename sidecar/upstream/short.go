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
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

const (
	// shortBuffer is the size of each buffer of a connection, in bytes.
	shortBuffer = 4 << 10
	// maxResponseHeader bounds the header of an answer, in bytes, as net/http does.
	maxResponseHeader = 10 << 20
	// maxInterim bounds the 1xx responses before an answer.
	maxInterim = 5
)

var (
	errAbandoned = errors.New("its request has ended before its answer")
	errHeader    = errors.New("the header of the answer is too large")
	errUnasked   = errors.New("it sent bytes that nobody has asked for")
	errInterim   = errors.New("too many 1xx responses")
)

// shortConn is a connection for short requests, of one after the other.
type shortConn struct {
	*conn
	pool  *shortPool
	input *input
	in    *bufio.Reader
	out   *bufio.Writer
	limit int64     // bytes of the header that may still come
	since time.Time // when it was put back
}

func newShortConn(p *shortPool, c *conn) *shortConn {
	s := &shortConn{conn: c, pool: p, input: newInput(c.socket.Conn)}
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

// ticketTime is how long it may take to read TLS session tickets that have arrived.
const ticketTime = time.Millisecond

// past is a deadline that has passed: a read with it does not wait, and asks the socket for
// nothing.
var past = time.Unix(1, 0)

// quiet reports whether nothing has come since the last answer: no end of the connection, and no
// answer that nobody has asked for, which the next request would get. TLS session tickets do not
// count. What came with the last answer may wait in TLS, where the socket does not show it.
func (c *shortConn) quiet() bool {
	deadline := past
	if c.input.has() {
		deadline = time.Now().Add(ticketTime)
	}
	c.limit = maxResponseHeader
	if c.SetReadDeadline(deadline) != nil {
		return false
	}
	_, err := c.in.Peek(1)
	return errors.Is(err, os.ErrDeadlineExceeded) && c.SetReadDeadline(time.Time{}) == nil
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
		// So a load balancer ends an idle connection. HTTP/2 carries the request.
		if response.StatusCode == http.StatusRequestTimeout {
			return nil, errUnasked
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

// send writes a request without a body (RFC 9112 §3). http.Request.Write would do it with a copy of
// the request, its URL and its header for this address.
func (c *shortConn) send(r *http.Request, compressed bool) error {
	uri := c.address.uri(r.URL)
	for _, text := range []string{http.MethodGet, " ", uri, " HTTP/1.1\r\nHost: ", c.address.server.URL.Host, "\r\n"} {
		_, _ = c.out.WriteString(text) // Flush has the error
	}
	if compressed {
		_, _ = c.out.WriteString("Accept-Encoding: gzip\r\n")
	}
	c.sendHeader(r.Header)
	_, _ = c.out.WriteString("\r\n")
	return c.out.Flush()
}

// sendHeader writes fields (RFC 9110 §5.5). http.Header.Write sorts them, and looks at each byte of
// a token for ends of lines, which takes longer than all else that is sent.
func (c *shortConn) sendHeader(h http.Header) {
	for name, values := range h {
		if notForwarded[name] || !httpguts.ValidHeaderFieldName(name) {
			continue
		}
		for _, value := range values {
			if strings.IndexByte(value, '\n') >= 0 || strings.IndexByte(value, '\r') >= 0 {
				value = lineEnds.Replace(value)
			}
			for _, text := range [...]string{name, ": ", textproto.TrimString(value), "\r\n"} {
				_, _ = c.out.WriteString(text) // Flush has the error
			}
		}
	}
}

// lineEnds would begin another field.
var lineEnds = strings.NewReplacer("\n", " ", "\r", " ")

func (s *shortUse) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if err == io.EOF {
		s.atEnd.Store(true)
	}
	return n, err
}

// Close does nothing: guard has called done, and the connection may be in use again.
func (s *shortUse) Close() error { return nil }
