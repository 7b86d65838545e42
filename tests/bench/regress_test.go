package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// measured is a row as a run makes it, of the rounds of the recording sidecar beside direct access.
func measured(ratios ...float64) row {
	s := series{}
	for _, v := range ratios {
		s.add("direct", 2)
		s.add("on", 2*v)
	}
	return *(&report{}).compare("GET", "p50", "ms", s)
}

// around are ten rounds around a median, that differ from it by up to a part of it.
func around(median, part float64) (rounds []float64) {
	for i := range 10 {
		rounds = append(rounds, median*(1+part*(float64(i)-4.5)/4.5))
	}
	return rounds
}

func TestOnlyWhatIsWorseBeyondTheNoiseIsARegression(t *testing.T) {
	rate := func(rounds ...float64) row {
		r := measured(rounds...)
		r.atLeast(0.88, ofRatio)
		return r
	}
	once := func(v float64) row { return *(&report{}).note("GET", "p50", "ms", none, v) }
	longest := func(few ...float64) row { return *(&report{}).longest("GET", "p50", "ms", few) }
	difference := func(of float64, rounds ...float64) row {
		return *(&report{}).difference("GET", "p50", "ms", series{"on": rounds}, of)
	}
	absolute := func(bound float64, r row) row {
		r.atMost(bound, ofOn)
		return r
	}
	old := func(v, noise float64) row { // of a run that has stored no interval
		return row{Case: "GET", Measure: "p50", Unit: "ms", On: 3, OnRatio: number(v), Noise: number(noise),
			Low: number(none), High: number(none), Of: number(none), Spread: number(none)}
	}
	another := measured(around(5, 0.01)...)
	another.Case = "LIST"
	for name, tt := range map[string]struct {
		before, now row
		want        bool
	}{
		"the same":                         {measured(around(1.3, 0.01)...), measured(around(1.3, 0.01)...), false},
		"better":                           {measured(around(1.3, 0.01)...), measured(around(1.1, 0.01)...), false},
		"worse by a tenth":                 {measured(around(1.3, 0.01)...), measured(around(1.43, 0.01)...), false},
		"worse by a fifth, in quiet runs":  {measured(around(1.3, 0.01)...), measured(around(1.56, 0.01)...), true},
		"worse by a fifth, in noisy runs":  {measured(around(1.3, 0.3)...), measured(around(1.56, 0.3)...), false},
		"twice, in noisy runs":             {measured(around(1.3, 0.1)...), measured(around(2.6, 0.1)...), true},
		"worse by a fifth, short and long": {measured(1.29, 1.30, 1.31), measured(around(1.56, 0.01)...), true},
		"two of three rounds agree by chance, and the third says what the noise is": {
			measured(1.0, 1.0, 1.6), measured(1.3, 1.3, 1.3), false},
		"one round in ten is an outlier":    {measured(around(1.3, 0.01)...), measured(append(around(1.3, 0.01)[:9], 9)...), false},
		"an outlier hides no regression":    {measured(around(1.3, 0.01)...), measured(append(around(1.6, 0.01)[:9], 0.1)...), true},
		"fewer requests, in quiet runs":     {rate(around(0.9, 0.01)...), rate(around(0.7, 0.01)...), true},
		"fewer requests, in noisy runs":     {rate(around(0.9, 0.2)...), rate(around(0.75, 0.2)...), false},
		"more requests":                     {rate(around(0.7, 0.01)...), rate(around(0.9, 0.01)...), false},
		"measured once, a third more":       {once(20), once(27), false},
		"measured once, twice as much":      {once(20), once(40), true},
		"measured once, less":               {once(24), once(20), false},
		"the longest of a few random waits": {longest(88, 300, 612), longest(210, 900, 1773), false},
		"the longest of a few short waits":  {longest(3, 5, 6.78), longest(4, 9, 13.94), false},
		"the longest of alike waits":        {longest(2.4, 2.5, 2.6), longest(4.8, 5.0, 5.2), true},
		"the longest of one":                {longest(612), longest(800), false},
		"near zero, either side":            {difference(4, -0.0016, -0.0016, -0.0016), difference(4, 0.0024, 0.0024, 0.0024), false},
		"recording adds nothing, then 17 % in noisy rounds": {
			difference(1, -0.13, -0.03, 0.06), difference(1, 0.05, 0.17, 0.29), false},
		"recording adds nothing, then 17 % in quiet rounds": {
			difference(1, -0.003, 0, 0.003), difference(1, 0.165, 0.17, 0.175), true},
		"an event is later by a fifth of its delay": {difference(4, 0.1, 0.11, 0.12), difference(4, 0.9, 0.91, 0.92), true},
		"the target is about the sidecar alone, and direct access became fast": {
			absolute(50, measured(around(1.3, 0.01)...)), absolute(50, func() row {
				r := measured(around(1.3, 0.01)...)
				r.OnRatio, r.Direct = 8, 0.3
				return r
			}()), false},
		"an earlier run without intervals, quiet": {old(1.3, 0.01), measured(around(1.56, 0.01)...), true},
		"an earlier run without intervals, noisy": {old(1.3, 0.1), measured(around(1.56, 0.01)...), false},
		"a value that was not measured":           {once(none), once(24), false},
		"a value that is no longer measured":      {once(24), once(none), false},
		"another row":                             {measured(around(1.3, 0.01)...), another, false},
	} {
		t.Run(name, func(t *testing.T) {
			found := regressions(&report{Rows: []row{tt.before}}, &report{Rows: []row{tt.now}})
			if got := len(found) > 0; got != tt.want {
				t.Errorf("regression: %v, want %v (%+v)", got, tt.want, found)
			}
		})
	}
}

