package replay

import (
	"testing"
	"time"

	"rockpool.dev/store"
)

func TestATombstoneProvesAbsence(t *testing.T) {
	const all, shop = "/api/v1/pods", "/api/v1/namespaces/shop/pods"
	recreated := func(rv int) store.Object {
		o := bare("shop", "a", rv)
		o.UID = "another"
		return o
	}
	opaque := func(o store.Object, version string) store.Object {
		o.ResourceVersion = version
		return o
	}
	get := func(o store.Object) func(*harness) {
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
		{"without any rows", none, none, "", "404 NotFound"},
		{"after a list that has it", func(h *harness) { h.record(shop, 20, bare("shop", "a", 19)) }, none, "", "404 NotFound"},
		{"after a list of all namespaces that has it", func(h *harness) { h.record(all, 20, bare("shop", "a", 19)) }, none, "", "404 NotFound"},
		{"after a selection that has it", func(h *harness) { h.record(shop+"?labelSelector=app", 20, bare("shop", "a", 19)) }, none, "", "404 NotFound"},
		{"after a GET", get(bare("shop", "a", 19)), none, "", "404 NotFound"},
		{"before a late GET of the same object", func(h *harness) { h.record(shop, 20, bare("shop", "a", 19)) }, get(bare("shop", "a", 21)), "", "404 NotFound"},
		{"before a late list", none, func(h *harness) { h.record(shop, 20, bare("shop", "a", 19)) }, "u", "404 NotFound"},
		{"before a GET of a new object", func(h *harness) { h.record(shop, 20, bare("shop", "a", 19)) }, get(recreated(30)), "", "Pod a@30"},
		{"before a newer list with a new object", func(h *harness) { h.record(shop, 20, bare("shop", "a", 19)) }, func(h *harness) { h.record(all, 40, recreated(30)) }, "u", "Pod a@30"},
		{"before a late GET of an older object", func(h *harness) { h.record(shop, 20, bare("shop", "a", 19)) }, get(recreated(5)), "", "404 NotFound"},
		{"without numeric versions", get(opaque(bare("shop", "a", 1), "x")), none, "", "404 NotFound"},
		{"before a new object without numeric versions", get(opaque(bare("shop", "a", 1), "x")), get(opaque(recreated(1), "y")), "", "Pod a@1"},
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

func TestATombstoneIsForItsPrincipalOnly(t *testing.T) {
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

func TestATombstoneLeavesListsUnchanged(t *testing.T) {
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
