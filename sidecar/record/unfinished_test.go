package record

import (
	"slices"
	"strings"
	"testing"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

func TestAfterAKillOnlyWhatAClientWasToldIsLeftOfAnUnfinishedList(t *testing.T) {
	first := page(20, "one", configMap("b", 12))
	for name, tt := range map[string]struct {
		begin func(*harness)
		want  []string
	}{
		"a page of a program's list": {func(h *harness) {
			h.read(h.teeList(h.source(configmaps+"?limit=1"), wire.JSON, answer(strings.NewReader(first))))
		}, []string{"complete shop/@10: a@1", "seen /@: b@12"}},
		"a page of a list of the sidecar's own": {func(h *harness) {
			source := h.source(configmaps + "?limit=1")
			source.Background = true
			h.read(h.teeList(source, wire.JSON, answer(strings.NewReader(first))))
		}, []string{"complete shop/@10: a@1"}},
		"a part of the state that a watch begins with": {func(h *harness) {
			h.events(h.Watch(h.source(configmaps+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"), wire.JSON), "ADDED b 12")
		}, []string{"complete shop/@10: a@1"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			h := idleHarness(t, dir, 0)
			h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(10, configMap("a", 1))))))
			tt.begin(h)
			h.drain(t.Context())
			if n := h.count("collection WHERE state = 'filling'"); n != 1 {
				t.Fatalf("%d lists are unfinished, so this test shows nothing", n)
			}
			if err := h.db.Close(); err != nil {
				t.Fatal(err)
			}
			db, err := store.Open(t.Context(), dir, store.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if got := (&harness{t: t, db: db}).recorded("configmaps"); !slices.Equal(got, tt.want) {
				t.Errorf("recorded %q, want %q", got, tt.want)
			}
		})
	}
}
