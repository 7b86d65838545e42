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

func TestAMemberThatComparesForItsCohortMayLeaveIt(t *testing.T) {
	var s cohorts
	c := s.join(relist.Position{})
	answer := &relist.Difference{Version: "20"}
	refused := errors.New("refused")
	for name, tt := range map[string]struct {
		first error
		ctx   bool // it is the first one's context that ends
		want  error
		asked int
	}{
		"it has found out":              {nil, false, nil, 1},
		"its client has left":           {context.Canceled, true, nil, 2},
		"the link has broken":           {errLink, false, nil, 2},
		"it has found out that nothing": {refused, false, refused, 1},
	} {
		t.Run(name, func(t *testing.T) {
			*c = cohort{turn: make(chan struct{}, 1)}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			asked := 0
			compare := func(context.Context) (*relist.Difference, error) {
				if asked++; asked > 1 || tt.first == nil {
					return answer, nil
				}
				if tt.ctx {
					cancel()
				}
				return nil, tt.first
			}
			if _, err := c.difference(ctx, compare); !errors.Is(err, tt.first) {
				t.Errorf("the first hears %v", err)
			}
			d, err := c.difference(t.Context(), compare)
			if !errors.Is(err, tt.want) || (err == nil) != (d == answer) || asked != tt.asked {
				t.Errorf("the second hears %v %v after %d looks", d, err, asked)
			}
		})
	}
	c.turn <- struct{}{} // somebody is at it
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.difference(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("one that does not wait any more hears %v", err)
	}
}

func TestWatchesThatComeBackAreSpread(t *testing.T) {
	for name, tt := range map[string]struct {
		watches, failures int
		random            float64
		want              time.Duration
	}{
		"one comes back at once":                          {1, 0, 0, 0},
		"or nearly":                                       {1, 0, 0.5, 25 * time.Millisecond},
		"twenty within a second":                          {20, 0, 0.5, 500 * time.Millisecond},
		"a thousand within two":                           {1000, 0, 0.5, time.Second},
		"one that was refused later":                      {1, 1, 0, 500 * time.Millisecond},
		"twice refused later still":                       {1, 2, 0, time.Second},
		"and spread, too":                                 {20, 2, 0.5, 1500 * time.Millisecond},
		"and so on, up to a bound":                        {1, 5, 0, 8 * time.Second},
		"which stays, however often it tries":             {1, 1 << 30, 0, 8 * time.Second},
		"together with the bound of many watches' spread": {1000, 1 << 30, 0.5, 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := cohorts{random: func() float64 { return tt.random }}
			for i := range tt.watches {
				c := s.join(relist.Position{Version: fmt.Sprint(i / 2)})
				defer s.leave(c)
			}
			if got := s.delay(tt.failures); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestWatchesThatAreGoneDoNotWait(t *testing.T) {
	s := cohorts{random: func() float64 { return 1 }}
	a, b := s.join(relist.Position{Version: "1"}), s.join(relist.Position{Version: "1"})
	if a != b {
		t.Error("two watches at one position are in two cohorts")
	}
	s.leave(a)
	if c := s.join(relist.Position{Version: "1"}); c != b {
		t.Error("a cohort was forgotten that has a member")
	}
	s.leave(b)
	s.leave(b)
	if len(s.at) != 0 || s.delay(0) != 0 {
		t.Errorf("%v remains, %s", s.at, s.delay(0))
	}
}
