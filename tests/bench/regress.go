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
	// noises is by how many of the two runs' deviations a value must be worse.
	noises = 4
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
}

// judged is the value that two runs are compared by: the ratio to direct access, which other load of
// the machine changes least, else what was measured of the recording sidecar.
func (r *row) judged() float64 {
	if v := float64(r.OnRatio); !math.IsNaN(v) {
		return v
	}
	return float64(r.On)
}

// regressions compares a run with an earlier one. Rows that only one of them has are left out.
func regressions(before, now *report) (found []regression) {
	for _, n := range now.Rows {
		i := slices.IndexFunc(before.Rows, n.same)
		if i < 0 {
			continue
		}
		b := &before.Rows[i]
		was, is := b.judged(), n.judged()
		if math.IsNaN(was) || math.IsNaN(is) {
			continue
		}
		room := math.Max(leastRegression, noises*(b.noise()+n.noise())) * math.Abs(was)
		switch {
		case n.MoreIsBetter && is < was-room:
			found = append(found, regression{n, was, is, was - room})
		case !n.MoreIsBetter && is > was+room:
			found = append(found, regression{n, was, is, was + room})
		}
	}
	return found
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

// noise is the deviation of the judged value between rounds, as a part of it; 0 if it is unknown.
func (r *row) noise() float64 {
	if v := float64(r.Noise); !math.IsNaN(v) {
		return v
	}
	return 0
}

// printComparison prints what misses its target, and what is worse than in an earlier run.
func (r *report) printComparison(w io.Writer, before *report, found []regression) {
	fmt.Fprintln(w)
	for _, l := range r.Rows {
		if l.Verdict == verdictMissed {
			fmt.Fprintf(w, "MISSED since %s: %s, %s: %s\n", l.MissedSince, l.Case, l.Measure, l.Target)
		}
	}
	if before == nil {
		return
	}
	for _, f := range found {
		fmt.Fprintf(w, "WORSE than %s: %s, %s: %v, was %v (up to %v is noise)\n", before.Version, f.Case, f.Measure, number(f.now), number(f.before), number(f.allowed))
	}
	if len(found) == 0 {
		fmt.Fprintf(w, "nothing is worse than in the run of %s\n", before.Version)
	}
}
