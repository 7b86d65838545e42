package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
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
	Part       string `json:"part,omitempty"` // name of the benchCase
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
	// Noise is the median deviation of the judged value between rounds, as a part of it, or as a part
	// of Of.
	Noise number `json:"noise"`
	// Low and High are the interval of the judged value's median.
	Low  number `json:"low"`
	High number `json:"high"`
	// Of is what the judged value is a difference of two of, in the row's unit. Such a value may be
	// near zero.
	Of number `json:"of"`
	// Spread is how many times the smallest of a few values is in the largest, which On is.
	Spread       number `json:"spread"`
	MoreIsBetter bool   `json:"moreIsBetter,omitempty"`
	Target       string `json:"target,omitempty"`
	Verdict      string `json:"verdict,omitempty"`
	// MissedSince is the version of the first run that is known to have missed the target.
	MissedSince string `json:"missedSince,omitempty"`

	rounds series // by what a target may be about
}

// What a target is about: the recording sidecar, or its ratio to direct access.
const (
	ofOn    = "on"
	ofRatio = "on x"
)

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

// UnmarshalJSON reads a row. What an older run has not written is NaN.
func (r *row) UnmarshalJSON(text []byte) error {
	type plain row
	p := plain{Noise: number(none), Low: number(none), High: number(none), Of: number(none), Spread: number(none)}
	err := json.Unmarshal(text, &p)
	*r = row(p)
	return err
}

// compare adds a row with the medians of the targets and their ratios to direct access.
func (r *report) compare(what, measure, unit string, s series) *row {
	line := row{
		Case: what, Measure: measure, Unit: unit,
		Direct: number(s.median("direct")), Nginx: number(s.median("nginx")), NginxRatio: number(s.ratio("nginx", "direct")),
		Off: number(s.median("off")), On: number(s.median("on")),
		OffRatio: number(s.ratio("off", "direct")), OnRatio: number(s.ratio("on", "direct")),
		rounds: series{ofOn: s["on"], ofRatio: s.ratios("on", "direct")},
	}
	return r.add(line)
}

// medians adds a row without ratios to direct access.
func (r *report) medians(what, measure, unit string, s series) *row {
	return r.compare(what, measure, unit, series{"off": s["off"], "on": s["on"]})
}

// difference adds such a row of differences that may be near zero, between values of that size.
func (r *report) difference(what, measure, unit string, s series, of float64) *row {
	line := r.medians(what, measure, unit, s)
	line.Of = number(of)
	line.settle()
	return line
}

// longest adds a row with the longest of a few.
func (r *report) longest(what, measure, unit string, few []float64) *row {
	line := r.note(what, measure, unit, none, percentile(few, 100))
	if len(few) > 1 {
		line.Spread = number(percentile(few, 100) / percentile(few, 0))
	}
	return line
}

// note adds a row with what was measured once.
func (r *report) note(what, measure, unit string, off, on float64) *row {
	return r.medians(what, measure, unit, series{"off": {off}, "on": {on}})
}

func (r *report) add(line row) *row {
	line.Of, line.Spread = number(none), number(none)
	line.settle()
	r.Rows = append(r.Rows, line)
	return &r.Rows[len(r.Rows)-1]
}

// about is what the row is judged by: what its target is about, or else the ratio to direct access,
// which other load of the machine changes least, or else what was measured of the recording sidecar.
func (r *row) about() string {
	about, _, found := strings.Cut(r.Target, " ≤ ")
	if !found {
		about, _, found = strings.Cut(r.Target, " ≥ ")
	}
	switch {
	case found && about == ofOn, math.IsNaN(float64(r.OnRatio)):
		return ofOn
	}
	return ofRatio
}

// judged is the value that the row is judged by.
func (r *row) judged() float64 {
	if r.about() == ofRatio {
		return float64(r.OnRatio)
	}
	return float64(r.On)
}

// settle sets what the rounds say about the judged value.
func (r *row) settle() {
	rounds := r.rounds[r.about()]
	i := medianInterval(rounds)
	r.Low, r.High, r.Noise = number(i.low), number(i.high), number(none)
	if i.known() {
		r.Noise = number(deviation(rounds) / r.scale())
	}
}

// scale is what differences of the judged value are a part of.
func (r *row) scale() float64 {
	if of := float64(r.Of); !math.IsNaN(of) {
		return math.Abs(of)
	}
	return math.Abs(r.judged())
}

func (r *row) interval() interval { return interval{float64(r.Low), float64(r.High)} }

// atMost and atLeast compare what the row measured with a target of the project.
func (r *row) atMost(bound float64, about string) { r.judge(bound, about, "≤") }

func (r *row) atLeast(bound float64, about string) {
	r.MoreIsBetter = true
	r.judge(bound, about, "≥")
}

func (r *row) judge(bound float64, about, relation string) {
	r.Target = fmt.Sprintf("%s %s %v", about, relation, bound)
	r.settle()
	r.Verdict = verdict(r.judged(), r.interval(), bound, r.MoreIsBetter)
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
