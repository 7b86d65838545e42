package record

import (
	"runtime"
	"strings"
	"testing"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/pod/processors"
)

// With one processor the writer would not keep up with many lists that come in at once.
func TestMoreProcessorsAreUsedWhileMuchWaits(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	t.Cleanup(runtime.SetDefaultGOMAXPROCS)
	runtime.SetDefaultGOMAXPROCS()
	all := min(runtime.GOMAXPROCS(0), 4)
	h := idleHarness(t, t.TempDir(), 0)
	h.processors = processors.New()
	for _, step := range []struct {
		what string
		do   func()
		want int
	}{
		{"nothing waits", func() {}, 1},
		{"little waits", func() { h.listOnly(1 << 10) }, 1},
		{"much waits", func() { h.listOnly(manyBytes) }, all},
		{"a part of it is taken", func() { h.take() }, all},
		{"it is written", func() { h.drain(t.Context()) }, 1},
	} {
		step.do()
		if n := runtime.GOMAXPROCS(0); n != step.want {
			t.Errorf("%s: GOMAXPROCS is %d, want %d", step.what, n, step.want)
		}
	}
}

// listOnly has a list of one object read, and nothing written.
func (h *harness) listOnly(size int) {
	h.t.Helper()
	text := listOf(20, strings.Replace(configMap("a", 1), "v1", strings.Repeat("x", size), 1))
	h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(text))))
}
