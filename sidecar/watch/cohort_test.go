package watch

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"rockpool.dev/sidecar/relist"
	"rockpool.dev/sidecar/upstream"
)

var errLink = &upstream.LinkError{}

func TestTheNextMemberComparesWhenTheFirstIsInterrupted(t *testing.T) {
	var s cohorts
	c := s.join(relist.Position{})
	answer := &relist.Difference{Version: "20"}
	refused := errors.New("refused")
	for name, tt := range map[string]struct {
		first  error // of the first member's comparison
		leaves bool  // whether the context of the first member ends
		want   error // for the second member
		calls  int   // of compare
	}{
		"the first finds the changes":    {nil, false, nil, 1},
		"the client of the first leaves": {context.Canceled, true, nil, 2},
		"the link breaks":                {errLink, false, nil, 2},
		"the changes are unknown":        {refused, false, refused, 1},
	} {
		t.Run(name, func(t *testing.T) {
			*c = cohort{turn: make(chan struct{}, 1)}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			calls := 0
			compare := func(context.Context) (*relist.Difference, error) {
				if calls++; calls > 1 || tt.first == nil {
					return answer, nil
				}
				if tt.leaves {
					cancel()
				}
				return nil, tt.first
			}
			if _, err := c.difference(ctx, compare); !errors.Is(err, tt.first) {
				t.Errorf("the first member gets %v", err)
			}
			d, err := c.difference(t.Context(), compare)
			if !errors.Is(err, tt.want) || (err == nil) != (d == answer) || calls != tt.calls {
				t.Errorf("the second member gets %v, %v after %d comparisons", d, err, calls)
			}
		})
	}
	c.turn <- struct{}{} // another member compares
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.difference(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a member whose context has ended gets %v", err)
	}
}

func TestResumptionsAreSpreadOverTime(t *testing.T) {
	for name, tt := range map[string]struct {
		watches, failures int
		random            float64
		want              time.Duration
		outage            time.Duration
	}{
		"one watch resumes at once":                 {1, 0, 0, 0, 0},
		"one watch, up to 50 ms later":              {1, 0, 0.5, 25 * time.Millisecond, 0},
		"twenty watches within a second":            {20, 0, 0.5, 500 * time.Millisecond, 0},
		"a thousand watches within two seconds":     {1000, 0, 0.5, time.Second, 0},
		"500 ms after the first failure":            {1, 1, 0, 500 * time.Millisecond, 0},
		"a second after the second failure":         {1, 2, 0, time.Second, 0},
		"the spread is added to the backoff":        {20, 2, 0.5, 1500 * time.Millisecond, 0},
		"the backoff doubles up to 8 s":             {1, 5, 0, 8 * time.Second, 0},
		"the backoff stays at 8 s":                  {1, 1 << 30, 0, 8 * time.Second, 0},
		"the longest backoff and the widest spread": {1000, 1 << 30, 0.5, 9 * time.Second, 0},
		"a tenth of an outage":                      {1, 0, 0.5, 3 * time.Second, time.Minute},
		"thirty seconds after a long outage":        {1, 0, 0.5, 15 * time.Second, 24 * time.Hour},
		"many watches after a short outage":         {20, 0, 0.5, 500 * time.Millisecond, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := cohorts{random: func() float64 { return tt.random }}
			for i := range tt.watches {
				c := s.join(relist.Position{Version: fmt.Sprint(i / 2)})
				defer s.leave(c)
			}
			if got := s.delay(tt.failures, tt.outage); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestACohortEndsWithItsLastMember(t *testing.T) {
	s := cohorts{random: func() float64 { return 1 }}
	a, b := s.join(relist.Position{Version: "1"}), s.join(relist.Position{Version: "1"})
	if a != b {
		t.Error("two watches at one position are in two cohorts")
	}
	s.leave(a)
	if c := s.join(relist.Position{Version: "1"}); c != b {
		t.Error("a cohort that has a member was removed")
	}
	s.leave(b)
	s.leave(b)
	if len(s.at) != 0 || s.delay(0, 0) != 0 {
		t.Errorf("cohorts %v remain, and the delay is %s", s.at, s.delay(0, 0))
	}
}
