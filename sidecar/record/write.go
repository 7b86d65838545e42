package record

import (
	"context"
	"errors"
	"slices"

	"go.uber.org/zap"

	"rockpool.dev/store"
)

// Run writes until the context ends, and then writes the rest of the queue. Call it once.
func (r *Recorder) Run(ctx context.Context) error {
	expiry := r.clock.NewTimer(pageLife)
	defer expiry.Stop()
	for {
		select {
		case <-r.wake:
		case <-expiry.C():
			r.giveUp(r.pages.expire(r.clock.Now()))
			expiry.Reset(pageLife)
			if r.isEmpty() {
				continue
			}
		case <-ctx.Done():
			r.mu.Lock()
			r.ended = true
			r.mu.Unlock()
			r.drain(ctx)
			return nil
		}
		r.gather(ctx)
		r.afford(ctx)
		for ops := r.take(); len(ops) > 0; ops = r.take() {
			r.write(ctx, ops)
			if r.listIncoming() {
				r.gather(ctx)
			}
			r.afford(ctx)
		}
	}
}

// gather lets a group grow, so that a burst of events costs one transaction. While a list is
// incoming, it holds all groups back, for at most holdDelay.
func (r *Recorder) gather(ctx context.Context) {
	timer := r.clock.NewTimer(groupDelay)
	defer timer.Stop()
	for held := groupDelay; !r.groupReady(); {
		select {
		case <-timer.C():
			if held += groupDelay; held > holdDelay || !r.listIncoming() {
				return
			}
			timer.Reset(groupDelay)
		case <-ctx.Done():
			return
		case <-r.wake:
		}
	}
}

// drain writes the queue.
func (r *Recorder) drain(ctx context.Context) {
	for ops := r.take(); len(ops) > 0; ops = r.take() {
		r.write(ctx, ops)
	}
}

// write commits a group. If the store fails, the whole group is lost: its snapshots are given up,
// and the next events find the gap.
func (r *Recorder) write(ctx context.Context, ops []operation) {
	ctx = context.WithoutCancel(ctx)
	defer r.processors.More()()
	r.dropOrphaned(ctx)
	// While a list comes in, what must be written is written, and the rest of the disk's time is
	// its client's.
	err := r.db.HoldCheckpoints(ctx, r.listIncoming())
	if err == nil {
		err = r.commit(ctx, ops)
	}
	if err == nil {
		err = r.db.Check()
	} else if !isFileError(err) {
		err = r.writeOneByOne(ctx, ops, err)
	}
	if err != nil {
		droppedTotal.WithLabelValues("store").Add(float64(len(ops)))
		for _, op := range ops {
			r.markLost(op)
		}
	}
	for _, op := range ops {
		if s := op.opens(); s != nil {
			r.open[s] = struct{}{}
		}
		delete(r.open, op.closes())
	}
	// A failed eviction does not undo what was written before it.
	if err == nil || errors.Is(err, store.ErrFull) {
		err = errors.Join(err, r.enforceQuota(ctx, err != nil))
	}
	r.updateHealth(ctx, err)
	// No other group may come before a kill. The eviction may have made room; else the next group
	// tries.
	if !r.doubts.empty() {
		_ = r.commit(ctx, nil)
	}
	for _, op := range ops {
		op.done()
	}
}

func (r *Recorder) commit(ctx context.Context, ops []operation) error {
	var g *group
	doubts, rate := r.doubts.all(), r.rate.Load()
	err := r.db.Update(ctx, func(tx *store.Tx) error {
		g = &group{
			tx: tx, openWatches: &r.openWatches, positions: map[store.Scope]*position{},
			used: map[int64]struct{}{}, deferred: map[deferredWrite]struct{}{}, unserved: map[served]int{},
		}
		for d, l := range doubts {
			if err := tx.Observe(d.Resource, d.Key, l.evidence()); err != nil {
				return err
			}
		}
		for _, op := range ops {
			if err := op.apply(g); err != nil {
				return err
			}
		}
		if err := g.finish(); err != nil {
			return err
		}
		if rate != nil {
			if err := tx.PutRate(*rate); err != nil {
				return err
			}
		}
		// Of lists and watches that were under way when something was excluded.
		if rules := r.exclude.Rules(); len(rules) > 0 {
			return tx.Exclude(exclusion{rules}, false)
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.metrics.commits.Inc()
	r.doubts.remove(doubts)
	r.rate.CompareAndSwap(rate, nil)
	for _, s := range g.stale {
		r.report(s)
	}
	return nil
}

// isFileError reports whether an error would fail any operation, not only one.
func isFileError(err error) bool {
	kinds := []error{store.ErrFull, store.ErrReadOnly, store.ErrCorrupt, store.ErrGone, store.ErrDisk}
	return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}

// writeOneByOne writes a group that failed because of one operation, so that only that one fails.
// Snapshots are given up: their earlier rows were rolled back. Superseded events are lost: alone,
// they must not move their collection on.
func (r *Recorder) writeOneByOne(ctx context.Context, ops []operation, cause error) error {
	r.log.Warn("cannot write a group of operations; writing them one by one", zap.Error(cause))
	for _, op := range ops {
		if !op.soloSafe() {
			r.markLost(op)
			continue
		}
		err := r.commit(ctx, []operation{op})
		switch {
		case isFileError(err):
			return err
		case err != nil:
			droppedTotal.WithLabelValues("store").Inc()
			r.markLost(op)
		}
	}
	return nil
}

// markLost tells an operation that it was not recorded.
func (r *Recorder) markLost(op operation) {
	op.lost()
	if s := op.closes(); s != nil {
		r.orphaned = append(r.orphaned, s)
	}
}

// dropOrphaned deletes the rows of snapshots whose end was lost.
func (r *Recorder) dropOrphaned(ctx context.Context) {
	for len(r.orphaned) > 0 {
		if err := r.db.Update(ctx, r.orphaned[0].rows.Abort); err != nil {
			return // the next group tries again
		}
		r.orphaned = r.orphaned[1:]
	}
}
