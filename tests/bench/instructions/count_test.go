package instructions

import (
	"errors"
	"testing"
)

func TestTotal(t *testing.T) {
	for name, tt := range map[string]struct {
		file string
		want int64
		ok   bool
	}{
		"the last line is the sum":        {"events: Ir \nfl=a.go\nfn=main.main\n1 20\nsummary: 1630556989 \n", 1630556989, true},
		"a function of that name is none": {"events: Ir \nfn=x\nsummary: 3 4\nfn=tally.(*Log).summary\n1 20\nsummary: 7\n", 7, true},
		"the program was killed":          {"events: Ir \nfl=a.go\n", 0, false},
		"no number":                       {"events: Ir \nsummary: many\n", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := total(tt.file)
			if got != tt.want || (err == nil) != tt.ok {
				t.Errorf("got %d, %v; want %d", got, err, tt.want)
			}
		})
	}
}

func TestTheErrorSaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	c := Counter{GETs: 1, Directory: t.TempDir()}
	if _, err := c.Count(t.Context()); !errors.Is(err, ErrMissing) {
		t.Errorf("got %v, want %v", err, ErrMissing)
	}
}
