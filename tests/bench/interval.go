package main

import (
	"math"
	"slices"
)

// confidence is the least probability with which the interval of six or more rounds has the median.
const confidence = 0.95

// interval is where the median lies of which a few rounds are a sample.
type interval struct{ low, high float64 }

// unknown is the interval of what was measured once.
var unknown = interval{none, none}

func (i interval) known() bool { return !math.IsNaN(i.low) && !math.IsNaN(i.high) }

// medianInterval is a confidence interval of the median that assumes no distribution, only that the
// rounds are independent. Each of n rounds is below the true median with probability 1/2. So the
// median lies between the k-th smallest and the k-th largest round unless fewer than k are on one side
// of it, of which the binomial distribution tells the probability. The result has the largest k with
// the wanted confidence (H. A. David, H. N. Nagaraja: Order Statistics, 7.1). Fewer than six rounds
// reach it with no k: their interval is all of them, which has the median with probability
// 1 - 2^(1-n). One round has no interval.
func medianInterval(values []float64) interval {
	n := len(values)
	if n < 2 || slices.ContainsFunc(values, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }) {
		return unknown
	}
	sorted := slices.Sorted(slices.Values(values))
	k := 1
	one := math.Pow(0.5, float64(n)) // probability that exactly k-1 are on a side, with k = 1
	outside := one                   // that fewer than k are
	for i := 1; i < n/2; i++ {
		one *= float64(n-i+1) / float64(i)
		outside += one
		if 2*outside > 1-confidence {
			break
		}
		k = i + 1
	}
	return interval{sorted[k-1], sorted[n-k]}
}

// The verdicts about a target.
const (
	verdictOK     = "ok"
	verdictMissed = "MISSED"
	// verdictClose says that the target lies within the interval of the median: more rounds could say
	// either.
	verdictClose = "close"
)

// verdict judges a median by a bound that it must not exceed, or, if moreIsBetter, not fall below.
// Without a known interval it judges the value alone.
func verdict(value float64, i interval, bound float64, moreIsBetter bool) string {
	if !i.known() {
		i = interval{value, value}
	}
	best, worst := i.low, i.high
	if moreIsBetter { // the same with the signs changed
		best, worst, bound = -i.high, -i.low, -bound
	}
	switch {
	case worst <= bound:
		return verdictOK
	case best <= bound:
		return verdictClose
	}
	return verdictMissed
}
