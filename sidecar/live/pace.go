package live

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"
)

const (
	// firstProof is how long a proof is expected to take before one was measured: the time until a
	// bookmark, which the API server sends from one second to two and a half after a watch that ends
	// after three.
	firstProof = 2 * time.Second
	// enough is the least size, in bytes, of a list whose rate says something of the link.
	enough = 64 << 10
	// weight is how much a new proof counts. A new rate counts as much as those before: a link that
	// is another one now is to be noticed with its first list.
	weight = 0.3
)

// pace is what lists and proofs have taken, with one set of API servers. The sizes of lists are those
// of the payloads, so that compression on the link counts as speed.
//
// The list of one item is no witness of the rate. It takes as long as a round trip and the API
// server's work, so that it shows less than 1 MB/s even where there is no link at all.
type pace struct {
	servers []string           // their URLs
	keep    func(rate float64) // for the next start; nil: it is not kept
	came    atomic.Int64       // bytes of all lists

	mu    sync.Mutex
	rate  float64       // bytes a second; 0: nothing is known of it
	known bool          // the rate was measured, by this process
	turn  int           // how often it was
	shows chan struct{} // closed when the list that is to show the rate has done so; nil: there is none
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

// list is how long a list of this size is expected to take. It is not ok if nothing is known.
func (p *pace) list(size int64) (took time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == 0 {
		return 0, false
	}
	return time.Duration(float64(size) / p.rate * float64(time.Second)), true
}

// shown reports whether a list that the API server answers meanwhile has shown the rate. While no
// list of this process has, one at a time is to do so, and the others wait for it, but no longer than
// for a proof: all programs of a site start together when power comes back, and the link may be
// another one than before.
func (p *pace) shown(ctx context.Context, c clock.WithTicker, size int64) bool {
	p.mu.Lock()
	known, shows, most := p.known, p.shows, p.proof
	if !known && shows == nil && size >= enough {
		p.shows = make(chan struct{})
	}
	p.mu.Unlock()
	if known || shows == nil || size < enough {
		return false
	}
	timer := c.NewTimer(most)
	defer timer.Stop()
	select {
	case <-shows:
		return true
	case <-ctx.Done():
	case <-timer.C():
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.shows == shows {
			p.shows = nil // that list has failed, or is stuck: the next one is to show it
		}
	}
	return false
}

// proofTime is how long a proof is expected to take.
func (p *pace) proofTime() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proof
}

// long is how long a list has taken that is measured before its end: other reads are not to wait for
// that. A rate that is only expected may be wrong, and others wait for the list that shows it. Much
// less would not do: the first bytes of a compressed list become many at once.
func (p *pace) long() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known {
		return 2 * p.proof
	}
	return p.proof / 8
}

func (p *pace) proved(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proof += time.Duration(weight * float64(took-p.proof))
}

// part is a rate that a list has shown before its end, and what was known without it.
type part struct {
	rate  float64
	known bool
	turn  int
}

// listed takes note of what lists have brought in a time. They share the link: what one of them has
// taken says nothing alone. The end of a list counts instead of its part, if that was measured; nil:
// it was not.
func (p *pace) listed(size int64, took time.Duration, instead *part) *part {
	before, now := p.measured(float64(size)/max(took, time.Millisecond).Seconds(), instead)
	if p.keep != nil {
		p.keep(now)
	}
	return &before
}

// measured takes the rate of lists, and gives what was known without it, and that of the link.
func (p *pace) measured(rate float64, instead *part) (before part, now float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if instead != nil && instead.turn == p.turn {
		p.rate, p.known = instead.rate, instead.known
	}
	before = part{p.rate, p.known, p.turn + 1}
	if p.known {
		rate = math.Sqrt(rate * p.rate)
	}
	p.rate, p.known, p.turn = rate, true, p.turn+1
	if p.shows != nil {
		close(p.shows)
		p.shows = nil
	}
	return before, rate
}
