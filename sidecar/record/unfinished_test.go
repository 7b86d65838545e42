package record

import (
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

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

func TestAPageThatContradictsEventsFromBeforeIsNotForgotten(t *testing.T) {
	for name, tt := range map[string]struct {
		event string
		early bool // the page was asked for before the event
	}{
		"an object is there again":                     {event: "DELETED a 14"},
		"an object is again what it was":               {event: "MODIFIED a 14"},
		"an object was deleted while the page came in": {event: "DELETED a 14", early: true},
		"an object has changed while the page came in": {event: "MODIFIED a 14", early: true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 0)
			h.list(configmaps, listOf(10, configMap("a", 1), configMap("b", 2)))
			w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
			source := h.source(configmaps + "?limit=1")
			h.events(w, tt.event)
			if h.flush(); !tt.early {
				source = h.source(configmaps + "?limit=1") // of a cluster that was restored from a backup
			}
			h.read(h.teeList(source, wire.JSON, answer(strings.NewReader(page(12, "more", configMap("a", 1))))))
			h.GiveUp(store.Resource{Principal: who, Resource: "configmaps"})
			h.flush() // or the doubt is not written yet
			if o, doubted := h.observed(""); doubted == tt.early {
				t.Errorf("observed: %v, %+v", doubted, o)
			}
		})
	}
}

func TestWhatAListThatComesSlowlyHasToldIsKnownAfterAKill(t *testing.T) {
	dir := t.TempDir()
	h := idleHarness(t, dir, 0)
	a, b := configMap("a", 1), configMap("b", 2)
	h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(10, a, b)))))
	absent := h.source(configmaps + "/a")
	h.drain(t.Context())
	h.enqueue(observe{
		recorder: h.Recorder, resource: configMaps, key: store.Key{Namespace: "shop", Name: "a"},
		evidence: store.Evidence{Says: store.Gone, Asked: absent.Asked, Told: absent.told, Read: store.Latest},
	})
	h.drain(t.Context())
	begun, _ := strings.CutSuffix(listOf(12, a, b), "]}")
	body := h.teeList(h.source(configmaps), wire.JSON, answer(iotest.OneByteReader(strings.NewReader(begun+" "))))
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, len(begun))); err != nil {
		t.Fatal(err)
	}
	h.now = h.now.Add(time.Minute)
	if _, err := body.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	h.drain(t.Context())
	if err := h.db.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if o, is := (&harness{t: t, db: db}).known("a"); is && o.Says == store.Gone {
		t.Errorf("observed %+v", o)
	}
}
