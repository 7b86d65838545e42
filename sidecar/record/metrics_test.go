package record

import (
	"testing"

	"go.uber.org/zap"
)

func TestEachCacheHasGaugesOfItsOwn(t *testing.T) {
	g := newRig(t, 0) // writes into a cache without a name
	release := g.holdTheStore()
	g.Link("online", "waits for the store")
	other := New(Options{DB: g.db, Logger: zap.NewNop(), Name: "memory"})
	other.Link("online", "waits for Run")
	other.take()
	other.take()
	if one, two := counter(t, g.metrics.pending), counter(t, other.metrics.pending); one != overhead || two != 0 {
		t.Errorf("%v bytes wait for the one cache and %v for the other", one, two)
	}
	release()
	g.flush()
	if used, bound := counter(t, g.metrics.used), counter(t, g.metrics.max); used <= 0 || bound != 4<<20 {
		t.Errorf("%v of %v bytes are used", used, bound)
	}
}
