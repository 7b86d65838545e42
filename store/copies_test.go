package store

import (
	"errors"
	"testing"
)

// TestKnownIsUpToDate changes a collection in each way after it was read once.
func TestKnownIsUpToDate(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	s := scope("shop")
	record(t, db, s, "100", object("a", 1))
	read := func() Collection {
		t.Helper()
		known, err := db.Known(t.Context(), s.Of(), Key{"shop", "b"}, "", "")
		if err != nil || len(known.Lists) != 1 {
			t.Fatal(known, err)
		}
		return *known.Lists[0]
	}
	for _, change := range []struct {
		name string
		make func(*Tx, Collection) error
	}{
		{"an event", func(tx *Tx, c Collection) error {
			return errors.Join(tx.PutEvent(c.ID, s, object("a", 101)), tx.Advance(c.ID, Move{ResourceVersion: "101", Changed: "101"}))
		}},
		{"a bookmark", func(tx *Tx, c Collection) error { return tx.Advance(c.ID, Move{ResourceVersion: "102"}) }},
		{"a list that confirms it", func(tx *Tx, c Collection) error { return tx.Confirm(c, asked(db)) }},
		{"a list that replaces it", func(tx *Tx, _ Collection) error {
			return NewSnapshot(s, asked(db)).Commit(tx, CollectionMeta{ResourceVersion: "103"})
		}},
	} {
		before := read()
		update(t, db, func(tx *Tx) error { return change.make(tx, before) })
		after := read()
		want, err := db.Collections(t.Context(), s.Principal, s.Group, s.Version, s.Resource)
		if err != nil || len(want) != 1 || after != want[0] || after == before {
			t.Errorf("after %s: %+v, want %+v: %v", change.name, after, want, err)
		}
	}
}
