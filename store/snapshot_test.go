package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

func TestASnapshotKeepsABitForEachObject(t *testing.T) {
	const count = 5000
	objects := pods(count, 10)
	for _, tt := range []struct {
		name    string
		arrange func([]Object)
	}{
		{"in the order of the index", func([]Object) {}},
		{"in the opposite order", slices.Reverse[[]Object]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			recordInGroups(t, db, scope("shop"), objects)
			list := slices.Clone(objects)
			tt.arrange(list)
			s := NewSnapshot(scope("shop"), asked(db))
			update(t, db, func(tx *Tx) error {
				for _, o := range list {
					if err := s.Add(tx, o); err != nil {
						return err
					}
				}
				return nil
			})
			if words := len(s.unchanged); words > count/64+2 || len(s.ahead.rows) > maxLookahead || s.fill != 0 {
				t.Errorf("it keeps %d words and %d rows of %d objects, and a filling collection %d", words, len(s.ahead.rows), count, s.fill)
			}
			if n := s.unchanged.len(); n != count {
				t.Errorf("%d of %d objects are unchanged", n, count)
			}
		})
	}
}

func TestAListReplacesTheObjectsOfTheOneBefore(t *testing.T) {
	many := pods(3500, 10)
	for i := range many {
		many[i].Namespace = "shop"
	}
	for _, tt := range []struct {
		name         string
		before, list []Object
		want         int
	}{
		{"all but the last are deleted, in several batches", many, many[3499:], 1},
		{"all but the first are deleted", many, many[:1], 1},
		{"all are deleted", many, nil, 0},
		{"every other one is deleted", many[:6], []Object{many[0], many[2], many[4]}, 3},
		{"an object is there twice, and changed first", []Object{object("a", 1)}, []Object{object("a", 2), object("a", 1)}, 1},
		{"an object is there twice, and changed then", []Object{object("a", 1)}, []Object{object("a", 1), object("a", 2)}, 1},
		{"a new object is there twice", []Object{object("a", 1)}, []Object{object("a", 1), object("b", 2), object("b", 2)}, 2},
		{"the order is another one", []Object{object("a", 1), object("b", 1), object("c", 1)}, []Object{object("c", 1), object("a", 1), object("b", 2)}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			record(t, db, scope("shop"), "4000000", tt.before...)
			record(t, db, scope("shop"), "5000000", tt.list...)
			var left int
			err := db.file.read.QueryRow(`SELECT count(*) FROM object`).Scan(&left)
			if err != nil || left != tt.want {
				t.Fatalf("%d objects are left, want %d: %v", left, tt.want, err)
			}
			all, err := db.Collections(t.Context(), scope("").Principal, "", "v1", "configmaps")
			if err != nil || len(all) != 1 {
				t.Fatal(all, err)
			}
			listed := map[string]string{}
			for _, o := range tt.list {
				listed[o.Name] = o.ResourceVersion
			}
			_, err = db.List(t.Context(), all[0].ID, all[0].Revision, Range{}, func(o Object) error {
				if listed[o.Name] != o.ResourceVersion {
					return fmt.Errorf("%s@%s, want %s", o.Name, o.ResourceVersion, listed[o.Name])
				}
				return nil
			})
			if err := errors.Join(err, ignoreNotFound(db.Check())); err != nil {
				t.Fatal(err)
			}
		})
	}
}
