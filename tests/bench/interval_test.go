package main

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestTheIntervalHasTheOrderStatisticsOfItsNumberOfRounds(t *testing.T) {
	for name, tt := range map[string]struct {
		rounds    []float64
		low, high float64
	}{
		"none":                            {nil, none, none},
		"one":                             {[]float64{1}, none, none},
		"three: all of them":              {[]float64{3, 1, 2}, 1, 3},
		"five: all of them":               {[]float64{5, 4, 3, 2, 1}, 1, 5},
		"six: all of them, 97 %":          {[]float64{1, 2, 3, 4, 5, 6}, 1, 6},
		"nine: without the outermost":     {[]float64{9, 1, 8, 2, 7, 3, 6, 4, 5}, 2, 8},
		"ten: without the outermost":      {[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 2, 9},
		"ten: an outlier says nothing":    {[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 1000}, 2, 9},
		"twelve: without two on a side":   {[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 3, 10},
		"all the same":                    {[]float64{2, 2, 2, 2}, 2, 2},
		"a round that was not measured":   {[]float64{1, math.NaN(), 3}, none, none},
		"a round that divided by nothing": {[]float64{1, math.Inf(1), 3}, none, none},
	} {
		t.Run(name, func(t *testing.T) {
			got := medianInterval(tt.rounds)
			same := func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }
			if !same(got.low, tt.low) || !same(got.high, tt.high) {
				t.Errorf("got %v to %v, want %v to %v", got.low, got.high, tt.low, tt.high)
			}
		})
	}
}

// The probabilities are those of the binomial distribution, and the rounds have one that is not symmetric.
func TestTheIntervalHasTheMedianAsOftenAsItSays(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for n, want := range map[int]float64{2: 0.5, 3: 0.75, 6: 0.969, 8: 0.992, 10: 0.979, 20: 0.959, 31: 0.971} {
		const samples = 20_000
		has := 0
		for range samples {
			rounds := make([]float64, n)
			for i := range rounds {
				rounds[i] = random.ExpFloat64()
			}
			if i := medianInterval(rounds); i.low <= math.Ln2 && math.Ln2 <= i.high {
				has++
			}
		}
		if got := float64(has) / samples; math.Abs(got-want) > 0.01 {
			t.Errorf("%d rounds: %.3f of the intervals have the median, want %.3f", n, got, want)
		}
	}
}

func TestATargetWithinTheIntervalIsNeitherMetNorMissed(t *testing.T) {
	for name, tt := range map[string]struct {
		value, bound float64
		interval     interval
		more         bool
		want         string
	}{
		"all below":                         {1.00, 1.05, interval{0.98, 1.02}, false, verdictOK},
		"the worst at the target":           {1.00, 1.05, interval{0.98, 1.05}, false, verdictOK},
		"the median below, the worst above": {1.04, 1.05, interval{0.98, 1.10}, false, verdictClose},
		"the median above, the best below":  {1.06, 1.05, interval{0.96, 1.16}, false, verdictClose},
		"the best at the target":            {1.06, 1.05, interval{1.05, 1.16}, false, verdictClose},
		"all above":                         {1.14, 1.05, interval{1.06, 1.20}, false, verdictMissed},
		"a little above, in quiet rounds":   {1.06, 1.05, interval{1.058, 1.062}, false, verdictMissed},
		"measured once, below":              {29, 30, unknown, false, verdictOK},
		"measured once, above":              {31, 30, unknown, false, verdictMissed},
		"not measured":                      {none, 30, unknown, false, verdictMissed},
		"more is better, all above":         {0.9, 0.88, interval{0.89, 0.93}, true, verdictOK},
		"more is better, around":            {0.9, 0.88, interval{0.85, 0.93}, true, verdictClose},
		"more is better, all below":         {0.8, 0.88, interval{0.78, 0.87}, true, verdictMissed},
		"more is better, measured once":     {0.8, 0.88, unknown, true, verdictMissed},
	} {
		t.Run(name, func(t *testing.T) {
			if got := verdict(tt.value, tt.interval, tt.bound, tt.more); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
