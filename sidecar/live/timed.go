package live

import (
	"bytes"
	"io"
	"time"

	"k8s.io/utils/clock"
)

// stateEnd is in the bookmark that ends the initial state of a watch (KEP-3157), in each encoding.
var stateEnd = []byte("k8s.io/initial-events-end")

// Timed measures the body of the API server's own list.
func (s *Collections) Timed(body io.ReadCloser) io.ReadCloser {
	if !s.Save {
		return body
	}
	return &timed{ReadCloser: body, clock: s.Clock, pace: s.pace.Load()}
}

// TimedState measures the initial state in the body of a watch.
func (s *Collections) TimedState(body io.ReadCloser) io.ReadCloser {
	if !s.Save {
		return body
	}
	return &timedState{timed: timed{ReadCloser: body, clock: s.Clock, pace: s.pace.Load()}}
}

// timed measures a body from its first byte to its end. One that takes long is measured before that,
// too. Bodies are recorded as they are read from here, so that the rate is there before the end of the
// list is recorded, and is written with it.
type timed struct {
	io.ReadCloser
	clock  clock.PassiveClock
	pace   *pace     // when the body began
	begun  time.Time // zero: not yet
	before int64     // what all lists had brought by then, bytes
	size   int64
	part   *part // what was measured before the end; nil: nothing
	ended  bool
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
		t.begun, t.before = t.clock.Now(), t.pace.came.Load()
	}
	t.size += int64(n)
	came := t.pace.came.Add(int64(n)) - t.before
	took := t.clock.Since(t.begun)
	switch {
	case last:
		t.ended = true
	case t.part != nil || t.size < enough || took <= t.pace.long():
		return
	}
	if t.size >= enough {
		t.part = t.pace.listed(came, took, t.part)
	}
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
