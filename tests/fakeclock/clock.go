// Package fakeclock has a clock that tests move.
package fakeclock

import (
	"time"

	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
)

// Clock is a FakeClock whose callbacks may use the clock, and whose timers may be due at once.
type Clock struct{ *clocktesting.FakeClock }

// New returns a clock that shows the present time.
func New() Clock { return Clock{clocktesting.NewFakeClock(time.Now())} }

// AfterFunc calls f in a goroutine of its own once d has passed.
func (c Clock) AfterFunc(d time.Duration, f func()) clock.Timer {
	timer := c.FakeClock.AfterFunc(d, func() { go f() })
	c.fire(d)
	return timer
}

// NewTimer returns a timer that fires once d has passed.
func (c Clock) NewTimer(d time.Duration) clock.Timer {
	timer := c.FakeClock.NewTimer(d)
	c.fire(d)
	return timer
}

// After returns a channel that gets the time once d has passed.
func (c Clock) After(d time.Duration) <-chan time.Time {
	due := c.FakeClock.After(d)
	c.fire(d)
	return due
}

func (c Clock) fire(d time.Duration) {
	if d <= 0 {
		c.Step(0)
	}
}
