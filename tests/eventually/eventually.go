// Package eventually waits, in tests, for conditions that other goroutines or processes bring
// about.
package eventually

import (
	"testing"
	"time"
)

// limit bounds each wait. It is for slow machines: a test that passes does not wait that long.
const limit = 20 * time.Second

// True waits until condition returns true. If that takes more than 20 s, the test fails and
// says what it was waiting for.
func True(t testing.TB, what string, condition func() bool) {
	t.Helper()
	if !poll(condition) {
		t.Fatalf("timed out after %s waiting for: %s", limit, what)
	}
}

// NoError waits until check returns nil. The failure of the test has its last error.
func NoError(t testing.TB, what string, check func() error) {
	t.Helper()
	var err error
	if !poll(func() bool { err = check(); return err == nil }) {
		t.Fatalf("timed out after %s waiting for: %s: %v", limit, what, err)
	}
}

// Receive returns what comes from a channel. It returns the zero value when the channel is closed.
func Receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case value := <-from:
		return value
	case <-timer.C:
		t.Fatalf("timed out after %s waiting for: %s", limit, what)
		panic("unreachable")
	}
}

// poll calls condition until it returns true, or for as long as limit. Between two calls it pauses
// for as long as the call took, from 1 to 20 ms: a cheap condition is seen at once, and a costly
// one leaves the processor to the program under test.
func poll(condition func() bool) bool {
	for deadline := time.Now().Add(limit); ; {
		began := time.Now()
		if condition() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(min(max(time.Since(began), time.Millisecond), 20*time.Millisecond))
	}
}
