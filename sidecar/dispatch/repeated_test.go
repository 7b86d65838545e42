package dispatch

import (
	"errors"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/tally"
	"rockpool.dev/store"
)

func TestACacheThatCannotBeReadIsLoggedOnceInAnOutage(t *testing.T) {
	core, lines := observer.New(zap.InfoLevel)
	d := New(Options{Logger: zap.New(core)})
	for range 1000 {
		if err := d.refusal(request.Info{Path: path}, errors.New("disk I/O error")); !isStatus(err) {
			t.Fatal(err)
		}
	}
	first := lines.TakeAll()
	if len(first) != 1 || first[0].Level != zap.ErrorLevel || first[0].ContextMap()["path"] != path {
		t.Errorf("%v", first)
	}
	d.Repeated.Flush()
	if all := lines.TakeAll(); len(all) != 1 || all[0].ContextMap()["count"] != int64(1000) || all[0].ContextMap()["error"] != "disk I/O error" {
		t.Errorf("%v", all)
	}
}

func TestARecorderThatIsTooSlowIsLoggedOnceInAnOutage(t *testing.T) {
	core, lines := observer.New(zap.InfoLevel)
	db, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	slow := cache.New(db, "slow", zap.NewNop()) // nothing writes: it does not run
	g := newHarness(t)
	o := g.Options
	o.Caches = cache.Caches{Disk: slow, Memory: &cache.Cache{}}
	o.Logger, o.Repeated = zap.New(core), tally.New(zap.New(core), g.Clock)
	g.restart(o)
	g.answerAll(200, list)
	g.do(g.request("GET", path))
	g.link.Cut()
	for range 2 {
		if code, _ := g.do(g.request("GET", path)); code != 503 {
			t.Fatal(code)
		}
	}
	if all := lines.TakeAll(); len(all) != 1 || all[0].Level != zap.WarnLevel {
		t.Errorf("%v", all)
	}
}
