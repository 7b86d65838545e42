package live

import (
	"context"
	"errors"
	"testing"
	"time"

	"rockpool.dev/tests/eventually"
)

// A disk that hangs holds no read up, but for the first.
func TestADiskThatHangsIsNotAskedAgainForAWhile(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	hangs := func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() }
	if _, err := onDisk(t.Context(), h.Collections, hangs, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	h.list("").passed()
	if _, ones, watches := h.server.counts(); ones != 0 || watches != 0 {
		t.Errorf("the API server was asked: %d lists of one item, %d watches", ones, watches)
	}
	h.clock.Step(diskPause)
	list := h.list("")
	w := h.server.watch(1)
	h.server.asked(1)
	h.server.bookmark(w)
	list.saved(20, "a@5", "b@6", "c@7")
	left, leave := context.WithCancel(t.Context())
	leave()
	if _, err := onDisk(left, h.Collections, hangs, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	h.list("?resourceVersion=0").saved(20, "a@5", "b@6", "c@7") // a client that has left says nothing of the disk
}

// A watch that brings nothing, and does not end either, holds a list up for as long as a proof may
// wait.
func TestAWatchThatIsSilentIsNotWaitedForLong(t *testing.T) {
	h := newHarness(t)
	h.server.revision = 20
	list := h.list("")
	h.server.watch(1)
	h.server.asked(1)
	eventually.True(t, "the list waits", h.clock.HasWaiters)
	h.clock.Step(patience - time.Second)
	if len(list.done) > 0 {
		t.Error("it has not waited")
	}
	eventually.True(t, "the list ends", func() bool {
		h.clock.Step(time.Second)
		return len(list.done) > 0
	})
	list.passed()
	h.isEnded()
}
