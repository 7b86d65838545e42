package record

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"rockpool.dev/store"
)

// Run writes until the context ends, and then what is left. It is to be called
// once.
func (r *Recorder) Run(ctx context.Context) error {
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			r.end(context.WithoutCancel(ctx))
			return nil
		}
		r.gather(ctx)
		for ops := r.take(); len(ops) > 0; ops = r.take() {
			r.write(ctx, ops)
			if r.listIncoming() {
				r.gather(ctx)
			}
		}
	}
}

// gather lets a group grow, so that a burst of events costs one transaction, and a list none
// before it is there.
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

func (r *Recorder) end(ctx context.Context) {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	for ops := r.take(); len(ops) > 0; ops = r.take() {
		r.write(ctx, ops)
	}
}

// write commits a group. When the store fails, everything in the group is lost:
// snapshots know that they are, and an event that comes later finds the hole.
func (r *Recorder) write(ctx context.Context, ops []operation) {
	ctx = context.WithoutCancel(ctx)
	r.dropOrphaned(ctx)
	err := r.commit(ctx, ops)
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
	// What is in the store stays there, whatever comes of making room for the next.
	if err == nil || errors.Is(err, store.ErrFull) {
		err = errors.Join(err, r.enforceQuota(ctx, err != nil))
	}
	r.updateHealth(ctx, err)
	for _, op := range ops {
		op.done()
	}
}

func (r *Recorder) commit(ctx context.Context, ops []operation) error {
	return r.db.Update(ctx, func(tx *store.Tx) error {
		g := &group{tx: tx, openWatches: &r.openWatches, positions: map[store.Scope]*position{}, used: map[int64]struct{}{}, deferred: map[deferredWrite]struct{}{}}
		for _, op := range ops {
			if err := op.apply(g); err != nil {
				return err
			}
		}
		return g.finish()
	})
}

// isFileError tells that an error is not one operation's but would meet all.
func isFileError(err error) bool {
	for _, kind := range []error{store.ErrFull, store.ErrReadOnly, store.ErrCorrupt, store.ErrGone, store.ErrDisk} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// writeOneByOne writes what one operation has made fail, so that it only fails itself.
// Snapshots are given up: they have rows that were rolled back. So are superseded
// events: one alone must not move its collection on.
func (r *Recorder) writeOneByOne(ctx context.Context, ops []operation, cause error) error {
	r.log.Warn("recording one by one what could not be recorded together", zap.Error(cause))
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

// dropOrphaned deletes the rows of snapshots that could not be ended in their group.
func (r *Recorder) dropOrphaned(ctx context.Context) {
	for len(r.orphaned) > 0 {
		if err := r.db.Update(ctx, r.orphaned[0].rows.Abort); err != nil {
			return // the next group tries again
		}
		r.orphaned = r.orphaned[1:]
	}
}
