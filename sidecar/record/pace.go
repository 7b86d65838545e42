package record

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Budget bounds what is written to a disk. Groups wait longer then, and an object that changes often
// is written less often (coalesce.go). Answers are as fresh as without it, because Flush does not
// wait. What waits is lost if the sidecar is killed.
type Budget struct {
	// PerDay is how many bytes may be written in 24 hours; 0: any number.
	PerDay int64
	// Written returns how many bytes the process has had written to disks since its start.
	Written func() (int64, error)
}

// burstPart is the part of a day's budget that may be written at once, such as the first lists. The
// rest comes evenly over the day, so that no 24 hours have more than a day's budget.
const burstPart = 10

// pace says when the next group may be written.
type pace struct {
	Budget
	left float64   // bytes; negative: more was written than was left
	paid int64     // bytes of Written that are taken from left
	at   time.Time // zero: not begun

	over, blind sync.Once // what is logged once
}

// wait is how long the next group waits, if so many bytes were written until now.
func (p *pace) wait(now time.Time, written int64) time.Duration {
	burst := float64(p.PerDay) / burstPart
	rate := (float64(p.PerDay) - burst) / float64(24*time.Hour)
	if p.at.IsZero() {
		p.left, p.paid, p.at = burst, written, now
	}
	p.left = min(burst, p.left+rate*float64(max(0, now.Sub(p.at)))) - float64(written-p.paid)
	p.at, p.paid = now, written
	if p.left >= 0 {
		return 0
	}
	return time.Duration(-p.left/rate) + 1
}

// afford waits until the budget allows another group. It does not wait while somebody waits in
// Flush, nor beyond the memory for what waits.
func (r *Recorder) afford(ctx context.Context) {
	for r.pace.PerDay > 0 && ctx.Err() == nil {
		written, err := r.pace.Written()
		if err != nil {
			r.pace.blind.Do(func() {
				r.log.Warn("cannot tell how much is written to the disk; cache.write-budget has no effect", zap.Error(err))
			})
			return
		}
		wait := r.pace.wait(r.clock.Now(), written)
		urgent, full := r.pressed()
		if wait == 0 || urgent {
			return
		}
		if full {
			overBudgetTotal.Inc()
			r.pace.over.Do(func() {
				r.log.Warn("more is recorded than cache.write-budget allows; what has no room in memory is written all the same")
			})
			return
		}
		timer := r.clock.NewTimer(wait)
		select {
		case <-timer.C():
		case <-r.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// pressed reports whether somebody waits in Flush, and whether the queue takes half of its memory.
// The rest is for operations that come while a group is written.
func (r *Recorder) pressed() (urgent, full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.urgent, r.memory() >= r.max/2
}
