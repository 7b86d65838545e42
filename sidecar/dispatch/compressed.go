package dispatch

import (
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"

	"rockpool.dev/sidecar/api/request"
)

// acceptEncoding is only in requests whose client may get the answer compressed, see
// proxy.Options.Compressed.
const acceptEncoding = "Accept-Encoding"

// mayBeCompressed reports whether the client takes a list as the API server compresses it. All other
// answers are decompressed by Upstream.
func (x *exchange) mayBeCompressed() bool {
	return x.request.Header.Get(acceptEncoding) != "" && x.info.Class == request.ClassList
}

// uncompressed is the request without its Accept-Encoding.
func uncompressed(r *http.Request) *http.Request {
	changed := r.WithContext(r.Context())
	changed.Header = maps.Clone(r.Header)
	changed.Header.Del(acceptEncoding)
	return changed
}

// isCompressed reports whether an answer is as the API server has compressed it.
func isCompressed(resp *http.Response) bool {
	return strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip") && resp.Body != nil && resp.Body != http.NoBody
}

// decompress makes an answer what an uncompressed one would be.
func decompress(resp *http.Response) {
	resp.Header.Del("Content-Encoding")
	resp.Header.Del("Content-Length")
	resp.ContentLength, resp.Uncompressed = -1, true
	resp.Body = &struct {
		io.Reader
		io.Closer
	}{&unzipped{source: resp.Body}, resp.Body}
}

// recordCompressed has the uncompressed form of an answer recorded while the client reads the
// compressed bytes. record may replace the body of the answer that it gets.
func recordCompressed(resp *http.Response, record func(*http.Response)) {
	c := &compressed{source: resp.Body}
	c.arrived.L = &c.mu
	plain := *resp
	plain.Header = maps.Clone(resp.Header)
	plain.Body = io.NopCloser((*compressedCopy)(c))
	decompress(&plain)
	body := plain.Body
	record(&plain)
	if plain.Body == body {
		return // nothing is recorded of it
	}
	c.recorded.Go(func() {
		_, err := io.Copy(io.Discard, plain.Body)
		_ = plain.Body.Close()
		if err != nil {
			c.giveUp()
		}
	})
	resp.Body = c
}

// maxAhead is how many compressed bytes the client may be ahead of the recording. Then it waits, as it
// would if each byte was recorded before it is sent on. The recording is faster than the API server
// compresses.
const maxAhead = 256 << 10

// compressed is a body whose bytes are recorded by a goroutine of its own, which ends before the last
// byte is told, so that what is read next is recorded after it.
type compressed struct {
	source   io.ReadCloser
	recorded sync.WaitGroup

	mu      sync.Mutex
	arrived sync.Cond
	ahead   []byte // read by the client, and not yet by the recording
	end     error  // of source; nil: it goes on
	over    bool   // the recording has ended early
}

func (c *compressed) Read(p []byte) (int, error) {
	n, err := c.source.Read(p)
	c.pass(p[:n], err)
	if err != nil {
		c.recorded.Wait()
	}
	return n, err
}

// pass hands bytes to the recording.
func (c *compressed) pass(p []byte, end error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.ahead) > maxAhead && !c.over {
		c.arrived.Wait()
	}
	if !c.over {
		c.ahead = append(c.ahead, p...)
	}
	if c.end == nil {
		c.end = end
	}
	c.arrived.Broadcast()
}

// errClosed ends a recording whose client has closed the body.
var errClosed = errors.New("the body was closed")

func (c *compressed) Close() error {
	err := c.source.Close()
	c.pass(nil, errClosed)
	c.recorded.Wait()
	return err
}

// giveUp lets the client go on without the recording.
func (c *compressed) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over, c.ahead = true, nil
	c.arrived.Broadcast()
}

// compressedCopy reads what the client has read.
type compressedCopy compressed

func (c *compressedCopy) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.ahead) == 0 && c.end == nil {
		c.arrived.Wait()
	}
	if len(c.ahead) == 0 {
		return 0, c.end
	}
	n := copy(p, c.ahead)
	c.ahead = c.ahead[:copy(c.ahead, c.ahead[n:])]
	c.arrived.Broadcast()
	return n, nil
}

// unzipped decompresses. Its first Read reads the header.
type unzipped struct {
	source io.Reader
	reader *gzip.Reader
}

func (u *unzipped) Read(p []byte) (int, error) {
	if u.reader == nil {
		reader, err := gzip.NewReader(u.source)
		if err != nil {
			return 0, err
		}
		u.reader = reader
	}
	return u.reader.Read(p)
}
