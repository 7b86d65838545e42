package instructions

import (
	"errors"
	"slices"
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
	if err := c.Count(t.Context()); !errors.Is(err, ErrMissing) {
		t.Errorf("got %v, want %v", err, ErrMissing)
	}
}

func TestGroupsAreNoPartOfAGET(t *testing.T) {
	one := count{
		few: run{instructions: 1000, groups: 2}, slow: run{instructions: 1000 + 100*50, groups: 102},
		online: run{instructions: 1000 + 10*7 + 30*50, groups: 32}, offline: run{instructions: 1000 + 10*9 - 50, groups: 1},
	}
	c := Counter{GETs: 10, counts: []count{one, one}}
	got, err := c.Costs()
	if want := (Cost{Online: 7, Offline: 9, Group: 50}); err != nil || !slices.Equal(got, []Cost{want, want}) {
		t.Errorf("got %v, %v; want %v twice", got, err, want)
	}
	one.slow = one.few
	c.counts = []count{one}
	if got, err := c.Costs(); err == nil {
		t.Errorf("got %v from runs that do not tell what a group costs", got)
	}
}
