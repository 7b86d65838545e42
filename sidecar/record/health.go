package record

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"rockpool.dev/store"
)

// renewInterval lies between two attempts to begin a new file. Where the disk damages
// one after the other, the pod shall not spend its time on making them.
const renewInterval = 30 * time.Second

// health is how recording goes.
type health struct {
	failing bool      // the last group failed
	tried   time.Time // when a new file was last begun
}

// judge looks at the outcome of a group. What stops recording is said once, when it
// begins, and so is its end. A disk that is full or read-only is tried again with
// each group; a file that is corrupt or gone is replaced.
func (r *Recorder) judge(ctx context.Context, err error) {
	h := &r.health
	corrupt := errors.Is(err, store.ErrCorrupt)
	if (corrupt || errors.Is(err, store.ErrGone)) && !r.clock.Now().Before(h.tried.Add(renewInterval)) {
		h.tried = r.clock.Now()
		if again := r.db.Recreate(ctx); again != nil {
			err = errors.Join(err, again)
		} else {
			r.renewed(corrupt, err)
			err = nil
		}
	}
	switch {
	case err != nil && !h.failing:
		r.log.Error("recording has stopped; requests pass through unrecorded", zap.Error(err))
		r.metrics.stopped.Set(1)
	case err == nil && h.failing:
		r.log.Info("recording goes on")
		r.metrics.stopped.Set(0)
	}
	h.failing = err != nil
}

// renewed goes on with an empty file. What clients watch is listed again: to them
// nothing has happened that would make them do so.
func (r *Recorder) renewed(corrupt bool, cause error) {
	reason := "gone"
	if corrupt {
		reason = "corrupt"
	}
	recreatedTotal.WithLabelValues(r.name, reason).Inc()
	r.log.Warn("the cache's file was lost; recording begins anew in an empty one", zap.String("path", r.db.Path()), zap.String("reason", reason), zap.Error(cause))
	for _, s := range r.watched.listed() {
		r.report(&s.source, s.form)
	}
}
