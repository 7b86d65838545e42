package upstream

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"k8s.io/utils/clock"
)

// Meter measures what requests cost on the link. Its methods are called from several goroutines.
type Meter interface {
	// Attempt is called each time that a request is sent to an address.
	Attempt(*http.Request) Use
	// Wire is told of the bytes of all connections, as TCP carries them: bodies, headers, frames,
	// PINGs, TLS and requests for /readyz.
	Wire(received, sent int)
}

// Use is what one attempt costs.
type Use interface {
	// Body is told of the bytes of bodies, as they are on the link: perhaps compressed.
	Body(received, sent int)
	// Waited is told how long the API server was waited for. Nobody waits for a stream.
	Waited(time.Duration)
}

// unmetered measures nothing.
type unmetered struct{}

func (unmetered) Attempt(*http.Request) Use { return unmetered{} }
func (unmetered) Wire(int, int)             {}
func (unmetered) Body(int, int)             {}
func (unmetered) Waited(time.Duration)      {}

// meteredUpload counts the body of a request.
type meteredUpload struct {
	io.ReadCloser
	use Use
}

func (b meteredUpload) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.use.Body(0, n)
	return n, err
}

// meterUpload has the body of a request counted, each time that it is sent.
func meterUpload(r *http.Request, use Use) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	r.Body = meteredUpload{r.Body, use}
	again := r.GetBody
	r.GetBody = func() (io.ReadCloser, error) {
		body, err := again()
		if err != nil {
			return nil, err
		}
		return meteredUpload{body, use}, nil
	}
}

// meteredBody counts the body of a response, and the time that its reader waits.
type meteredBody struct {
	io.ReadCloser
	use   Use
	clock clock.PassiveClock // nil: nobody waits for the body
}

func (b *meteredBody) Read(p []byte) (int, error) {
	if b.clock == nil {
		n, err := b.ReadCloser.Read(p)
		b.use.Body(n, 0)
		return n, err
	}
	began := b.clock.Now()
	n, err := b.ReadCloser.Read(p)
	b.use.Waited(b.clock.Since(began))
	b.use.Body(n, 0)
	return n, err
}

// meteredConn is the body of a 101.
type meteredConn struct {
	*meteredBody
	writer io.Writer
}

func (c meteredConn) Write(p []byte) (int, error) {
	n, err := c.writer.Write(p)
	c.use.Body(0, n)
	return n, err
}

// CloseWrite ends one direction before the other, if the connection supports that.
func (c meteredConn) CloseWrite() error {
	if half, ok := c.writer.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// meterBody has the body of a response counted. A nil clock means that nobody waits for it.
func meterBody(body io.ReadCloser, use Use, waits clock.PassiveClock) io.ReadCloser {
	metered := &meteredBody{body, use, waits}
	if writer, ok := body.(io.ReadWriteCloser); ok {
		return meteredConn{metered, writer}
	}
	return metered
}

// acceptGzip is a value of Accept-Encoding, which nobody changes.
var acceptGzip = []string{"gzip"}

// mayBeCompressed reports whether a request leaves the encoding of its answer open, so that a
// compressed one may be asked for, as net/http would. That hides the bytes of the link; decompress
// does not.
func mayBeCompressed(r *http.Request) bool {
	return r.Header.Get("Accept-Encoding") == "" && r.Header.Get("Range") == "" && r.Method != http.MethodHead
}

// askCompressed asks for a compressed answer.
func askCompressed(r *http.Request) {
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header["Accept-Encoding"] = acceptGzip
}

// decompress makes the answer to such a request what an uncompressed one would be.
func decompress(r *http.Response) {
	if r.Body == nil || r.Body == http.NoBody || !strings.EqualFold(r.Header.Get("Content-Encoding"), "gzip") {
		return
	}
	r.Header.Del("Content-Encoding")
	r.Header.Del("Content-Length")
	r.ContentLength, r.Uncompressed = -1, true
	r.Body = &gunzip{source: r.Body}
}

// gunzip decompresses a body. Its first Read reads the header.
type gunzip struct {
	source io.ReadCloser
	reader *gzip.Reader
	err    error
}

func (g *gunzip) Read(p []byte) (int, error) {
	if g.reader == nil && g.err == nil {
		g.reader, g.err = gzip.NewReader(g.source)
	}
	if g.err != nil {
		return 0, g.err
	}
	return g.reader.Read(p)
}

func (g *gunzip) Close() error { return g.source.Close() }
