package live

import (
	"math"
	"sync"
	"time"
)

const (
	// firstRate and firstProof are what is expected before anything was measured: a link of 1 Mbit/s,
	// in bytes a second, and the time until a bookmark, which the API server sends from one second
	// to two and a half after a watch that ends after three.
	firstRate  = 125_000
	firstProof = 2 * time.Second
	// measured is the least size, in bytes, of a list whose rate says something of the link.
	measured = 64 << 10
	// weight is how much a new proof counts. A new rate counts as much as those before: a link that
	// is another one now is to be noticed with its first list.
	weight = 0.3
)

// pace is what lists and proofs have taken. The sizes of lists are those of the payloads, so that
// compression on the link counts as speed.
type pace struct {
	mu    sync.Mutex
	rate  float64 // bytes a second
	known bool    // the rate was measured
	proof time.Duration
}

func newPace(rate float64) *pace { return &pace{rate: rate, proof: firstProof} }

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

// listed takes note of a list, or of a part of a long one.
func (p *pace) listed(size int64, took time.Duration) {
	if size < measured {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := float64(size) / max(took, time.Millisecond).Seconds()
	if p.known {
		now = math.Sqrt(now * p.rate)
	}
	p.rate, p.known = now, true
}
