package record

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"rockpool.dev/store"
)

const (
	// recreateInterval is the minimum between two attempts to create a new file. If the disk
	// damages each new file, the pod must not spend its time on creating them.
	recreateInterval = 30 * time.Second
	// logInterval is the minimum between two log lines that say that recording has stopped. On a
	// nearly full disk one group fits and the next does not.
	logInterval = time.Minute
)

// health is whether recording works.
type health struct {
	logged      bool      // the log says that recording has stopped
	loggedAt    time.Time // when it last said so
	attemptedAt time.Time // when the last attempt to create a new file was made
}

// updateHealth evaluates the outcome of a group. It logs when recording stops and when it resumes.
// Each group tries a full or read-only disk again; a corrupt or missing file is replaced.
func (r *Recorder) updateHealth(ctx context.Context, err error) {
	h := &r.health
	now := r.clock.Now()
	if errors.Is(err, store.ErrCorrupt) { // a file that was deleted looks to its readers like one without tables
		err = cmp.Or(r.db.Check(), err)
	}
	corrupt := errors.Is(err, store.ErrCorrupt)
	if (corrupt || errors.Is(err, store.ErrGone)) && !now.Before(h.attemptedAt.Add(recreateInterval)) {
		h.attemptedAt = now
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
			r.log.Error("cannot write to the cache; requests pass through unrecorded", zap.Error(err))
			h.loggedAt, h.logged = now, true
		}
		return
	}
	r.metrics.stopped.Set(0)
	if h.logged {
		r.log.Info("recording resumes")
		h.logged = false
	}
}

// recreated continues with an empty file. It records the state of the link there, and asks for a
// relist of all watched collections: their clients have no reason to list them again.
func (r *Recorder) recreated(corrupt bool, cause error) {
	reason := "gone"
	if corrupt {
		reason = "corrupt"
	}
	recreatedTotal.WithLabelValues(r.name, reason).Inc()
	r.log.Warn("lost the cache file; recording into a new, empty one",
		zap.String("path", r.db.Path()), zap.String("reason", reason), zap.Error(cause))
	if r.rebuilt != nil {
		r.rebuilt(fmt.Sprintf("lost the cache file (%s): %v; recording into a new, empty one", r.name, cause))
	}
	if l := r.linked.Load(); l != nil {
		r.enqueue(putLink(l.state, l.reason))
	}
	for _, s := range r.openWatches.listed() {
		r.report(Stale{Source: s.source, Form: s.form})
	}
}
