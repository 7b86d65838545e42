package proxy

import (
	"io"
	"net/http"
	"slices"
	"testing"
)

// pieces is a body whose reads give so many bytes, as far as the buffer has room. It notes the size
// of each buffer.
type pieces struct {
	sizes, buffers []int
}

func (p *pieces) Read(b []byte) (int, error) {
	p.buffers = append(p.buffers, len(b))
	if len(p.sizes) == 0 {
		return 0, io.EOF
	}
	n := min(len(b), p.sizes[0])
	if p.sizes[0] -= n; p.sizes[0] == 0 {
		p.sizes = p.sizes[1:]
	}
	return n, nil
}

func (*pieces) Close() error { return nil }

func TestABodyIsReadWithALargeBufferOnlyWhileItComesFast(t *testing.T) {
	source := &pieces{sizes: []int{100, 3 * largeBuffer, 100, smallBuffer - 1}}
	b := &body{source: source, from: &http.Response{}, to: &http.Response{}}
	n, err := b.WriteTo(io.Discard)
	if want := int64(100 + 3*largeBuffer + 100 + smallBuffer - 1); n != want || err != nil {
		t.Errorf("%d bytes (%v), want %d", n, err, want)
	}
	want := []int{smallBuffer, smallBuffer, largeBuffer, largeBuffer, largeBuffer, largeBuffer, smallBuffer, smallBuffer}
	if !slices.Equal(source.buffers, want) {
		t.Errorf("buffers %v, want %v", source.buffers, want)
	}
}
