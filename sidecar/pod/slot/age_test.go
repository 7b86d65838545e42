package slot

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func TestAPodPrefersItsOwnSlotThenTheFreshest(t *testing.T) {
	at := func(number int, epoch uint64, pod string, minutes int) age {
		return age{Epoch: epoch, Pod: pod, number: number, changed: noon.Add(time.Duration(minutes) * time.Minute)}
	}
	strange := func(a age) age { a.strange = true; return a }
	for name, tt := range map[string]struct {
		existing []age
		pod      string
		want     []int // the first of them
	}{
		"there is none":   {nil, "a", []int{0, 1, 2}},
		"the later epoch": {[]age{at(0, 1, "", 0), at(1, 2, "", 0)}, "a", []int{1, 0, 2}},
		"the later epoch, whatever the clock says":        {[]age{at(0, 1, "", 99), at(1, 2, "", 0)}, "a", []int{1, 0, 2}},
		"the last change, within an epoch":                {[]age{at(0, 2, "", 1), at(1, 2, "", 2), at(2, 1, "", 3)}, "a", []int{1, 0, 2, 3}},
		"its own, even if it is older":                    {[]age{at(0, 3, "b", 9), at(1, 2, "a", 0)}, "a", []int{1, 0, 2}},
		"the freshest of its own":                         {[]age{at(0, 2, "a", 9), at(1, 3, "a", 0), at(2, 4, "b", 0)}, "a", []int{1, 0, 2, 3}},
		"a pod that does not know itself has no own":      {[]age{at(0, 3, "", 0), at(1, 2, "", 9)}, "", []int{0, 1, 2}},
		"slots of a version that did not count come last": {[]age{at(0, 0, "", 9), at(5, 1, "", 0)}, "a", []int{5, 0, 1}},
		"the number, if nothing else differs":             {[]age{at(4, 1, "", 0), at(2, 1, "", 0)}, "a", []int{2, 4, 0}},
		"unused ones before those of another version":     {[]age{strange(at(0, 3, "", 0)), at(2, 1, "", 0), strange(at(1, 2, "", 0))}, "a", []int{2, 3, 4, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			got := preferred(tt.existing, tt.pod)
			if !slices.Equal(got[:len(tt.want)], tt.want) || len(got) != Max || slices.Max(got) != Max-1 {
				t.Errorf("got %v, want %v and the rest", got, tt.want)
			}
		})
	}
}

