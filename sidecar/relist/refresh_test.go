package relist

import (
	"testing"
	"time"
)

func TestTheIntervalOfRepeatedListsDoublesUpToAnHour(t *testing.T) {
	var last backoff
	now := time.Now()
	for i, want := range []time.Duration{
		30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute,
		16 * time.Minute, 32 * time.Minute, time.Hour, time.Hour,
	} {
		if last = last.next(now); last.wait != want {
			t.Errorf("after list %d: an interval of %s, want %s", i+1, last.wait, want)
		}
		now = now.Add(last.wait + time.Second)
	}
	if last = last.next(now.Add(3 * time.Hour)); last.wait != relistInterval {
		t.Errorf("after 3 hours without a list: an interval of %s", last.wait)
	}
}
