package watch

import (
	"runtime"
	"testing"

	"rockpool.dev/sidecar/pod/processors"
)

func TestMoreProcessorsAreUsedWhileManyWatchesAreOpen(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	t.Cleanup(runtime.SetDefaultGOMAXPROCS)
	runtime.SetDefaultGOMAXPROCS()
	all := min(runtime.GOMAXPROCS(0), 4)
	o := &New(Options{Processors: processors.New()}).opened
	watches := make([]*watch, crowd+1)
	for i := range watches {
		watches[i] = &watch{}
	}
	for _, step := range []struct {
		what  string
		of    []*watch
		state string
		want  int
	}{
		{"few are open", watches[:crowd-1], "open", 1},
		{"many are open", watches[crowd-1:], "open", all},
		{"some of them wait for the link", watches[:2], "waiting", all},
		{"one too many has ended", watches[:1], "", all},
		{"one more has ended", watches[1:2], "", 1},
		{"another one is opened", watches[:1], "open", all},
		{"all have ended", watches, "", 1},
	} {
		for _, w := range step.of {
			o.set(w, step.state)
		}
		if n := runtime.GOMAXPROCS(0); n != step.want {
			t.Errorf("%s: GOMAXPROCS is %d, want %d", step.what, n, step.want)
		}
	}
}
