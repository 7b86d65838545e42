package record

import (
	"context"
	"testing"

	"rockpool.dev/store"
)

// A day on which nothing changes writes nothing, however fast its lists are.
func TestARateIsWrittenWithTheNextGroupOnly(t *testing.T) {
	h := idleHarness(t, t.TempDir(), 0)
	servers := []string{"https://192.0.2.1:6443"}
	wantRate := func(want int64) {
		t.Helper()
		if got, err := h.db.Rate(t.Context(), servers); err != nil || got != want {
			t.Errorf("a rate of %d, %v, want %d", got, err, want)
		}
	}
	h.PutRate(store.Rate{Servers: servers, BytesPerSecond: 4_000_000})
	h.drain(t.Context())
	if !h.isEmpty() {
		t.Error("there is a group for it")
	}
	wantRate(0)
	h.Link("online", "")
	h.drain(t.Context())
	wantRate(4_000_000)
	if h.rate.Load() != nil {
		t.Error("it would be written again")
	}
	h.PutRate(store.Rate{Servers: servers, BytesPerSecond: 125_000})
	h.PutRate(store.Rate{Servers: servers, BytesPerSecond: 100_000})
	h.Link("offline", "")
	h.drain(t.Context())
	wantRate(100_000)
}

// What a full disk has not taken is written when there is room.
func TestARateOfAGroupThatFailedIsWrittenWithTheNext(t *testing.T) {
	h := idleHarness(t, t.TempDir(), 0)
	servers := []string{"https://192.0.2.1:6443"}
	h.PutRate(store.Rate{Servers: servers, BytesPerSecond: 4_000_000})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.commit(ended, nil); err == nil {
		t.Fatal("the group has not failed")
	}
	if err := h.commit(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got, err := h.db.Rate(t.Context(), servers); err != nil || got != 4_000_000 {
		t.Errorf("a rate of %d, %v", got, err)
	}
}
