package cache

import (
	"context"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"
)

const (
	// firstRetry is how long after a failure the cache is opened again. It doubles, up to
	// longestRetry, for as long as that fails.
	firstRetry   = time.Second
	longestRetry = time.Minute
)

// opener opens a cache, and tries again if that fails: a volume may be mounted late, a disk full for
// a while, or all slots held by pods that are about to end.
type opener struct {
	open    func(context.Context) error
	opened  chan struct{} // closed when it is
	message string        // for the log
	failing string        // the last error that was logged
	fields  []zap.Field
	log     *zap.Logger
	clock   clock.WithTicker
}

func newOpener(o Options, open func(context.Context) error, message string) *opener {
	return &opener{
		open: open, opened: make(chan struct{}), message: message, log: o.Logger, clock: o.Clock,
		fields: []zap.Field{zap.String("directory", o.Directory)},
	}
}

// try opens the cache, and reports whether it is open. It logs an error once, until it fails with
// another.
func (p *opener) try(ctx context.Context) bool {
	err := p.open(ctx)
	switch {
	case err == nil:
		close(p.opened)
		return true
	case ctx.Err() == nil && p.failing != err.Error():
		p.failing = err.Error()
		p.log.Error(p.message, append(p.fields, zap.Error(err))...)
	}
	return false
}

// retry opens the cache that the first attempt could not open. It reports false if ctx ended before.
func (p *opener) retry(ctx context.Context) bool {
	for wait := firstRetry; ; wait = min(2*wait, longestRetry) {
		timer := p.clock.NewTimer(wait)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return false
		}
		if p.try(ctx) {
			return true
		}
	}
}

// wait waits until the cache is open. It reports false if ctx ended before.
func (p *opener) wait(ctx context.Context) bool {
	select {
	case <-p.opened:
		return true
	case <-ctx.Done():
		return false
	}
}
