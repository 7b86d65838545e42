package live

import (
	"bytes"
	"io"
	"time"
)

// stateEnd is in the bookmark that ends the initial state of a watch (KEP-3157), in each encoding.
var stateEnd = []byte("k8s.io/initial-events-end")

// Timed measures the body of the API server's own list.
func (s *Collections) Timed(body io.ReadCloser) io.ReadCloser {
	if !s.Save {
		return body
	}
	return &timed{ReadCloser: body, collections: s}
}

// TimedState measures the initial state in the body of a watch.
func (s *Collections) TimedState(body io.ReadCloser) io.ReadCloser {
	if !s.Save {
		return body
	}
	return &timedState{ReadCloser: body, collections: s}
}

// timed measures a body while it is read.
type timed struct {
	io.ReadCloser
	collections *Collections
	begun       time.Time // zero: not yet
	size        int64
	ended       bool
}

func (t *timed) Read(p []byte) (int, error) {
	if t.begun.IsZero() {
		t.begun = t.collections.Clock.Now()
	}
	n, err := t.ReadCloser.Read(p)
	t.size += int64(n)
	if err == io.EOF && !t.ended {
		t.ended = true
		t.collections.measure(t.size, t.collections.Clock.Since(t.begun))
	}
	return n, err
}

// timedState measures a body from its first byte to the end of the initial state.
type timedState struct {
	io.ReadCloser
	collections *Collections
	begun       time.Time // zero: not yet
	size        int64
	tail        []byte // of what was read before, where the mark may have begun
	ended       bool
}

func (t *timedState) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if t.ended || n == 0 {
		return n, err
	}
	if t.begun.IsZero() {
		t.begun = t.collections.Clock.Now()
	}
	t.size += int64(n)
	t.tail = append(t.tail, p[:min(n, len(stateEnd)-1)]...)
	if bytes.Contains(p[:n], stateEnd) || bytes.Contains(t.tail, stateEnd) {
		t.tail, t.ended = nil, true
		t.collections.measure(t.size, t.collections.Clock.Since(t.begun))
		return n, err
	}
	if n >= len(stateEnd) {
		t.tail = append(t.tail[:0], p[n-len(stateEnd)+1:n]...)
	} else {
		t.tail = t.tail[max(0, len(t.tail)-len(stateEnd)+1):]
	}
	return n, err
}
