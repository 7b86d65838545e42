package model

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	histories = flag.Int("model.histories", 2000, "how many random histories TestRandomHistories runs")
	firstSeed = flag.Uint64("model.seed", 1, "the seed of the first history")
	failures  = flag.Int("model.failures", 1, "after how many failed histories TestRandomHistories ends")
)

// TestRandomHistories runs random histories, each with a seed of its own. To repeat one that has
// failed: -model.histories 1 -model.seed SEED.
func TestRandomHistories(t *testing.T) {
	runRandom(t, *histories, func(*history) {})
}

// TestRandomHistoriesWithSavedReads has programs list before each cut, with online.reads=save.
func TestRandomHistoriesWithSavedReads(t *testing.T) {
	if total := runRandom(t, *histories/4, func(h *history) { h.Save = true }); total.saved == 0 && *histories >= 400 {
		t.Error("no list was answered from the cache, so this test shows nothing")
	}
}

// runRandom runs random histories in a mode.
func runRandom(t *testing.T, histories int, mode func(*history)) counts {
	var mu sync.Mutex
	var next, failed atomic.Int64
	var total counts
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for failed.Load() < int64(*failures) {
				n := next.Add(1) - 1
				if n >= int64(histories) {
					return
				}
				seed := *firstSeed + uint64(n)
				h := generate(seed)
				mode(h)
				counts, err := h.run(theCache)
				if err != nil && failed.Add(1) <= int64(*failures) {
					report(t, fmt.Sprintf("seed %d", seed), h, theCache, err)
				}
				mu.Lock()
				total.add(counts)
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	t.Logf("%d histories; answers: %d are 200, %d are 404, %d say that it is not known; %d lists were saved", min(int(next.Load()), histories), total.known, total.absent, total.unknown, total.saved)
	return total
}

// report prints the smallest history that fails in the same way.
func report(t *testing.T, name string, h *history, offline answerer, err error) {
	t.Helper()
	var first *violation
	small := shrink(h, func(c *history) bool {
		_, again := c.run(offline)
		var v *violation
		if again == nil || errors.As(err, &first) != errors.As(again, &v) || first != nil && first.rule != v.rule {
			return false
		}
		return true
	})
	if _, again := small.run(offline); again != nil {
		err = again
	}
	t.Errorf("%s: %v\n%s", name, err, small)
}

func FuzzHistories(f *testing.F) {
	for seed := range byte(8) {
		f.Add([]byte{seed})
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		h := generator{rand.New(&numbers{raw: raw})}.history()
		if _, err := h.run(theCache); err != nil {
			report(t, "a fuzzed history", h, theCache, err)
		}
	})
}

// numbers are the random numbers of a fuzzed history: first its bytes, then some that they give.
type numbers struct {
	raw  []byte
	rest *rand.PCG
}

func (s *numbers) Uint64() uint64 {
	if len(s.raw) > 0 && s.rest == nil {
		n := uint64(s.raw[0])
		s.raw = s.raw[1:]
		return n<<56 | n<<24 // rand takes the upper bits of 64 or of the lower 32
	}
	if s.rest == nil {
		s.rest = rand.NewPCG(0, 0)
	}
	return s.rest.Uint64()
}

func (c *counts) add(o counts) {
	c.known, c.absent, c.unknown, c.saved = c.known+o.known, c.absent+o.absent, c.unknown+o.unknown, c.saved+o.saved
}
