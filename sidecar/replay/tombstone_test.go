package replay

import (
	"testing"
	"time"

	"rockpool.dev/store"
)

func TestTheServersOwnWordThatAnObjectIsGone(t *testing.T) {
	const all, shop = "/api/v1/pods", "/api/v1/namespaces/shop/pods"
	anew := func(rv int) store.Object {
		o := bare("shop", "a", rv)
		o.UID = "another"
		return o
	}
	opaque := func(o store.Object, version string) store.Object {
		o.ResourceVersion = version
		return o
	}
	see := func(o store.Object) func(*harness) {
		return func(h *harness) {
			h.update(func(tx *store.Tx) error { return tx.PutSingle(scope(all), "Pod", "v1", o) })
		}
	}
	none := func(*harness) {}
	for _, tt := range []struct {
		name         string
		before, then func(*harness)
		uid, want    string
	}{
		{"of nothing that was recorded", none, none, "", "404 NotFound"},
		{"behind a list that has it", func(h *harness) { h.record(shop, 20, bare("shop", "a", 19)) }, none, "", "404 NotFound"},
		{"behind a list of all namespaces that has it", func(h *harness) { h.record(all, 20, bare("shop", "a", 19)) }, none, "", "404 NotFound"},
		{"behind a selection that has it", func(h *harness) { h.record(shop+"?labelSelector=app", 20, bare("shop", "a", 19)) }, none, "", "404 NotFound"},
		{"behind having been read alone", see(bare("shop", "a", 19)), none, "", "404 NotFound"},
		{"and an older story that comes late", func(h *harness) { h.record(shop, 20, bare("shop", "a", 19)) }, see(bare("shop", "a", 21)), "", "404 NotFound"},
		{"and a list that was on its way", none, func(h *harness) { h.record(shop, 20, bare("shop", "a", 19)) }, "u", "404 NotFound"},
		{"and it was made anew and read", func(h *harness) { h.record(shop, 20, bare("shop", "a", 19)) }, see(anew(30)), "", "Pod a@30"},
		{"and it was made anew and is in a newer list", func(h *harness) { h.record(shop, 20, bare("shop", "a", 19)) }, func(h *harness) { h.record(all, 40, anew(30)) }, "u", "Pod a@30"},
		{"and one from before comes late", func(h *harness) { h.record(shop, 20, bare("shop", "a", 19)) }, see(anew(5)), "", "404 NotFound"},
		{"where versions are no numbers", see(opaque(bare("shop", "a", 1), "x")), none, "", "404 NotFound"},
		{"and made anew where versions are no numbers", see(opaque(bare("shop", "a", 1), "x")), see(opaque(anew(1), "y")), "", "Pod a@1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t)
			tt.before(h)
			h.now = h.now.Add(time.Second)
			h.update(func(tx *store.Tx) error {
				return tx.PutTombstone(store.Deletion{Scope: scope(all), Namespace: "shop", Name: "a", UID: tt.uid, Asked: h.now, At: h.now})
			})
			h.now = h.now.Add(time.Second)
			tt.then(h)
			if got := h.answer(ask(shop+"/a", "")); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if got := h.answer(ask("/api/v1/namespaces/bar/pods/a", "")); got == "Pod a" {
				t.Errorf("in another namespace: %s", got)
			}
		})
	}
}

func TestATombstoneIsNobodyElses(t *testing.T) {
	h := newHarness(t)
	h.update(func(tx *store.Tx) error {
		return tx.PutTombstone(store.Deletion{Scope: scope("/api/v1/pods"), Namespace: "shop", Name: "a", Asked: h.now, At: h.now})
	})
	other := ask("/api/v1/namespaces/shop/pods/a", "")
	other.Principal = "somebody else"
	if got := h.answer(other); got != "not recorded" {
		t.Errorf("somebody else got %s", got)
	}
}

func TestAListStaysWhatItWasAtItsVersion(t *testing.T) {
	h := newHarness(t)
	h.record("/api/v1/namespaces/shop/pods", 20, bare("shop", "a", 19))
	h.now = h.now.Add(time.Second)
	h.update(func(tx *store.Tx) error {
		return tx.PutTombstone(store.Deletion{Scope: scope("/api/v1/pods"), Namespace: "shop", Name: "a", Asked: h.now, At: h.now})
	})
	if got := h.answer(ask("/api/v1/namespaces/shop/pods", "")); got != "PodList@20 a@19" {
		t.Errorf("got %s", got)
	}
}
