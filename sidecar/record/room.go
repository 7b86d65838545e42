package record

import (
	"context"
	"sync"

	"go.uber.org/zap"

	"rockpool.dev/store"
)

// Room is made when more than 9/10 of the quota are used, down to 8/10: a group of
// operations then fits in any case, and eviction does not begin anew with each.
const (
	fullTenths   = 9
	targetTenths = 8
)

// watched counts the open watches of each scope: their collections are not evicted.
type watched struct {
	mu    sync.Mutex
	count map[store.Scope]int
}

func (w *watched) add(s store.Scope, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count == nil {
		w.count = map[store.Scope]int{}
	}
	if w.count[s] += n; w.count[s] == 0 {
		delete(w.count, s)
	}
}

func (w *watched) has(s store.Scope) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count[s] > 0
}

// makeRoom evicts when the quota is nearly used up, or full already.
func (r *Recorder) makeRoom(ctx context.Context, full bool) error {
	used, bound, err := r.db.Usage(ctx)
	// A group that did not fit into a cache that is mostly empty was too large, or the
	// disk is full: what is there is worth more than what was lost.
	enough := used > bound/10*fullTenths || (full && used > bound/2)
	if err != nil || !enough {
		return err
	}
	n, err := r.db.Evict(ctx, used/10*targetTenths, r.watched.has)
	evictedTotal.Add(float64(n))
	if n > 0 {
		r.log.Info("the cache is full; what was least recently used has been deleted", zap.Int("deleted", n), zap.Int64("usedBytes", used), zap.Int64("maxBytes", bound))
	}
	return err
}

// Used notes that a collection was replayed, which keeps it from being evicted
// before others.
func (r *Recorder) Used(collection int64) { r.enqueue(use(collection)) }

type use int64

func (use) size() int { return overhead }
func (use) lost()     {}
func (u use) apply(g *group) error {
	g.used[int64(u)] = struct{}{}
	return nil
}
