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

// sayInterval lies between two log lines that say that recording has stopped. On a disk
// that is nearly full one group fits and the next does not.
const sayInterval = time.Minute

// health is how recording goes.
type health struct {
	told  bool      // the log says that recording has stopped
	said  time.Time // when it last did
	tried time.Time // when a new file was last begun
}

// judge looks at the outcome of a group. What stops recording is said when it
// begins, and so is its end. A disk that is full or read-only is tried again with
// each group; a file that is corrupt or gone is replaced.
func (r *Recorder) judge(ctx context.Context, err error) {
	h := &r.health
	now := r.clock.Now()
	corrupt := errors.Is(err, store.ErrCorrupt)
	if (corrupt || errors.Is(err, store.ErrGone)) && !now.Before(h.tried.Add(renewInterval)) {
		h.tried = now
		if again := r.db.Recreate(ctx); again != nil {
			err = errors.Join(err, again)
		} else {
			r.renewed(corrupt, err)
			err = nil
		}
	}
	if err != nil {
		r.metrics.stopped.Set(1)
		if !h.told && !now.Before(h.said.Add(sayInterval)) {
			r.log.Error("recording has stopped; requests pass through unrecorded", zap.Error(err))
			h.said, h.told = now, true
		}
		return
	}
	r.metrics.stopped.Set(0)
	if h.told {
		r.log.Info("recording goes on")
		h.told = false
	}
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
