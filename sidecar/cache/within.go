package cache

import (
	"context"
	"time"
)

// Within gives up waiting for f after a while, also when the disk hangs, which no context ends.
// Then f ends when the disk answers, and late is called with what it gives without an error; nil:
// nothing is to be closed.
func Within[T any](ctx context.Context, most time.Duration, f func(context.Context) (T, error), late func(T)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	type outcome struct {
		value T
		err   error
	}
	done, gone := make(chan outcome), make(chan struct{})
	go func() {
		defer cancel()
		value, err := f(ctx)
		select {
		case done <- outcome{value, err}:
		case <-gone:
			if err == nil && late != nil {
				late(value)
			}
		}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done(): // which nothing else ends before f has given its outcome
		close(gone)
		var none T
		return none, ctx.Err()
	}
}
