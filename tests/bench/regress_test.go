package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOnlyWhatIsWorseBeyondTheNoiseIsARegression(t *testing.T) {
	ratio := func(v, noise float64) row {
		return row{Case: "GET", Measure: "p50", Unit: "ms", On: 3, OnRatio: number(v), Noise: number(noise)}
	}
	rate := func(v float64) row {
		return row{Case: "GET", Measure: "requests", Unit: "1/s", OnRatio: number(v), MoreIsBetter: true, Noise: number(math.NaN())}
	}
	alone := func(v float64) row {
		return row{Case: "idle", Measure: "RSS", Unit: "MiB", On: number(v), OnRatio: number(none), Noise: number(none)}
	}
	for name, tt := range map[string]struct {
		before, now row
		want        bool
	}{
		"the same":                           {ratio(1.3, 0), ratio(1.3, 0), false},
		"better":                             {ratio(1.3, 0), ratio(1.1, 0), false},
		"worse by a tenth":                   {ratio(1.3, 0), ratio(1.43, 0), false},
		"worse by a fifth":                   {ratio(1.3, 0), ratio(1.56, 0), true},
		"worse by a fifth, the runs noisy":   {ratio(1.3, 0.03), ratio(1.56, 0.03), false},
		"fewer requests":                     {rate(0.9), rate(0.7), true},
		"more requests":                      {rate(0.7), rate(0.9), false},
		"more memory, not beside direct":     {alone(20), alone(24), true},
		"less memory":                        {alone(24), alone(20), false},
		"a value that was not measured":      {alone(none), alone(24), false},
		"a value that is no longer measured": {alone(24), alone(none), false},
		"another row":                        {alone(1), ratio(5, 0), false},
	} {
		t.Run(name, func(t *testing.T) {
			found := regressions(&report{Rows: []row{tt.before}}, &report{Rows: []row{tt.now}})
			if got := len(found) > 0; got != tt.want {
				t.Errorf("regression: %v, want %v", got, tt.want)
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

func TestAStoredRunReadsAsItWas(t *testing.T) {
	r := &report{Version: "v1"}
	r.compare("GET", "p50", "ms", series{"direct": {1, 2, 3}, "on": {2, 4, 9}}).atMost(2, 1.1, "on x")
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
	if l.OnRatio != 2 || l.On != 4 || !math.IsNaN(float64(l.Off)) || l.Verdict != verdictMissed || l.Noise != 0 {
		t.Errorf("got %+v", l)
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
