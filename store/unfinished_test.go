package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// restart opens a cache again, after a client's list of a scope was cut off by a kill. Items that
// the outline has are not compared.
func restart(t *testing.T, dir string, db *DB, s *Snapshot, items ...Object) *DB {
	t.Helper()
	update(t, db, func(tx *Tx) error {
		return addKnown(s, tx, db.Outline(s.scope), items)
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return openAt(t, dir, Options{})
}

// told begins a list, of which a client is told.
func told(db *DB, s Scope) *Snapshot {
	list := NewSnapshot(s, asked(db))
	list.Tell("ConfigMap", "v1")
	return list
}

// overtaken says why a scope's collection is not answered; empty: it is.
func overtaken(t *testing.T, db *DB, s Scope) string {
	t.Helper()
	c, _ := complete(t, db, s)
	by, err := db.Overtaken(t.Context(), c, Selection{
		Labels: func(string) (bool, error) { return true, nil }, Matches: func(string, string) (bool, error) { return true, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return by
}

func TestWhatAnUnfinishedListHasToldStaysKnownAfterAKill(t *testing.T) {
	another := scope("shop")
	another.MediaType = "application/vnd.kubernetes.protobuf"
	for name, tt := range map[string]struct {
		gone, background bool
		newer            bool // another list has come before
		items            []Object
		states           []string
		overtaken        bool // the list before
	}{
		"it has shown a change":            {items: []Object{object("a", 12)}, states: []string{"complete 1", "seen 12"}, overtaken: true},
		"it was as the list before":        {items: []Object{object("a", 1)}, states: []string{"complete 1"}},
		"it has shown a new object":        {items: []Object{object("b", 12)}, states: []string{"complete 1"}, overtaken: true},
		"it was the sidecar's own":         {background: true, items: []Object{object("a", 12)}, states: []string{"complete 1"}},
		"a newer list has the object, too": {newer: true, items: []Object{object("a", 12)}, states: []string{"complete 1", "complete 12", "seen 12"}, overtaken: true},
		"it has shown again what was gone": {gone: true, items: []Object{object("a", 1)}, states: []string{"complete 1", "seen 1"}},
		"it has not shown what was gone":   {gone: true, states: []string{"complete 1"}, overtaken: true},
	} {
		check := func(t *testing.T, hashed func(...Object) []Object) {
			dir := t.TempDir()
			db := openAt(t, dir, Options{})
			record(t, db, scope("shop"), "10", hashed(object("a", 1))...)
			if tt.newer {
				record(t, db, another, "20", object("a", 12))
			}
			if tt.gone {
				observe(t, db, Key{"shop", "a"}, said(db, Gone, "", Latest))
			}
			list := told(db, scope("shop"))
			if tt.background {
				list = NewSnapshot(scope("shop"), asked(db))
			}
			db = restart(t, dir, db, list, hashed(tt.items...)...)
			known, err := db.Known(t.Context(), scope("").Of(), Key{"shop", "a"}, "", "")
			if err != nil {
				t.Fatal(err)
			}
			var states []string
			for _, s := range known.States {
				states = append(states, fmt.Sprint(s.Collection.State, " ", s.Object.ResourceVersion))
			}
			if slices.Sort(states); !slices.Equal(states, tt.states) {
				t.Errorf("the states are %q, want %q", states, tt.states)
			}
			if still := len(known.Observations) > 0; still != (tt.gone && len(tt.items) == 0) {
				t.Errorf("observed: %+v", known.Observations)
			}
			if by := overtaken(t, db, scope("shop")); by != "" != tt.overtaken {
				t.Errorf("the list before is overtaken: %q", by)
			}
			if tt.newer {
				if by := overtaken(t, db, another); by != "" {
					t.Errorf("a list that has the object, too, is overtaken: %s", by)
				}
			}
			var left int
			if err := db.file.read.QueryRow(`SELECT count(*) FROM collection WHERE state = 'filling'`).Scan(&left); err != nil || left != 0 {
				t.Errorf("%d lists are unfinished: %v", left, err)
			}
		}
		t.Run(name, func(t *testing.T) { check(t, func(list ...Object) []Object { return list }) })
		t.Run(name+", compared with its outline", func(t *testing.T) { check(t, hashed) })
	}
}

func TestAnUnfinishedListOfManyObjectsMakesItsScopeDoubtful(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir, Options{})
	record(t, db, scope("shop"), "10", object("a", 1))
	many := pods(maxGivenUp+1, 10)
	for i := range many {
		many[i].Namespace = "shop"
	}
	db = restart(t, dir, db, told(db, scope("shop")), many...)
	if o, ok := observed(t, db, Key{Namespace: "shop"}); !ok || o.Says != Unknown {
		t.Errorf("observed: %+v", o)
	}
	if overtaken(t, db, scope("shop")) == "" {
		t.Error("the list before is answered")
	}
}

func TestANumberIsNotGivenTwiceAfterAKill(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir, Options{})
	list := told(db, scope("shop"))
	db = restart(t, dir, db, list, object("a", 1))
	if n := db.Next(); n <= list.when.Told {
		t.Errorf("the next number is %d, and the list was told at %d", n, list.when.Told)
	}
}

func TestOnAFullDiskOpenNamesTheUnfinishedLists(t *testing.T) {
	dir := tmpfs(t, 2<<20)
	db := openAt(t, dir, Options{})
	record(t, db, scope("shop"), "10", object("a", 1))
	list := told(db, scope("shop"))
	update(t, db, func(tx *Tx) error { return errors.Join(list.Add(tx, bulky("a", 12)), list.Add(tx, bulky("b", 13))) })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	fill(t, dir)
	db = openAt(t, dir, Options{})
	if all := db.Unfinished(); len(all) != 1 || all[0].Scope != scope("shop") || all[0].Told != list.when.Told || db.Next() <= list.when.Told {
		t.Errorf("unfinished: %+v", all)
	}
}

func TestAGivenUpListDoesNotMakeALaterAnswerOlder(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	s := scope("shop")
	list := told(db, s)
	absent := said(db, Gone, "", Latest)
	read := object("a", 12)
	got := asked(db)
	read.Asked, read.Told, read.Read = got.Asked, got.Told, got.Read
	update(t, db, func(tx *Tx) error {
		return errors.Join(list.Add(tx, object("a", 12)), tx.PutSingle(s.singles(), "ConfigMap", "v1", read),
			list.GiveUp(tx, s.singles(), "ConfigMap", "v1"))
	})
	observe(t, db, Key{"shop", "a"}, absent) // which was written late
	known, err := db.Known(t.Context(), s.Of(), Key{"shop", "a"}, "", "")
	if err != nil || len(known.States) != 1 {
		t.Fatalf("the object that was read last is gone: %+v, %v", known, err)
	}
	if e := known.States[0].Evidence(); e.Told != got.Told || e.Asked != got.Asked {
		t.Errorf("it was told at %d, want %d", e.Told, got.Told)
	}
}
