package record

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"rockpool.dev/store"
)

const (
	// Eviction begins when more than 9/10 of the quota are used and ends at 8/10. A group of
	// operations then always fits, and not each group causes an eviction.
	fullTenths   = 9
	targetTenths = 8
	// useInterval is the precision of a collection's last use. An application that reads the same
	// collection repeatedly must not wear out the disk.
	useInterval = time.Minute
	// maxUsed bounds the collections whose last use is remembered.
	maxUsed = 1000
)

// enforceQuota evicts if the quota is nearly used up, or if the last group did not fit. It also
// gives free space back to the disk.
func (r *Recorder) enforceQuota(ctx context.Context, full bool) error {
	used, bound, err := r.db.Usage(ctx)
	if err != nil {
		return err
	}
	r.metrics.used.Set(float64(used))
	r.metrics.max.Set(float64(bound))
	// A group may fail to fit into a cache that is mostly empty, because it is too large or because
	// the disk is full. Then the recorded data is worth more than the lost group.
	if used <= bound/10*fullTenths && (!full || used <= bound/2) {
		return r.shrink(ctx)
	}
	n, err := r.db.Evict(ctx, min(used, bound)/10*targetTenths, r.openWatches.contains)
	evictedTotal.Add(float64(n))
	if n > 0 {
		r.log.Info("the cache is full; evicted the least recently used collections and responses",
			zap.Int("deleted", n), zap.Int64("usedBytes", used), zap.Int64("maxBytes", bound))
	}
	return errors.Join(err, r.shrink(ctx))
}

// shrink gives free space back to the disk. A nearly full disk may have no room for that. That
// stops nothing: later groups use the free space.
func (r *Recorder) shrink(ctx context.Context) error {
	if err := r.db.Shrink(ctx); !errors.Is(err, store.ErrFull) {
		return err
	}
	return nil
}

// Used notes that a collection was replayed. Collections that were not are evicted first.
func (r *Recorder) Used(collection int64) {
	now := r.clock.Now()
	r.mu.Lock()
	noted := now.Sub(r.used[collection]) < useInterval
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
