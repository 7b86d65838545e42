package record

import (
	"testing"

	"go.uber.org/zap"
)

func TestEachCacheHasGaugesOfItsOwn(t *testing.T) {
	h := newHarness(t, 0) // for a cache without a name
	release := h.blockStore()
	h.Link("online", "waits for the store")
	other := New(Options{DB: h.db, Logger: zap.NewNop(), Name: "memory"})
	other.Link("online", "waits for Run")
	other.take()
	other.take()
	if one, two := counter(t, h.metrics.pending), counter(t, other.metrics.pending); one != overhead || two != 0 {
		t.Errorf("%v bytes are pending for one cache and %v for the other", one, two)
	}
	release()
	h.flush()
	if used, bound := counter(t, h.metrics.used), counter(t, h.metrics.max); used <= 0 || bound != 4<<20 {
		t.Errorf("%v of %v bytes are used", used, bound)
	}
}
