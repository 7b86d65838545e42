package record

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"rockpool.dev/store"
)

// recreateInterval lies between two attempts to begin a new file. Where the disk damages
// one after the other, the pod shall not spend its time on making them.
const recreateInterval = 30 * time.Second

// logInterval lies between two log lines that say that recording has stopped. On a disk
// that is nearly full one group fits and the next does not.
const logInterval = time.Minute

// health is how recording goes.
type health struct {
	logged      bool      // the log says that recording has stopped
	loggedAt    time.Time // when it last did
	recreatedAt time.Time // when a new file was last begun
}

// updateHealth looks at the outcome of a group. What stops recording is said when it
// begins, and so is its end. A disk that is full or read-only is tried again with
// each group; a file that is corrupt or gone is replaced.
func (r *Recorder) updateHealth(ctx context.Context, err error) {
	h := &r.health
	now := r.clock.Now()
	corrupt := errors.Is(err, store.ErrCorrupt)
	if (corrupt || errors.Is(err, store.ErrGone)) && !now.Before(h.recreatedAt.Add(recreateInterval)) {
		h.recreatedAt = now
		if again := r.db.Recreate(ctx); again != nil {
			err = errors.Join(err, again)
		} else {
			r.recreated(corrupt, err)
			err = nil
		}
	}
	if err != nil {
		r.metrics.stopped.Set(1)
		if !h.logged && !now.Before(h.loggedAt.Add(logInterval)) {
			r.log.Error("recording has stopped; requests pass through unrecorded", zap.Error(err))
			h.loggedAt, h.logged = now, true
		}
		return
	}
	r.metrics.stopped.Set(0)
	if h.logged {
		r.log.Info("recording goes on")
		h.logged = false
	}
}

// recreated goes on with an empty file. What clients watch is listed again: to them
// nothing has happened that would make them do so.
func (r *Recorder) recreated(corrupt bool, cause error) {
	reason := "gone"
	if corrupt {
		reason = "corrupt"
	}
	recreatedTotal.WithLabelValues(r.name, reason).Inc()
	r.log.Warn("the cache's file was lost; recording begins anew in an empty one", zap.String("path", r.db.Path()), zap.String("reason", reason), zap.Error(cause))
	for _, s := range r.openWatches.listed() {
		r.report(&s.source, s.form)
	}
}
