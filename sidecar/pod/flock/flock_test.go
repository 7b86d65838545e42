package flock

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
)

func open(t *testing.T, directory string) *os.File {
	t.Helper()
	file, err := os.Open(directory)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

func TestAFreeLockIsTakenAtOnce(t *testing.T) {
	directory := t.TempDir()
	for range 2 { // shared
		if err := Take(open(t, directory), unix.LOCK_SH, 0, clock.RealClock{}); err != nil {
			t.Error(err)
		}
	}
	if err := Take(open(t, directory), unix.LOCK_EX, 0, clock.RealClock{}); !errors.Is(err, ErrHeld) {
		t.Errorf("beside two shared locks: %v", err)
	}
}

func TestTheWaitEnds(t *testing.T) {
	directory := t.TempDir()
	holder, waiter := open(t, directory), open(t, directory)
	if err := unix.Flock(int(holder.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	fake := clocktesting.NewFakeClock(time.Now())
	done := make(chan error, 1)
	take := func() { done <- Take(waiter, unix.LOCK_SH, time.Second, fake) }

	go take()
	if err := stepUntil(t, fake, done); !errors.Is(err, ErrHeld) {
		t.Errorf("beside a lock that stays: %v", err)
	}

	go take()
	for !fake.HasWaiters() {
		select {
		case err := <-done:
			t.Fatalf("did not wait: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	holder.Close()
	if err := stepUntil(t, fake, done); err != nil {
		t.Errorf("after the lock was released: %v", err)
	}
}

// stepUntil moves the clock from attempt to attempt until there is a result.
func stepUntil(t *testing.T, fake *clocktesting.FakeClock, done <-chan error) error {
	t.Helper()
	for {
		if fake.HasWaiters() {
			fake.Step(retryInterval)
		}
		select {
		case err := <-done:
			return err
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("the wait does not end")
		}
	}
}
