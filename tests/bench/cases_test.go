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

func TestAWriteBudgetAllowsATenthAtOnceAndAllInADay(t *testing.T) {
	for since, want := range map[time.Duration]float64{0: 100, 12 * time.Hour: 550, 24 * time.Hour: 1000} {
		if got := allowedBy(1000, since); math.Abs(got-want) > 1e-9 {
			t.Errorf("%v after the start: %v bytes, want %v", since, got, want)
		}
	}
}
