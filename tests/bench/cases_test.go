package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestWithoutCasesItTakesTwelveMinutesAtMost(t *testing.T) {
	if got := minutes(cases); got > 12 {
		t.Errorf("%d minutes", got)
	}
}

func TestTheCasesOfARunAreThoseThatAreAskedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		cases, want string
		failure     string
	}{
		"none: those that are not long": {"", "start restart get throughput list filters relist watch crowd informer memory offline admission", ""},
		"some, in their order":          {"day,get", "day get", ""},
		"all":                           {"all", strings.Join(caseNames(), " "), ""},
		"one that there is not":         {"get,gets", "", `"gets" is unknown; there are start, `},
	} {
		t.Run(name, func(t *testing.T) {
			chosen, err := options{cases: tt.cases}.chosen()
			if tt.failure != "" {
				if err == nil || !strings.Contains(err.Error(), tt.failure) {
					t.Errorf("got %v, want %s", err, tt.failure)
				}
				return
			}
			var names []string
			for _, c := range chosen {
				names = append(names, c.name)
				if c.seconds == 0 {
					t.Errorf("%s does not say how long it takes", c.name)
				}
			}
			if got := strings.Join(names, " "); err != nil || got != tt.want {
				t.Errorf("got %s, %v; want %s", got, err, tt.want)
			}
		})
	}
}

func TestTheFirstDayOfABudgetHasWhatTheStartWroteAndTheRestAtItsPace(t *testing.T) {
	for name, tt := range map[string]struct {
		written int64
		since   time.Duration
		want    float64
	}{
		"nothing yet":                           {0, 0, 0.9},
		"the tenth that may be written at once": {100, 0, 1},
		"twice that":                            {200, 0, 1.1},
		"half of the day, at its pace":          {550, 12 * time.Hour, 1},
		"the whole day":                         {1000, 24 * time.Hour, 1},
		"the whole day, too much":               {1200, 24 * time.Hour, 1.2},
	} {
		t.Run(name, func(t *testing.T) {
			if got := firstDay(1000, tt.written, tt.since); math.Abs(got-tt.want) > 1e-9 {
				t.Errorf("%v of the budget, want %v", got, tt.want)
			}
		})
	}
}
