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
			if r.holds() {
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
	for held := groupDelay; !r.full(); {
		select {
		case <-timer.C():
			if held += groupDelay; held > holdDelay || !r.holds() {
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
	r.undo(ctx)
	err := r.commit(ctx, ops)
	if err == nil {
		err = r.db.Check()
	} else if !isOfTheFile(err) {
		err = r.onebyone(ctx, ops, err)
	}
	if err != nil {
		droppedTotal.WithLabelValues("store").Add(float64(len(ops)))
		for _, op := range ops {
			r.lose(op)
		}
	}
	// What is in the store stays there, whatever comes of making room for the next.
	if err == nil || errors.Is(err, store.ErrFull) {
		err = errors.Join(err, r.makeRoom(ctx, err != nil))
	}
	r.judge(ctx, err)
	for _, op := range ops {
		op.done()
	}
}

func (r *Recorder) commit(ctx context.Context, ops []operation) error {
	return r.db.Update(ctx, func(tx *store.Tx) error {
		g := &group{tx: tx, watched: &r.watched, heads: map[store.Scope]*head{}, used: map[int64]struct{}{}, owed: map[debt]struct{}{}}
		for _, op := range ops {
			if err := op.apply(g); err != nil {
				return err
			}
		}
		return g.finish()
	})
}

// isOfTheFile tells that an error is not one operation's but would meet all.
func isOfTheFile(err error) bool {
	for _, kind := range []error{store.ErrFull, store.ErrReadOnly, store.ErrCorrupt, store.ErrGone, store.ErrDisk} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// onebyone writes what one operation has made fail, so that it only fails itself.
// Snapshots are given up: they have rows that were rolled back. So are superseded
// events: one alone must not move its collection on.
func (r *Recorder) onebyone(ctx context.Context, ops []operation, cause error) error {
	r.log.Warn("recording one by one what could not be recorded together", zap.Error(cause))
	for _, op := range ops {
		if !op.soloSafe() {
			r.lose(op)
			continue
		}
		err := r.commit(ctx, []operation{op})
		switch {
		case isOfTheFile(err):
			return err
		case err != nil:
			droppedTotal.WithLabelValues("store").Inc()
			r.lose(op)
		}
	}
	return nil
}

// lose tells an operation that it was not recorded.
func (r *Recorder) lose(op operation) {
	op.lost()
	if s := op.closes(); s != nil {
		r.undone = append(r.undone, s)
	}
}

// undo deletes the rows of snapshots that could not be ended in their group.
func (r *Recorder) undo(ctx context.Context) {
	for len(r.undone) > 0 {
		if err := r.db.Update(ctx, r.undone[0].rows.Abort); err != nil {
			return // the next group tries again
		}
		r.undone = r.undone[1:]
	}
}