func TestASlotIsSeededFromAFresherOne(t *testing.T) {
	sibling := func(number int, epoch uint64, held bool) age {
		return age{Epoch: epoch, number: number, held: held, changed: noon}
	}
	for name, tt := range map[string]struct {
		own      age
		empty    bool
		siblings []age
		want     []int
	}{
		"an empty slot, from one in use first":              {age{}, true, []age{sibling(1, 2, false), sibling(2, 1, true)}, []int{2, 1}},
		"an empty slot, from the freshest":                  {age{}, true, []age{sibling(1, 2, false), sibling(2, 3, false)}, []int{2, 1}},
		"an older slot, from one in use":                    {age{Epoch: 1, Pod: "b"}, false, []age{sibling(1, 2, true)}, []int{1}},
		"an older slot, not from one that was left":         {age{Epoch: 1, Pod: "b"}, false, []age{sibling(1, 2, false)}, nil},
		"a slot that was left just now, not at all":         {age{Epoch: 2, Pod: "b"}, false, []age{sibling(1, 2, true)}, nil},
		"the slot of a pod that comes back, not at all":     {age{Epoch: 1, Pod: "a"}, false, []age{sibling(1, 2, true)}, nil},
		"the empty slot of a pod that comes back, from any": {age{Epoch: 1, Pod: "a"}, true, []age{sibling(1, 2, true)}, []int{1}},
		"a slot of a version that did not count":            {age{}, false, []age{sibling(1, 1, true)}, []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := sources(tt.own, "a", tt.empty, tt.siblings); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestAnEpochEndsWithAPod(t *testing.T) {
	held := func(epoch uint64) age { return age{Epoch: epoch, held: true} }
	left := func(epoch uint64) age { return age{Epoch: epoch} }
	for name, tt := range map[string]struct {
		own      uint64
		siblings []age
		want     uint64
	}{
		"the first pod":                            {0, nil, 1},
		"alone":                                    {5, nil, 5},
		"with others of its epoch":                 {5, []age{held(5), left(4)}, 5},
		"a pod of its epoch has ended":             {5, []age{held(5), left(5)}, 6},
		"another has begun the next":               {5, []age{held(6), left(5)}, 6},
		"a pod of the next has ended":              {5, []age{held(5), left(6)}, 7},
		"a pod takes its first slot beside others": {0, []age{held(3), left(2)}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			if got := nextEpoch(tt.own, tt.siblings); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// workload takes and leaves slots as the pods of a workload do.
type workload struct {
	t         *testing.T
	directory string
}

func (w workload) start(pod string) *Slot {
	w.t.Helper()
	s, err := Acquire(w.directory, pod, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close() })
	w.advance(s)
	return s
}

// advance returns the numbers of the slots that were visited.
func (w workload) advance(s *Slot) (visited []string) {
	w.t.Helper()
	if err := s.Advance(func(path string) error { visited = append(visited, filepath.Base(path)); return nil }); err != nil {
		w.t.Fatal(err)
	}
	return visited
}

func (w workload) want(s *Slot, number string) {
	w.t.Helper()
	if got := filepath.Base(s.Path); got != number {
		w.t.Errorf("got slot %s, want %s", got, number)
	}
}

// setClock makes all slots look as if they had last changed at one time.
func (w workload) setClock(at time.Time) {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.directory, "*", "*"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, name := range files {
		if err := os.Chtimes(name, at, at); err != nil {
			w.t.Fatal(err)
		}
	}
}

func TestARestartAfterARollingUpdateFindsTheSlotOfItsPod(t *testing.T) {
	w := workload{t, t.TempDir()}
	first := w.start("one")
	w.want(first, "0")
	second := w.start("two")
	w.want(second, "1")
	first.Close()
	second.Close()
	w.want(w.start("two"), "1")
}

func TestAPodTakesTheSlotThatWasLeftLast(t *testing.T) {
	w := workload{t, t.TempDir()}
	first, second := w.start("one"), w.start("two")
	first.Close()
	w.advance(second)
	second.Close()
	w.setClock(noon) // the clock is of no help
	third := w.start("three")
	w.want(third, "1")
	if got := third.Sources(false); len(got) != 0 {
		t.Errorf("it is seeded from %v", got)
	}
}

func TestAnOlderSlotIsSeededFromTheOneInUse(t *testing.T) {
	w := workload{t, t.TempDir()}
	first, second := w.start("one"), w.start("two")
	first.Close()
	w.advance(second)
	third, err := Acquire(w.directory, "three", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { third.Close() })
	w.want(third, "0")
	for range 2 { // an interrupted seed is done again
		if got := third.Sources(false); !slices.Equal(got, []string{second.Path}) {
			t.Errorf("it is seeded from %v", got)
		}
	}
	w.advance(third)
	third.Close()
	again := w.start("four")
	w.want(again, "0")
	if got := again.Sources(false); len(got) != 0 {
		t.Errorf("it was left just now, and is seeded from %v", got)
	}
}

func TestTheSlotsThatWereLeftAreVisitedOnce(t *testing.T) {
	w := workload{t, t.TempDir()}
	first, second, third := w.start("one"), w.start("two"), w.start("three")
	want := func(s *Slot, want ...string) {
		t.Helper()
		if got := w.advance(s); !slices.Equal(got, want) {
			t.Errorf("visited %v, want %v", got, want)
		}
	}
	want(third)
	second.Close()
	want(third, "1")
	want(third)
	first.Close()
	failed := errors.New("the disk is full")
	if err := third.Advance(func(string) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	want(third, "0")
	want(third)

	again, err := Acquire(w.directory, "four", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Advance(func(path string) error {
		if _, err := Acquire(w.directory, "", nil); err == nil && filepath.Base(path) == filepath.Base(again.Path) {
			t.Error("a slot in use is visited")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	again.Close()
	if got := w.advance(third); !slices.Contains(got, filepath.Base(again.Path)) {
		t.Errorf("a slot that was taken and left again is not visited: %v", got)
	}
}

func TestNobodyTakesASlotWhileItIsVisited(t *testing.T) {
	w := workload{t, t.TempDir()}
	first, second := w.start("one"), w.start("two")
	first.Close()
	err := second.Advance(func(string) error {
		other, err := Acquire(w.directory, "three", nil)
		if err != nil {
			return err
		}
		w.want(other, "2")
		return other.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestADamagedAgeCountsAsNone(t *testing.T) {
	w := workload{t, t.TempDir()}
	first := w.start("one")
	if err := os.WriteFile(filepath.Join(first.Path, ageName), []byte(`{"epoch":-1`), 0o600); err != nil {
		t.Fatal(err)
	}
	first.Close()
	w.want(w.start("two"), "0")
}
