package store

import (
	"errors"
	"fmt"
	"testing"
)

// Two clients list a scope at the same time, and an event comes in between. One list was compared with
// the collection before the event, the other one behind it.
func TestListsOfAScopeThatOverlap(t *testing.T) {
	const n = 18
	states := func(rv int) (all []Object) {
		for i := range n {
			o := object(fmt.Sprintf("o%02d", i), 1)
			if i%2 == 0 {
				o = object(o.Name, rv)
			}
			all = append(all, o)
		}
		return all
	}
	meta := CollectionMeta{Kind: "ConfigMap", APIVersion: "v1", Envelope: `{}`, ResourceVersion: "20"}
	for name, tt := range map[string]struct {
		spaced bool // the first list has other bytes of the same versions
		want   error
	}{
		"with the same bytes": {},
		"with other bytes":    {true, ErrBaseGone},
	} {
		t.Run(name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			s := scope("shop")
			record(t, db, s, "10", states(1)...)
			before, behind := NewSnapshot(s, asked(db)), NewSnapshot(s, asked(db))
			add := func(to *Snapshot, spaced bool) func(*Tx) error {
				return func(tx *Tx) error {
					for _, o := range states(15) {
						if spaced {
							o.Payload = append([]byte(" "), o.Payload...)
						}
						if err := to.Add(tx, o); err != nil {
							return err
						}
					}
					return nil
				}
			}
			update(t, db, add(before, tt.spaced))
			update(t, db, func(tx *Tx) error {
				c, err := tx.Collection(s, Complete)
				if err != nil {
					return err
				}
				for _, o := range states(15) {
					if err := tx.Put(c.ID, o); err != nil {
						return err
					}
				}
				return tx.Advance(c.ID, Move{ResourceVersion: "20", Changed: "20", Told: db.Next()})
			})
			update(t, db, add(behind, false))
			update(t, db, func(tx *Tx) error { return before.Commit(tx, meta) })
			var err error
			update(t, db, func(tx *Tx) error {
				if err = behind.Commit(tx, meta); err == nil || tt.want == nil {
					return err
				}
				return behind.Abort(tx) // nothing else is changed then
			})
			if !errors.Is(err, tt.want) {
				t.Fatalf("the second list: %v, want %v", err, tt.want)
			}
			all, err := db.Collections(t.Context(), s.Principal, "", "v1", "configmaps")
			if err != nil || len(all) != 1 {
				t.Fatal(all, err)
			}
			listed := 0
			if _, err := db.List(t.Context(), all[0].ID, all[0].Revision, Range{}, func(Object) error { listed++; return nil }); err != nil || listed != n {
				t.Errorf("%d objects are left of %d: %v", listed, n, err)
			}
		})
	}
}

// SQLite gives the highest id again once its row is deleted.
func TestAListIsNotMergedWithOtherObjectsThanItWasComparedWith(t *testing.T) {
	for name, meanwhile := range map[string]func(*Tx, int64) error{
		"one is deleted, and another has its id": func(tx *Tx, id int64) error {
			return errors.Join(tx.Remove(id, "shop", "b"), tx.Put(id, object("c", 12)))
		},
		"one has changed": func(tx *Tx, id int64) error { return tx.Put(id, object("b", 12)) },
	} {
		t.Run(name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			record(t, db, scope("shop"), "10", object("a", 1), object("b", 2))
			list := NewSnapshot(scope("shop"), asked(db))
			update(t, db, func(tx *Tx) error { return errors.Join(list.Add(tx, object("a", 1)), list.Add(tx, object("b", 2))) })
			update(t, db, func(tx *Tx) error {
				c, err := tx.Collection(scope("shop"), Complete)
				return errors.Join(err, meanwhile(tx, c.ID), tx.Advance(c.ID, Move{ResourceVersion: "12", Changed: "12", Told: db.Next()}))
			})
			err := db.Update(t.Context(), func(tx *Tx) error { return list.Commit(tx, CollectionMeta{ResourceVersion: "20"}) })
			if !errors.Is(err, ErrBaseGone) {
				_, got := complete(t, db, scope("shop"))
				t.Errorf("%v; the list of a@1 and b@2 is recorded as %v", err, got)
			}
		})
	}
}
