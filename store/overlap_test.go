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
