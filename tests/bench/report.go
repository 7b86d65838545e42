package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
)

// report has the results of a run.
type report struct {
	Kernel  string   `json:"kernel"`
	CPUs    int      `json:"cpus"`
	Version string   `json:"version"` // of this checkout
	Rounds  int      `json:"rounds"`
	Short   bool     `json:"short"`
	Rows    []row    `json:"rows"`
	Load    []load   `json:"load"`
	Wrong   []string `json:"wrong"` // wrong answers and lost events
}

// row is one line of the table. A value that does not apply is NaN.
type row struct {
	Case       string `json:"case"`
	Measure    string `json:"measure"`
	Unit       string `json:"unit"`
	Direct     number `json:"direct"`
	Nginx      number `json:"nginx"`
	Off        number `json:"recordingOff"`
	On         number `json:"recordingOn"`
	NginxRatio number `json:"nginxToDirect"`
	OffRatio   number `json:"offToDirect"`
	OnRatio    number `json:"onToDirect"`
	// Noise is the median deviation of OnRatio between rounds, or of On if there is no ratio, as a
	// part of it.
	Noise        number `json:"noise"`
	MoreIsBetter bool   `json:"moreIsBetter,omitempty"`
	Target       string `json:"target,omitempty"`
	Verdict      string `json:"verdict,omitempty"`
	// MissedSince is the version of the first run that is known to have missed the target.
	MissedSince string `json:"missedSince,omitempty"`
}

const verdictMissed = "MISSED"

// number is a float whose NaN is null in JSON.
type number float64

// MarshalJSON returns null for NaN and infinity.
func (n number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) || math.IsInf(float64(n), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// UnmarshalJSON reads null as NaN.
func (n *number) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*n = number(none)
		return nil
	}
	return json.Unmarshal(text, (*float64)(n))
}

func (n number) String() string {
	v := float64(n)
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return ""
	case v != 0 && math.Abs(v) < 0.1:
		return strconv.FormatFloat(v, 'g', 2, 64)
	case math.Abs(v) < 100:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

var none = math.NaN()

// compare adds a row with the medians of the targets and their ratios to direct access.
func (r *report) compare(what, measure, unit string, s series) *row {
	return r.add(row{
		Case: what, Measure: measure, Unit: unit,
		Direct: number(s.median("direct")), Nginx: number(s.median("nginx")), NginxRatio: number(s.ratio("nginx", "direct")),
		Off: number(s.median("off")), On: number(s.median("on")),
		OffRatio: number(s.ratio("off", "direct")), OnRatio: number(s.ratio("on", "direct")),
		Noise: number(s.noise("on", "direct")),
	})
}

// note adds a row without ratios to direct access.
func (r *report) note(what, measure, unit string, off, on float64) *row {
	return r.add(row{
		Case: what, Measure: measure, Unit: unit, Direct: number(none), Nginx: number(none), NginxRatio: number(none),
		Off: number(off), On: number(on), OffRatio: number(none), OnRatio: number(none),
		Noise: number(none),
	})
}

func (r *report) add(line row) *row {
	r.Rows = append(r.Rows, line)
	return &r.Rows[len(r.Rows)-1]
}

// atMost and atLeast compare a value with a target of the project.
func (r *row) atMost(value, bound float64, name string) {
	r.judge(value <= bound, fmt.Sprintf("%s ≤ %v", name, bound))
}

func (r *row) atLeast(value, bound float64, name string) {
	r.MoreIsBetter = true
	r.judge(value >= bound, fmt.Sprintf("%s ≥ %v", name, bound))
}

func (r *row) judge(ok bool, target string) {
	r.Target, r.Verdict = target, "ok"
	if !ok {
		r.Verdict = verdictMissed
	}
}

// wrong reports a wrong answer.
func (r *report) wrong(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.Wrong = append(r.Wrong, text)
	progress("WRONG: %s", text)
}

func (r *report) describe() {
	r.CPUs = runtime.NumCPU()
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		r.Kernel = strings.TrimSpace(string(text))
	}
	if out, err := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		r.Version = strings.TrimSpace(string(out))
	}
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "rockpool %s, %d CPUs, Linux %s, %d rounds; medians; x = ratio to direct access in the same round\n\n", r.Version, r.CPUs, r.Kernel, r.Rounds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "case\tmeasure\tunit\tdirect\tnginx\trecording off\trecording on\tnginx x\toff x\ton x\ttarget\t")
	for _, l := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%v\t%v\t%v\t%v\t%v\t%v\t%v\t%s\t%s\n", l.Case, l.Measure, l.Unit, l.Direct, l.Nginx, l.Off, l.On, l.NginxRatio, l.OffRatio, l.OnRatio, l.Target, l.Verdict)
	}
	t.Flush() // an error of w is one of the next Fprintln too
	fmt.Fprintln(w)
	for _, l := range r.Load {
		fmt.Fprintln(w, "machine:", l)
	}
	for _, text := range r.Wrong {
		fmt.Fprintln(w, "WRONG:", text)
	}
}
