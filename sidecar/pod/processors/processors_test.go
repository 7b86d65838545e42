package processors

import (
	"runtime"
	"slices"
	"testing"
)

func TestThereIsOneProcessorExceptWhileSomebodyNeedsMore(t *testing.T) {
	var calls []string
	p := start(func() { calls = append(calls, "one") }, func() { calls = append(calls, "all") })
	first := p.More()
	second := p.More()
	first()
	if want := []string{"one", "all"}; !slices.Equal(calls, want) {
		t.Fatalf("while one of two still needs more: %v, want %v", calls, want)
	}
	second()
	if want := []string{"one", "all", "one"}; !slices.Equal(calls, want) {
		t.Fatalf("when nobody needs more: %v, want %v", calls, want)
	}
}

func TestTheRuntimeHasOneProcessorAndAtMostFour(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	t.Cleanup(runtime.SetDefaultGOMAXPROCS)
	runtime.SetDefaultGOMAXPROCS()
	allowed := runtime.GOMAXPROCS(0)
	p := New()
	if n := runtime.GOMAXPROCS(0); n != 1 {
		t.Errorf("GOMAXPROCS is %d, want 1", n)
	}
	done := p.More()
	if n, want := runtime.GOMAXPROCS(0), min(allowed, most); n != want {
		t.Errorf("with More GOMAXPROCS is %d, want %d", n, want)
	}
	done()
	if n := runtime.GOMAXPROCS(0); n != 1 {
		t.Errorf("after More GOMAXPROCS is %d, want 1", n)
	}
}

func TestTheEnvironmentDecidesWhereItSetsGOMAXPROCS(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	runtime.GOMAXPROCS(3)
	t.Setenv("GOMAXPROCS", "3")
	New().More()()
	if n := runtime.GOMAXPROCS(0); n != 3 {
		t.Errorf("GOMAXPROCS is %d, want 3 as before", n)
	}
}
