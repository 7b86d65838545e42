package live

import (
	"io"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	// firstRate and firstProof are what is expected before anything was measured: a link of 1 Mbit/s,
	// in bytes a second, and the time until a bookmark, which the API server sends from one second
	// to two and a half after a watch that ends after three.
	firstRate  = 125_000
	firstProof = 2 * time.Second
	// measured is the least size, in bytes, of a list whose rate says something of the link.
	measured = 64 << 10
	// weight is how much a new measurement counts.
	weight = 0.3
)

// pace is what lists and proofs have taken. The sizes of lists are those of the payloads, so that
// compression on the link counts as speed.
type pace struct {
	clock clock.PassiveClock

	mu    sync.Mutex
	rate  float64 // bytes a second
	proof time.Duration
}

func newPace(c clock.PassiveClock, rate float64) *pace {
	return &pace{clock: c, rate: rate, proof: firstProof}
}

// list is how long a list of this size is expected to take.
func (p *pace) list(size int64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Duration(float64(size) / p.rate * float64(time.Second))
}

// proofTime is how long a proof is expected to take.
func (p *pace) proofTime() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proof
}

func (p *pace) proved(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proof += time.Duration(weight * float64(took-p.proof))
}

func (p *pace) listed(size int64, took time.Duration) {
	if size < measured || took <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate += weight * (float64(size)/took.Seconds() - p.rate)
}

// timed measures a body while it is read.
type timed struct {
	io.ReadCloser
	pace  *pace
	begun time.Time // zero: not yet
	size  int64
	ended bool
}

func (t *timed) Read(p []byte) (int, error) {
	if t.begun.IsZero() {
		t.begun = t.pace.clock.Now()
	}
	n, err := t.ReadCloser.Read(p)
	t.size += int64(n)
	if err == io.EOF && !t.ended {
		t.ended = true
		t.pace.listed(t.size, t.pace.clock.Since(t.begun))
	}
	return n, err
}
