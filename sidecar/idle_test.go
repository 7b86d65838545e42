package main

import "testing"

func TestMemoryIsGivenBackOnceTheSidecarIsQuiet(t *testing.T) {
	const kib, mib = 1 << 10, 1 << 20
	var m idleMemory
	for i, interval := range []struct {
		allocated uint64 // in this interval
		want      bool
	}{
		{6 * mib, true},    // it has started
		{0, true},          // it is quiet
		{100 * kib, false}, // hardly anything was used since
		{20 * mib, false},  // a list
		{2 * mib, false},   // busy
		{256 * kib, true},  // quiet again
		{3 * mib, false},   //
		{200 * kib, false}, // not worth it
		{900 * kib, false}, //
		{100 * kib, true},  // by now it is
		{10 * kib, false},  //
	} {
		m0 := m.last
		if got := m.due(m0 + interval.allocated); got != interval.want {
			t.Errorf("interval %d: given back: %v, want %v", i, got, interval.want)
		}
	}
}

// A program that lists at once needs the memory, and the processor, that a start has used.
func TestAStartThatIsBusyGivesNothingBack(t *testing.T) {
	var m idleMemory
	if m.due(startBytes + 1) {
		t.Error("given back while a list comes in")
	}
	if !m.due(m.last) {
		t.Error("not given back when it is quiet")
	}
}
