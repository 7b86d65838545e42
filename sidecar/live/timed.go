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
	return &timedState{timed: timed{ReadCloser: body, collections: s}}
}

// timed measures a body from its first byte to its end. One that takes much longer than a proof is
// measured before that, too: other reads are not to wait for its end.
type timed struct {
	io.ReadCloser
	collections *Collections
	begun       time.Time // zero: not yet
	size        int64
	long, ended bool
}

func (t *timed) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	t.read(n, err == io.EOF)
	return n, err
}

// read takes note of bytes that have come.
func (t *timed) read(n int, last bool) {
	if t.ended {
		return
	}
	if t.begun.IsZero() {
		t.begun = t.collections.Clock.Now()
	}
	t.size += int64(n)
	took, pace := t.collections.Clock.Since(t.begun), t.collections.pace
	switch {
	case last:
		t.ended = true
	case !t.long && t.size >= measured && took > 2*pace.proofTime():
		t.long = true
	default:
		return
	}
	pace.listed(t.size, took)
}

// timedState measures a body to the end of the initial state.
type timedState struct {
	timed
	tail []byte // of what was read before, where the mark may have begun
}

func (t *timedState) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if t.ended || n == 0 {
		return n, err
	}
	t.tail = append(t.tail, p[:min(n, len(stateEnd)-1)]...)
	last := bytes.Contains(p[:n], stateEnd) || bytes.Contains(t.tail, stateEnd)
	t.read(n, last)
	switch {
	case last:
		t.tail = nil
	case n >= len(stateEnd):
		t.tail = append(t.tail[:0], p[n-len(stateEnd)+1:n]...)
	default:
		t.tail = t.tail[max(0, len(t.tail)-len(stateEnd)+1):]
	}
	return n, err
}
