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
		list    int // version of another client's list before the difference; 0: none
		changes []Change
		want    string
		stale   int
	}{
		"deleted, re-created and modified objects": {0, []Change{changed(t, wire.Deleted, "b", 11), changed(t, wire.Deleted, "c", 11), changed(t, wire.Added, "c", 15), changed(t, wire.Modified, "a", 19)},
			"complete shop/@20: a@19 c@15", 0},
		"no changes":                         {0, nil, "complete shop/@20: a@1 b@2 c@11", 0},
		"duplicate: the collection is newer": {21, []Change{changed(t, wire.Deleted, "a", 11)}, "complete shop/@21: a@1 b@2 c@11", 0},
		"gap: the collection is in between":  {15, []Change{changed(t, wire.Deleted, "a", 11)}, "complete shop/@15: a@1 b@2 c@11", 1},
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
			if n := h.mustBeListed(); n != tt.stale {
				t.Errorf("%d collections are stale, want %d", n, tt.stale)
			}
			if tt.list == 0 {
				h.events(w, "ADDED d 21") // the collection continues from there
				h.want("complete shop/@21" + tt.want[len("complete shop/@20"):] + " d@21")
			}
		})
	}
}

func TestADifferenceThatDoesNotFitIsAGap(t *testing.T) {
	h := idleHarness(t, t.TempDir(), 0)
	write := func() {
		h.drain(t.Context())
	}
	h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(10, configMap("a", 1))))))
	write()
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	defer w.Close()
	h.events(w, "MODIFIED a 11") // waits in the queue; the event after the gap must not supersede it
	h.max = 1
	w.Difference([]Change{changed(t, wire.Modified, "a", 15)}, "20")
	h.max = DefaultMaxPending
	h.events(w, "MODIFIED a 21")
	write()
	if got := h.recorded("configmaps"); !slices.Equal(got, []string{"complete shop/@11: a@11", "seen /@: a@21"}) {
		t.Errorf("recorded %v", got)
	}
	if n := h.mustBeListed(); n != 1 {
		t.Errorf("%d collections are stale, want 1", n)
	}
}

func TestADifferenceConfirmsTheFormOfAWatchWithoutEvents(t *testing.T) {
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
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON) // assumed to be of full objects
	defer w.Close()
	m, err := wire.JSON.ParseMeta([]byte(partial("a", 15)))
	if err != nil {
		t.Fatal(err)
	}
	w.Difference([]Change{{wire.Event{Type: wire.Modified, Object: []byte(partial("a", 15))}, m}}, "20")
	h.want("complete shop/@20: a@15")
	if w.form != metadata {
		t.Errorf("the form is %v", w.form)
	}
}

func TestADifferenceWithoutACollectionIsRecordedAlone(t *testing.T) {
	h := newHarness(t, 0)
	table := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	table.Difference([]Change{{wire.Event{Type: wire.Added, Object: []byte(`{"kind":"Table"}`)}, wire.Meta{Kind: "Table"}}}, "20")
	unlisted := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	unlisted.Difference([]Change{changed(t, wire.Modified, "a", 15)}, "20")
	table.Close()
	unlisted.Close()
	unlisted.Difference([]Change{changed(t, wire.Modified, "a", 25)}, "30") // it is closed
	h.want("seen /@: a@15")
}

func TestAWatchedCollectionKnowsSinceWhenItIsUnchanged(t *testing.T) {
	h := newHarness(t, 0)
	equals := func(want bool, versions ...string) {
		t.Helper()
		h.flush()
		all, err := h.db.Collections(t.Context(), who, "", "v1", "configmaps")
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		for _, v := range versions {
			if h.EqualsStateAt(all[0], v) != want {
				t.Errorf("at %s: EqualsStateAt(%s) is %v", all[0].ResourceVersion, v, !want)
			}
		}
	}
	h.list(configmaps, listOf(10, configMap("a", 1)))
	equals(true, "10")
	equals(false, "9", "11", "")
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	h.events(w, "BOOKMARK x 15")
	equals(true, "10", "12", "15")
	equals(false, "9", "16", "x")
	h.events(w, "ADDED b 17", "BOOKMARK x 20")
	equals(true, "17", "20")
	equals(false, "15", "16", "21")
	w.Difference(nil, "25")
	equals(true, "17", "25")
	w.Difference([]Change{changed(t, wire.Deleted, "b", 25)}, "30") // at an unknown version between 25 and 30
	h.events(w, "BOOKMARK x 35")
	equals(true, "30", "35")
	equals(false, "25", "29")
	h.list(configmaps, listOf(40, configMap("a", 1)))
	equals(true, "40")
	equals(false, "35", "39")
	h.events(w, "BOOKMARK x 45")
	equals(true, "40")
	w.Close()
	equals(true, "45")
	equals(false, "40")
}
