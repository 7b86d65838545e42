package record

import (
	"context"
	"errors"
	"fmt"
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
	// the disk is full. Then the recorded data is worth more than the lost group. A list that comes in
	// takes room beside the collection that it replaces, for which the file may have twice the quota.
	filling := r.filling()
	if used-filling <= bound/10*fullTenths && used <= 2*bound/10*fullTenths && (!full || used <= bound/2) {
		return r.shrink(ctx)
	}
	r.dropWaiting(ctx)
	filling = r.filling()
	target := min(used-filling, bound)/10*targetTenths + filling
	n, err := r.db.Evict(ctx, min(target, 2*bound/10*targetTenths), func(c store.Collection) bool {
		return r.openWatches.contains(c.Scope) || r.isFilling(c.Scope)
	})
	// Events have made a watched collection too large. The next list of it shows how large.
	if left, _, errUsage := r.db.Usage(ctx); err == nil && errUsage == nil && left > 2*bound/10*fullTenths {
		var watched int
		watched, err = r.db.Evict(ctx, bound/10*targetTenths+filling, func(c store.Collection) bool { return r.isFilling(c.Scope) })
		n += watched
	}
	evictedTotal.Add(float64(n))
	if n > 0 {
		r.log.Info("the cache is full; evicted the oldest objects, collections and responses",
			zap.Int("deleted", n), zap.Int64("usedBytes", used), zap.Int64("maxBytes", bound))
		if r.evicted != nil {
			r.evicted(fmt.Sprintf("the cache (%s) is full: %d of %d bytes are used, and the %d oldest objects, collections and responses were evicted; raise %s, or record less by cache.agents or cache.exclude", r.name, used, bound, n, r.setting))
		}
	}
	return errors.Join(err, r.shrink(ctx))
}

// dropWaiting gives up the lists that wait for their next page: they may never be whole.
func (r *Recorder) dropWaiting(ctx context.Context) {
	for _, l := range r.pages.drop(func(pagedList) bool { return true }) {
		r.doubt(l.snap.scope.Of(), store.Key{Namespace: l.snap.scope.Namespace}, l.snap.source.told, "")
		r.orphaned = append(r.orphaned, l.snap)
		delete(r.open, l.snap)
	}
	r.dropOrphaned(ctx)
}

// filling is how many bytes the lists take that are not committed yet.
func (r *Recorder) filling() (bytes int64) {
	for s := range r.open {
		bytes += s.rows.Filled()
	}
	return bytes
}

// isFilling reports whether a list of a scope is not committed yet: it builds on the collection.
func (r *Recorder) isFilling(scope store.Scope) bool {
	for s := range r.open {
		if s.scope == scope {
			return true
		}
	}
	return false
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