func TestOtherProgramsMayHaveMadeTimesWorseButNotCounts(t *testing.T) {
	run := func(unit string, value, others float64) *report {
		r := &report{Load: []load{{Case: "list", Others: 1.9}, {Case: "get", Others: others}}}
		r.medians("GET", "cost", unit, series{"on": around(value, 0.01)}).Part = "get"
		return r
	}
	for name, tt := range map[string]struct {
		before, now *report
		failures    int
	}{
		"times, a quiet machine both times":    {run("ms", 1, 0.1), run("ms", 2, 0.1), 1},
		"times, other programs now":            {run("ms", 1, 0.1), run("ms", 2, 0.9), 0},
		"times, other programs then":           {run("ms", 1, 0.9), run("ms", 2, 0.1), 0},
		"memory, other programs both times":    {run("MiB", 1, 0.9), run("MiB", 2, 0.9), 1},
		"allocations, other programs now":      {run("bytes", 1, 0.1), run("bytes", 2, 0.9), 1},
		"nothing is worse, and there is noise": {run("ms", 1, 0.9), run("ms", 1, 0.9), 0},
	} {
		t.Run(name, func(t *testing.T) {
			found := regressions(tt.before, tt.now)
			if got := failures(found); got != tt.failures {
				t.Errorf("%d failures, want %d: %+v", got, tt.failures, found)
			}
		})
	}
}

func TestAMissedTargetIsMissedSinceTheFirstRunThatMissedIt(t *testing.T) {
	line := func(target, verdict, since string) row {
		return row{Case: "GET", Measure: "p50", Target: target, Verdict: verdict, MissedSince: since}
	}
	for name, tt := range map[string]struct {
		before *report
		want   string
	}{
		"there is no earlier run":         {nil, "v3"},
		"it was met":                      {&report{Version: "v2", Rows: []row{line("on ≤ 1", "ok", "")}}, "v3"},
		"it was close":                    {&report{Version: "v2", Rows: []row{line("on ≤ 1", verdictClose, "")}}, "v3"},
		"it was missed":                   {&report{Version: "v2", Rows: []row{line("on ≤ 1", verdictMissed, "")}}, "v2"},
		"it was missed long ago":          {&report{Version: "v2", Rows: []row{line("on ≤ 1", verdictMissed, "v1")}}, "v1"},
		"the target was another one":      {&report{Version: "v2", Rows: []row{line("on ≤ 2", verdictMissed, "v1")}}, "v3"},
		"the earlier run has no such row": {&report{Version: "v2"}, "v3"},
	} {
		t.Run(name, func(t *testing.T) {
			now := &report{Version: "v3", Rows: []row{line("on ≤ 1", verdictMissed, "")}}
			now.missed(tt.before)
			if got := now.Rows[0].MissedSince; got != tt.want {
				t.Errorf("since %s, want %s", got, tt.want)
			}
		})
	}
}

