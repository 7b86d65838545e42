package main

import "testing"

func TestMemoryIsGivenBackOnceTheSidecarIsQuiet(t *testing.T) {
	const mib = 1 << 20
	var m idleMemory
	for i, minute := range []struct {
		allocated uint64 // in this minute
		want      bool
	}{
		{6 * mib, false},   // it starts
		{0, true},          // it is quiet
		{mib / 4, false},   // hardly anything was used since
		{20 * mib, false},  // a list
		{2 * mib, false},   // busy
		{mib / 2, true},    // quiet again
		{3 * mib, false},   //
		{mib / 10, false},  // not worth it
		{mib, true},        // by now it is
		{mib / 100, false}, //
	} {
		m0 := m.last
		if got := m.due(m0 + minute.allocated); got != minute.want {
			t.Errorf("minute %d: given back: %v, want %v", i, got, minute.want)
		}
	}
}
