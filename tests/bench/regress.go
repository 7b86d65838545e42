package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
)

const (
	// leastRegression is how much worse a value must be, as a part of the earlier one, to be a
	// regression, however quiet the machine was.
	leastRegression = 0.15
	// leastUnmeasured is the same for a value whose noise is not known in both runs, and for the
	// longest of a few.
	leastUnmeasured = 0.5
	// noises is by how many of the two runs' deviations a value must be worse.
	noises = 4
	// mostOthers is how many CPUs other programs may take in a case whose times are compared.
	mostOthers = 0.25
)

// readReport reads the results of an earlier run.
func readReport(path string) (*report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &report{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s is not a report of this program: %w", path, err)
	}
	return r, nil
}

// regression is a value that is worse than in an earlier run, beyond the noise of both.
type regression struct {
	row
	before, now, allowed float64 // allowed is the worst value that is no regression
	// others is how many CPUs other programs took in one of the runs, if that may be the cause.
	others float64
}

// failures is how many regressions other programs cannot have caused.
func failures(found []regression) (n int) {
	for _, f := range found {
		if f.others == 0 {
			n++
		}
	}
	return n
}

// regressions compares a run with an earlier one. Rows that only one of them has are left out.
func regressions(before, now *report) (found []regression) {
	for _, n := range now.Rows {
		i := slices.IndexFunc(before.Rows, n.same)
		if i < 0 {
			continue
		}
		b := before.Rows[i]
		b.Target = n.Target // both are judged by the same value
		allowed := worstAllowed(b, n)
		if isWorse(n, n.judged(), allowed) && !overlap(b, n) {
			found = append(found, regression{n, b.judged(), n.judged(), allowed, disturbed(before, now, n)})
		}
	}
	return found
}

// counted are the units of what other programs do not change.
var counted = []string{"bytes", "KiB", "MiB", "KB", "MB", "%", "1000"}

// disturbed is how many CPUs other programs took in the case of a row, in the run in which they took
// more, if that changes what the row measures; else 0.
func disturbed(before, now *report, r row) (others float64) {
	if slices.Contains(counted, r.Unit) {
		return 0
	}
	for _, l := range slices.Concat(before.Load, now.Load) {
		if l.Case == r.Part && l.Others > mostOthers {
			others = max(others, l.Others)
		}
	}
	return others
}

// isWorse compares two values of a row. NaN is not worse, and nothing is worse than NaN.
func isWorse(r row, value, than float64) bool {
	if r.MoreIsBetter {
		return value < than
	}
	return value > than
}

// worstAllowed is the worst value that is no regression.
//
//   - The longest of a few is compared by a factor, which is not below the spread of those few.
//   - A difference, which may be near zero, is compared in parts of what it is a difference of.
//   - Everything else is compared in parts of the earlier value.
func worstAllowed(before, now row) float64 {
	was := before.judged()
	if spread := largest(before.Spread, now.Spread); !math.IsNaN(spread) {
		return was * math.Max(1+leastUnmeasured, spread)
	}
	room := leastUnmeasured
	if noise := float64(before.Noise + now.Noise); !math.IsNaN(noise) {
		room = math.Max(leastRegression, noises*noise)
	}
	room *= math.Max(math.Abs(was), defined(largest(before.Of, now.Of)))
	if now.MoreIsBetter {
		return was - room
	}
	return was + room
}

// largest is the larger of two numbers, or the one that is not NaN.
func largest(a, b number) float64 {
	if math.IsNaN(float64(a)) {
		return float64(b)
	}
	return math.Max(float64(a), defined(float64(b)))
}

// defined is v, or 0 if it is NaN.
func defined(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}

// overlap reports whether the intervals of both medians are known, and have a value in common. A
// median deviation may be small by chance where rounds are few, but then the outermost ones are not.
func overlap(before, now row) bool {
	b, n := before.interval(), now.interval()
	return b.known() && n.known() && b.low <= n.high && n.low <= b.high
}

// missed notes in each row that misses its target since which version it does: that of the earlier run
// if it missed the same target.
func (r *report) missed(before *report) {
	for i := range r.Rows {
		n := &r.Rows[i]
		if n.Verdict != verdictMissed {
			continue
		}
		n.MissedSince = r.Version
		if before == nil {
			continue
		}
		if j := slices.IndexFunc(before.Rows, n.same); j >= 0 && before.Rows[j].Verdict == verdictMissed && before.Rows[j].Target == n.Target {
			n.MissedSince = before.Version
			if before.Rows[j].MissedSince != "" {
				n.MissedSince = before.Rows[j].MissedSince
			}
		}
	}
}

func (r row) same(other row) bool {
	return r.Case == other.Case && r.Measure == other.Measure && r.Unit == other.Unit
}

// printComparison prints what misses its target, what may, and what is worse than in an earlier run.
func (r *report) printComparison(w io.Writer, before *report, found []regression) {
	fmt.Fprintln(w)
	for _, l := range r.Rows {
		switch l.Verdict {
		case verdictMissed:
			fmt.Fprintf(w, "MISSED since %s: %s, %s: %s\n", l.MissedSince, l.Case, l.Measure, l.Target)
		case verdictClose:
			fmt.Fprintf(w, "close: %s, %s: %s, and the median is within %s\n", l.Case, l.Measure, l.Target, l.interval())
		}
	}
	if before == nil {
		return
	}
	for _, f := range found {
		word, cause := "WORSE", ""
		if f.others > 0 {
			word, cause = "worse", fmt.Sprintf("; other programs took %.2f CPUs in one of the runs", f.others)
		}
		fmt.Fprintf(w, "%s than %s: %s, %s: %v, was %v (up to %v is noise%s)\n", word, before.Version, f.Case, f.Measure, number(f.now), number(f.before), number(f.allowed), cause)
	}
	if len(found) == 0 {
		fmt.Fprintf(w, "nothing is worse than in the run of %s\n", before.Version)
	}
}
