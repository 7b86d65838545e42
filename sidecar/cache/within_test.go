package cache

import (
	"context"
	"errors"
	"testing"
	"time"

	"rockpool.dev/tests/eventually"
)

func TestADiskThatHangsIsNotWaitedFor(t *testing.T) {
	release, late := make(chan struct{}), make(chan int, 1)
	hangs := func(context.Context) (int, error) { <-release; return 1, nil }
	if _, err := Within(t.Context(), time.Millisecond, hangs, func(n int) { late <- n }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	close(release)
	if n := eventually.Receive(t, "what comes late", late); n != 1 {
		t.Errorf("%d is closed", n)
	}
}

func TestAResultOfTheCacheIsNotLostWhenItsContextEnds(t *testing.T) {
	for range 2000 {
		if n, err := Within(t.Context(), time.Minute, func(context.Context) (int, error) { return 1, nil }, nil); n != 1 || err != nil {
			t.Fatalf("%d %v", n, err)
		}
	}
}
