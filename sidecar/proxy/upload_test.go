package proxy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"testing"

	"rockpool.dev/tests/eventually"
)

// pattern is an endless body in which nearby positions differ.
type pattern struct{ at int }

var patternBlock = func() []byte {
	block := make([]byte, 1<<20+7)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range block {
		block[i] = byte(random.Uint32())
	}
	return block
}()

func (p *pattern) Read(b []byte) (int, error) {
	n := copy(b, patternBlock[p.at:])
	p.at = (p.at + n) % len(patternBlock)
	return n, nil
}

func TestUploadsStream(t *testing.T) {
	const total, half = 64 << 20, 32 << 20
	digest := func(r io.Reader) string {
		h := sha256.New()
		n, err := io.Copy(h, r)
		return fmt.Sprintf("%d bytes, %x, %v", n, h.Sum(nil), err)
	}
	want := digest(io.LimitReader(&pattern{}, total))
	for _, p := range protocols {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("of unknown length: %t, with %s", chunked, p.name), func(t *testing.T) {
				received := make(chan struct{})
				r := start(t, p.upstream, func(w http.ResponseWriter, req *http.Request) {
					body := &watermark{reader: req.Body, mark: half, reached: received}
					_, _ = io.WriteString(w, digest(body))
				}, nil)
				var before, during runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				// The client sends the second half only when upstream has the first.
				gate := func() {
					eventually.Receive(t, "upstream to get the first half", received)
					runtime.GC()
					runtime.ReadMemStats(&during)
				}
				source := &pattern{}
				body := io.MultiReader(io.LimitReader(source, half), &gateReader{gate: gate}, io.LimitReader(source, total-half))
				request := r.request(http.MethodPost, "/upload", io.NopCloser(body))
				if !chunked {
					request.ContentLength = total
				}
				if got := readAll(t, r.do(p.client, request).Body); got != want {
					t.Errorf("upstream got %s, want %s", got, want)
				}
				if grown := int64(during.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
					t.Errorf("half way the heap has grown by %d MiB", grown>>20)
				}
			})
		}
	}
}

// watermark closes reached once mark bytes have been read.
type watermark struct {
	reader  io.Reader
	mark    int
	reached chan struct{}
}

func (w *watermark) Read(p []byte) (int, error) {
	n, err := w.reader.Read(p)
	if w.mark > 0 && w.mark <= n {
		close(w.reached)
	}
	w.mark -= n
	return n, err
}

// gateReader calls gate when it is read, and returns no bytes.
type gateReader struct{ gate func() }

func (g *gateReader) Read([]byte) (int, error) { g.gate(); return 0, io.EOF }

// TestAClientThatStallsGetsTheAnswer: upstream has failed while the client waits in the middle of
// its upload.
func TestAClientThatStallsGetsTheAnswer(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("over HTTP/2: %t", h2), func(t *testing.T) {
			r := start(t, true, nil, func(o *Options) { o.Transport = brokenUpload{} })
			body, client := io.Pipe()
			defer client.Close()
			go func() { _, _ = client.Write([]byte("a")) }()
			if got := r.do(h2, r.request(http.MethodPost, "/", body)).StatusCode; got != http.StatusBadGateway {
				t.Errorf("status %d", got)
			}
		})
	}
}

// brokenUpload fails while it reads a body.
type brokenUpload struct{}

func (brokenUpload) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, err := io.ReadFull(r.Body, make([]byte, 1)); err != nil {
		return nil, err
	}
	reading := make(chan struct{})
	go func() {
		close(reading)
		_, _ = r.Body.Read(make([]byte, 1))
	}()
	<-reading
	return nil, errors.New("the connection broke")
}
