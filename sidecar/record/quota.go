package record

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"rockpool.dev/store"
)

// Room is made when more than 9/10 of the quota are used, down to 8/10: a group of
// operations then fits in any case, and eviction does not begin anew with each.
const (
	fullTenths   = 9
	targetTenths = 8
)

// enforceQuota evicts when the quota is nearly used up, or full already, and gives back
// what has become free.
func (r *Recorder) enforceQuota(ctx context.Context, full bool) error {
	used, bound, err := r.db.Usage(ctx)
	if err == nil {
		r.metrics.used.Set(float64(used))
		r.metrics.max.Set(float64(bound))
	}
	// A group that did not fit into a cache that is mostly empty was too large, or the
	// disk is full: what is there is worth more than what was lost.
	enough := used > bound/10*fullTenths || (full && used > bound/2)
	if err != nil {
		return err
	}
	if !enough {
		return r.shrink(ctx)
	}
	n, err := r.db.Evict(ctx, min(used, bound)/10*targetTenths, r.openWatches.contains)
	evictedTotal.Add(float64(n))
	if n > 0 {
		r.log.Info("the cache is full; what was least recently used has been deleted", zap.Int("deleted", n), zap.Int64("usedBytes", used), zap.Int64("maxBytes", bound))
	}
	return errors.Join(err, r.shrink(ctx))
}

// shrink gives back what is free. On a disk that is nearly full there may be no room to
// do it in; what is free is then used for what comes, so that stops nothing.
func (r *Recorder) shrink(ctx context.Context) error {
	err := r.db.Shrink(ctx)
	if errors.Is(err, store.ErrFull) {
		return nil
	}
	return err
}

// useInterval is how exactly it is known when a collection was last used. A program
// that reads the same again and again shall not wear the disk.
const useInterval = time.Minute

// Used notes that a collection was replayed, which keeps it from being evicted
// before others.
func (r *Recorder) Used(collection int64) {
	now := r.clock.Now()
	r.mu.Lock()
	last, ok := r.used[collection]
	noted := ok && now.Sub(last) < useInterval
	if !noted {
		if len(r.used) > maxUsed {
			clear(r.used)
		}
		r.used[collection] = now
	}
	r.mu.Unlock()
	if !noted {
		r.enqueue(use(collection))
	}
}

// maxUsed bounds the collections whose last use is remembered.
const maxUsed = 1000