func TestARowIsJudgedByWhatItsTargetIsAbout(t *testing.T) {
	r := &report{}
	s := series{"direct": {1, 1, 1}, "on": {2, 3, 4}}
	for name, tt := range map[string]struct {
		judge   func(*row)
		judged  float64
		between string
	}{
		"no target, direct access was measured": {func(*row) {}, 3, "2.00–4.00"},
		"the ratio to direct access":            {func(l *row) { l.atMost(3.5, ofRatio) }, 3, "2.00–4.00"},
		"the sidecar alone":                     {func(l *row) { l.On = 5; l.rounds[ofOn] = []float64{4, 5, 6}; l.atMost(9, ofOn) }, 5, "4.00–6.00"},
	} {
		t.Run(name, func(t *testing.T) {
			line := r.compare("GET", "p50", "ms", s)
			tt.judge(line)
			if line.judged() != tt.judged || line.interval().String() != tt.between {
				t.Errorf("judged %v within %s, want %v within %s", line.judged(), line.interval(), tt.judged, tt.between)
			}
		})
	}
}

func TestAStoredRunReadsAsItWas(t *testing.T) {
	r := &report{Version: "v1"}
	r.compare("GET", "p50", "ms", series{"direct": {1, 2, 3}, "on": {2, 4, 9}}).atMost(1.1, ofRatio)
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "run.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readReport(path)
	if err != nil {
		t.Fatal(err)
	}
	l := got.Rows[0]
	if l.OnRatio != 2 || l.On != 4 || !math.IsNaN(float64(l.Off)) || l.Verdict != verdictMissed || l.Noise != 0 || l.Low != 2 || l.High != 3 {
		t.Errorf("got %+v", l)
	}
	if err := os.WriteFile(path, []byte(`{"rows":[{"recordingOn":3}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err = readReport(path); err != nil || got.Rows[0].interval().known() || !math.IsNaN(float64(got.Rows[0].Of)) {
		t.Errorf("a row of an older run: %+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readReport(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a broken file: %v", err)
	}
}

func TestTheStoredRunIsOne(t *testing.T) {
	r, err := readReport("../../docs/benchmarks.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) < 20 || r.Version == "" || len(r.Wrong) > 0 {
		t.Errorf("%d rows of version %q, wrong: %v", len(r.Rows), r.Version, r.Wrong)
	}
}

func TestTheTableOfTheDocumentIsThatOfTheStoredRun(t *testing.T) {
	r, err := readReport("../../docs/benchmarks.json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	before, table, after, err := tableIn(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if want := r.document(before, after); want != string(text) {
		t.Errorf("the table of docs/benchmarks.md, %d bytes, is not that of docs/benchmarks.json.\n"+
			"Write it by: go run ./tests/bench --from docs/benchmarks.json --table docs/benchmarks.md", len(table))
	}
}

func TestATableReplacesTheOneBefore(t *testing.T) {
	r := &report{Version: "v1", Rounds: 10}
	r.compare("GET", "p50", "ms", series{"direct": {1, 1, 1}, "on": {1, 2, 3}}).atMost(2.5, ofRatio)
	r.note("GET", "RSS", "MiB", none, 3)
	path := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(path, []byte("# Costs\n"+tableBegins+"old\n"+tableEnds+"more\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.store(options{table: path}); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# Costs\n" + tableBegins, tableEnds + "more\n",
		"| GET | p50 | ms | 1.00 |  |  | 2.00 |  |  | 2.00 | 1.00–3.00 | on x ≤ 2.5 | close |\n|  | RSS | MiB |  |  |  | 3.00 |  |  |  |  |  |  |\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "old") {
		t.Errorf("the old table is left in\n%s", text)
	}
	if err := r.store(options{table: filepath.Join(t.TempDir(), "none.md")}); err == nil {
		t.Error("a document that does not exist has a table")
	}
	r.wrong("an event was lost")
	if err := r.store(options{table: path}); err == nil {
		t.Error("a run with wrong answers has a table")
	}
}
