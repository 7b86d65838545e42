package live

import (
	"context"
	"math"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// firstRate and firstProof are what is expected before anything was measured: a link of 1 Mbit/s,
	// in bytes a second, and the time until a bookmark, which the API server sends from one second
	// to two and a half after a watch that ends after three.
	firstRate  = 125_000
	firstProof = 2 * time.Second
	// measured is the least size, in bytes, of a list whose rate says something of the link.
	measured = 64 << 10
	// weight is how much a new proof counts. A new rate counts as much as those before: a link that is
	// another one now is to be noticed with its first list.
	weight = 0.3
	// another is by what factor a rate differs that is recorded again.
	another = 1.5
	// rateFact is the key of the recorded rate.
	rateFact = "rate of lists"
)

// FactStore keeps the rate of the link for the time after a restart.
type FactStore interface {
	Fact(ctx context.Context, key string) (value []byte, at time.Time, err error)
	PutFact(ctx context.Context, key string, value []byte) error
}

// pace is what lists and proofs have taken. The sizes of lists are those of the payloads, so that
// compression on the link counts as speed.
type pace struct {
	mu       sync.Mutex
	rate     float64 // bytes a second
	known    bool    // the rate was measured
	recorded float64 // the rate that is in the cache; 0: none
	proof    time.Duration
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

// listed takes note of a list. It reports a rate that is to be recorded.
func (p *pace) listed(size int64, took time.Duration) (rate float64, record bool) {
	if size < measured {
		return 0, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := float64(size) / max(took, time.Millisecond).Seconds()
	if p.known {
		now = math.Sqrt(now * p.rate)
	}
	p.rate, p.known = now, true
	if p.recorded > 0 && now < another*p.recorded && p.recorded < another*now {
		return 0, false
	}
	p.recorded = now
	return now, true
}

// load takes the rate that was recorded, unless a newer one was measured.
func (p *pace) load(rate float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.recorded = rate; !p.known {
		p.rate, p.known = rate, true
	}
}

// Load loads what the link carried before the restart.
func (s *Collections) Load(ctx context.Context) error {
	if !s.Save || s.Facts == nil {
		return nil
	}
	value, _, err := s.Facts.Fact(ctx, rateFact)
	if err != nil || value == nil {
		return err
	}
	rate, err := strconv.ParseFloat(string(value), 64)
	if err == nil && rate >= 1 && !math.IsInf(rate, 0) { // else it is measured again
		s.pace.load(rate)
	}
	return err
}

// measure takes note of a list that the API server has answered.
func (s *Collections) measure(size int64, took time.Duration) {
	rate, record := s.pace.listed(size, took)
	if !record || s.Facts == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	s.running.Go(func() {
		if err := s.Facts.PutFact(s.ctx, rateFact, strconv.AppendFloat(nil, rate, 'f', 0, 64)); err != nil {
			s.Logger.Debug("cannot record the rate of the link", zap.Error(err))
		}
	})
}
