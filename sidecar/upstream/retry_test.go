package upstream

import (
	"testing"
	"time"
)

func TestWaitsBeforeAnAttempt(t *testing.T) {
	const most = 30 * time.Second
	for _, c := range []struct {
		name     string
		failures int
		from, to time.Duration
	}{
		{"a random part of a second at first", 0, 0, time.Second},
		{"twice as long after a failure", 1, 0, 2 * time.Second},
		{"a random part of the longest", 5, 0, most},
		{"then always the longest", 6, most, most},
		{"also after many failures", 1000, most, most},
	} {
		shortest, longest := most, time.Duration(0)
		for range 1000 {
			wait := retryWait(c.failures, most)
			shortest, longest = min(shortest, wait), max(longest, wait)
		}
		if shortest < c.from || longest > c.to || shortest > c.from+c.to/10 || longest < c.to*9/10 {
			t.Errorf("%s: from %s to %s", c.name, shortest, longest)
		}
	}
}
