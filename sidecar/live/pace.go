package live

import (
	"math"
	"sync"
	"time"
)

const (
	// firstRate and firstProof are what is expected before anything was measured, or kept by an
	// earlier process: a link of 1 Mbit/s, in bytes a second, and the time until a bookmark, which
	// the API server sends from one second to two and a half after a watch that ends after three.
	// The list of one item is no better witness of the rate. It takes as long as a round trip and
	// the API server's work, so that it shows less than 1 MB/s even where there is no link at all.
	firstRate  = 125_000
	firstProof = 2 * time.Second
	// enough is the least size, in bytes, of a list whose rate says something of the link.
	enough = 64 << 10
	// weight is how much a new proof counts. A new rate counts as much as those before: a link that
	// is another one now is to be noticed with its first list.
	weight = 0.3
)

// pace is what lists and proofs have taken, with one set of API servers. The sizes of lists are those
// of the payloads, so that compression on the link counts as speed.
type pace struct {
	servers []string           // their URLs
	keep    func(rate float64) // for the next start; nil: it is not kept

	mu    sync.Mutex
	rate  float64 // bytes a second
	known bool    // the rate was measured, by this process
	proof time.Duration
}

func newPace(rate float64) *pace { return &pace{rate: rate, proof: firstProof} }

// expect takes a rate that an earlier process has measured. The first list that this one measures
// counts alone: the link may be another one by now.
func (p *pace) expect(rate float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.known {
		p.rate = rate
	}
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

// long is how long a list has taken that is measured before its end: other reads are not to wait for
// that. A rate that is only expected may be wrong, and is corrected by the first second of a list.
func (p *pace) long() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known {
		return 2 * p.proof
	}
	return p.proof / 2
}

func (p *pace) proved(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proof += time.Duration(weight * float64(took-p.proof))
}

// listed takes note of a list, or of a part of a long one.
func (p *pace) listed(size int64, took time.Duration) {
	if size < enough {
		return
	}
	now := p.measured(float64(size) / max(took, time.Millisecond).Seconds())
	if p.keep != nil {
		p.keep(now)
	}
}

// measured takes the rate of a list, and gives that of the link.
func (p *pace) measured(now float64) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known {
		now = math.Sqrt(now * p.rate)
	}
	p.rate, p.known = now, true
	return now
}
