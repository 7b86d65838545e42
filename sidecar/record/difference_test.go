package record

import (
	"slices"
	"strings"
	"testing"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
)

func changed(t *testing.T, kind, name string, rv int) Change {
	t.Helper()
	object := []byte(cm(name, rv))
	m, err := wire.JSON.ParseMeta(object)
	if err != nil {
		t.Fatal(err)
	}
	return Change{wire.Event{Type: kind, Object: object}, m}
}

func TestADifferenceMovesTheCollectionInOneStep(t *testing.T) {
	tests := map[string]struct {
		list    int // version of a list by another client before; 0: none
		changes []Change
		want    string
		stale   int
	}{
		"what has changed": {0, []Change{changed(t, wire.Deleted, "b", 11), changed(t, wire.Deleted, "c", 11), changed(t, wire.Added, "c", 15), changed(t, wire.Modified, "a", 19)},
			"complete shop/@20: a@19 c@15", 0},
		"that nothing has":                              {0, nil, "complete shop/@20: a@1 b@2 c@11", 0},
		"nothing, when it is known already":             {21, []Change{changed(t, wire.Deleted, "a", 11)}, "complete shop/@21: a@1 b@2 c@11", 0},
		"nothing, when the collection has come halfway": {15, []Change{changed(t, wire.Deleted, "a", 11)}, "complete shop/@15: a@1 b@2 c@11", 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 0)
			h.list(configmaps, listOf(10, configMap("a", 1), configMap("b", 2)))
			w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
			defer w.Close()
			h.events(w, "ADDED c 11")
			h.flush()
			if tt.list != 0 {
				h.list(configmaps, listOf(tt.list, configMap("a", 1), configMap("b", 2), configMap("c", 11)))
			}
			w.Difference(tt.changes, "20")
			h.want(tt.want)
			if n := len(h.Stale()); n != tt.stale {
				t.Errorf("%d collections are to be listed, want %d", n, tt.stale)
			}
			if tt.list == 0 {
				h.events(w, "ADDED d 21") // goes on from there
				h.want("complete shop/@21" + tt.want[len("complete shop/@20"):] + " d@21")
			}
		})
	}
}

func TestADifferenceThatFindsNoRoomIsAGap(t *testing.T) {
	h := idleHarness(t, t.TempDir(), 0)
	write := func() {
		h.drain(t.Context())
	}
	h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(10, configMap("a", 1))))))
	write()
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	defer w.Close()
	h.events(w, "MODIFIED a 11") // waits, and must not be superseded from behind the gap
	h.max = 1
	w.Difference([]Change{changed(t, wire.Modified, "a", 15)}, "20")
	h.max = DefaultMaxPending
	h.events(w, "MODIFIED a 21")
	write()
	if got := h.recorded("configmaps"); !slices.Equal(got, []string{"complete shop/@11: a@11"}) {
		t.Errorf("recorded %v", got)
	}
	if n := len(h.Stale()); n != 1 {
		t.Errorf("%d collections are to be listed, want 1", n)
	}
}

func TestADifferenceSaysInWhichFormAQuietWatchIs(t *testing.T) {
	h := newHarness(t, 0)
	partial := func(name string, rv int) string {
		raw, err := wire.JSON.AppendPartial(nil, []byte(configMap(name, rv)))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	metadata := request.Form{Format: wire.JSON, Representation: request.Metadata}
	list := `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"10"},"items":[` + partial("a", 1) + `]}`
	h.list(configmaps, list)
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON) // as if it were of whole objects
	defer w.Close()
	m, err := wire.JSON.ParseMeta([]byte(partial("a", 15)))
	if err != nil {
		t.Fatal(err)
	}
	w.Difference([]Change{{wire.Event{Type: wire.Modified, Object: []byte(partial("a", 15))}, m}}, "20")
	h.want("complete shop/@20: a@15")
	if w.form != metadata {
		t.Errorf("it is in the form %v", w.form)
	}
}

func TestADifferenceOfWhatIsNotRecordedIsNot(t *testing.T) {
	h := newHarness(t, 0)
	table := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	table.Difference([]Change{{wire.Event{Type: wire.Added, Object: []byte(`{"kind":"Table"}`)}, wire.Meta{Kind: "Table"}}}, "20")
	unlisted := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	unlisted.Difference([]Change{changed(t, wire.Modified, "a", 15)}, "20")
	table.Close()
	unlisted.Close()
	unlisted.Difference([]Change{changed(t, wire.Modified, "a", 15)}, "30")
	h.want()
}

func TestWhatACollectionWasIsKnownWhileItIsWatched(t *testing.T) {
	h := newHarness(t, 0)
	was := func(want bool, versions ...string) {
		t.Helper()
		h.flush()
		all, err := h.db.Collections(t.Context(), who, "", "v1", "configmaps")
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		for _, v := range versions {
			if h.EqualsStateAt(all[0], v) != want {
				t.Errorf("at %s: that it was so at %s is %v", all[0].ResourceVersion, v, !want)
			}
		}
	}
	h.list(configmaps, listOf(10, configMap("a", 1)))
	was(true, "10")
	was(false, "9", "11", "")
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	h.events(w, "BOOKMARK x 15")
	was(true, "10", "12", "15")
	was(false, "9", "16", "x")
	h.events(w, "ADDED b 17", "BOOKMARK x 20")
	was(true, "17", "20")
	was(false, "15", "16", "21")
	w.Difference(nil, "25")
	was(true, "17", "25")
	w.Difference([]Change{changed(t, wire.Deleted, "b", 25)}, "30") // when, between 25 and 30?
	h.events(w, "BOOKMARK x 35")
	was(true, "30", "35")
	was(false, "25", "29")
	h.list(configmaps, listOf(40, configMap("a", 1)))
	was(true, "40")
	was(false, "35", "39")
	h.events(w, "BOOKMARK x 45")
	was(true, "40")
	w.Close()
	was(true, "45")
	was(false, "40")
}
