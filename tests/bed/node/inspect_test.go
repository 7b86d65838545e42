package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestContainerLogsAreParsedLineByLine(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	for name, tt := range map[string]struct {
		text string
		want []Line
		bad  bool
	}{
		"no line yet":         {"", nil, false},
		"a line":              {"2026-01-02T03:04:05.0000006Z stdout F hello world\n", []Line{{at, "hello world"}}, false},
		"an empty line":       {"2026-01-02T03:04:05.0000006Z stderr F \n", []Line{{at, ""}}, false},
		"a line in two parts": {"2026-01-02T03:04:05Z stdout P hel\n2026-01-02T03:04:05.0000006Z stdout F lo\n", []Line{{at, "hello"}}, false},
		"half a line":         {"2026-01-02T03:04:05.0000006Z stdout F one\n2026-01-02T03:0", []Line{{at, "one"}}, false},
		"not a CRI line":      {"hello\n", nil, true},
		"not a time":          {"now stdout F hello\n", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseLog(tt.text)
			if (err != nil) != tt.bad {
				t.Fatalf("error %v, want one: %v", err, tt.bad)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
