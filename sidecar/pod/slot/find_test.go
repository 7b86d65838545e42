package slot

import (
	"path/filepath"
	"slices"
	"testing"
)

func TestASlotIsFoundByItsPod(t *testing.T) {
	dir := t.TempDir()
	if got := Find(dir, "a"); len(got) > 0 {
		t.Errorf("an empty directory has %v", got)
	}
	for _, pod := range []string{"a", "b"} {
		s, err := Acquire(dir, pod, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Advance(nil); err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	if got, want := Find(dir, "b"), []string{filepath.Join(dir, "1")}; !slices.Equal(got, want) {
		t.Errorf("the pod's slot: %v, want %v", got, want)
	}
	for _, pod := range []string{"", "c"} {
		if got := Find(dir, pod); len(got) != 2 {
			t.Errorf("pod %q: %v, want both", pod, got)
		}
	}
}
