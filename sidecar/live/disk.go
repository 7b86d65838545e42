package live

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

const (
	// diskPatience bounds each wait of a read for the disk. It is longer than cache.FlushTimeout.
	diskPatience = 2 * time.Second
	// diskPause is how long reads pass without a look into the cache after a disk has been too
	// slow: programs must not wait for it time and again.
	diskPause = 10 * time.Second
)

var errDisk = errors.New("the disk did not answer in time a moment ago")

// onDisk calls f, which reads the disk, and does not wait for a disk that hangs. late closes what
// comes afterwards; nil: nothing is to be closed.
func onDisk[T any](ctx context.Context, s *Collections, f func(context.Context) (T, error), late func(T)) (T, error) {
	var none T
	if s.Clock.Now().UnixNano() < s.skipUntil.Load() {
		return none, errDisk
	}
	value, err := cache.Within(ctx, diskPatience, f, late)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		s.skipUntil.Store(s.Clock.Now().Add(diskPause).UnixNano())
	}
	return value, err
}

// found gives what is recorded. What clients were told just before may be missing.
func (s *Collections) found(ctx context.Context, read *Read) (replay.Recorded, error) {
	return onDisk(ctx, s, func(ctx context.Context) (replay.Recorded, error) { return read.Cache.Recorded(ctx, read.query()) }, nil)
}

// recorded gives what is recorded, with all that clients were told so far.
func (s *Collections) recorded(ctx context.Context, read *Read) (replay.Recorded, error) {
	return onDisk(ctx, s, func(ctx context.Context) (replay.Recorded, error) {
		flushing, cancel := context.WithTimeout(ctx, cache.FlushTimeout)
		defer cancel()
		if err := read.Cache.Flush(flushing); err != nil {
			return replay.Recorded{}, err
		}
		return read.Cache.Recorded(ctx, read.query())
	}, nil)
}

// overtaken returns errOvertaken if a client was told something newer than what is recorded.
func (s *Collections) overtaken(ctx context.Context, recorded *replay.Recorded) error {
	by, err := onDisk(ctx, s, recorded.Overtaken, nil)
	if err == nil && by != "" {
		err = fmt.Errorf("%w: %s", errOvertaken, by)
	}
	return err
}

// findNewest finds the recorded object that has changed last.
func (s *Collections) findNewest(ctx context.Context, read *Read) (err error) {
	for range attempts {
		_, err = onDisk(ctx, s, func(ctx context.Context) (struct{}, error) { return struct{}{}, read.Recorded.FindNewest(ctx) }, nil)
		if !errors.Is(err, store.ErrChanged) {
			return err
		}
		if read.Recorded, err = s.recorded(ctx, read); err != nil {
			return err
		}
	}
	return err
}
