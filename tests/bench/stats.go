package main

import (
	"math"
	"slices"
	"time"
)

// series are measurements by target, in rounds.
type series map[string][]float64

func (s series) add(name string, v float64) { s[name] = append(s[name], v) }

func (s series) median(name string) float64 { return median(s[name]) }

// ratio is the median of the ratios of two targets within the rounds.
func (s series) ratio(of, to string) float64 { return median(s.ratios(of, to)) }

func (s series) ratios(of, to string) (ratios []float64) {
	for i := range min(len(s[of]), len(s[to])) {
		ratios = append(ratios, s[of][i]/s[to][i])
	}
	return ratios
}

// of are the ratios of both sidecars to another target, within the rounds.
func (s series) of(to string) series {
	return series{"off": s.ratios("off", to), "on": s.ratios("on", to)}
}

// deviation is the median deviation of values from their median.
func deviation(values []float64) float64 {
	middle := median(values)
	var away []float64
	for _, v := range values {
		away = append(away, math.Abs(v-middle))
	}
	return median(away)
}

// spread is the difference between the largest and the smallest value of a target, as a part of the
// median.
func (s series) spread(name string) float64 {
	return (slices.Max(s[name]) - slices.Min(s[name])) / s.median(name)
}

func median(values []float64) float64 { return percentile(values, 50) }

// percentile returns the nearest value, or NaN if there are no values.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	if p == 50 && len(sorted)%2 == 0 {
		return (sorted[len(sorted)/2-1] + sorted[len(sorted)/2]) / 2
	}
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*p/100))]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
