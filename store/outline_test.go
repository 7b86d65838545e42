package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// hashed gives objects hashes that differ with their versions.
func hashed(objects ...Object) []Object {
	for i := range objects {
		for _, c := range []byte(objects[i].Name + "@" + objects[i].ResourceVersion) {
			objects[i].Hash = objects[i].Hash*31 + uint64(c)
		}
	}
	return objects
}

// addKnown records the items of a list as the recorder does: what the outline has is not parsed.
func addKnown(s *Snapshot, tx *Tx, outline *Outline, list []Object) error {
	next := 0
	for _, o := range list {
		if at := outline.Find(o.Hash, next); at >= 0 {
			next = at + 1
			if err := s.Same(tx, outline, at, next); err != nil {
				return err
			}
			continue
		}
		if err := s.Add(tx, o); err != nil {
			return err
		}
	}
	return nil
}

func commitAt(rv string) CollectionMeta {
	return CollectionMeta{Kind: "ConfigMap", APIVersion: "v1", Envelope: `{"kind":"ConfigMapList"}`, ResourceVersion: rv}
}

func TestAListIsTheSameWithAndWithoutTheOutlineOfTheOneBefore(t *testing.T) {
	a, b, c, d := object("a", 1), object("b", 2), object("c", 3), object("d", 4)
	for _, tt := range []struct {
		name         string
		before, list []Object
	}{
		{"nothing has changed", []Object{a, b, c}, []Object{a, b, c}},
		{"the first was deleted", []Object{a, b, c}, []Object{b, c}},
		{"the last was deleted", []Object{a, b, c}, []Object{a, b}},
		{"one is new", []Object{a, b, d}, []Object{a, b, c, d}},
		{"one has changed", []Object{a, b, c}, []Object{a, object("b", 5), c}},
		{"all have changed", []Object{a, b}, []Object{object("a", 5), object("b", 6)}},
		{"the order is another one", []Object{a, b, c}, []Object{c, a, b}},
		{"an object is there twice", []Object{a, b}, []Object{a, a, b}},
		{"an object is there twice, and changed first", []Object{a, b}, []Object{object("a", 5), a, b}},
		{"an object is there twice, and changed then", []Object{a, b}, []Object{a, object("a", 5), b}},
		{"none is left", []Object{a, b}, nil},
		{"there is still none", nil, nil},
		{"there was none", nil, []Object{a}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			s := scope("shop")
			record(t, db, s, "100", hashed(tt.before...)...)
			for _, rv := range []string{"200", "300"} { // the second one has the outline of the first one
				list := NewSnapshot(s, asked(db))
				update(t, db, func(tx *Tx) error {
					return errors.Join(addKnown(list, tx, db.Outline(s), hashed(tt.list...)), list.Commit(tx, commitAt(rv)))
				})
				listed := map[string]string{}
				for _, o := range tt.list {
					listed[o.Name] = string(o.Payload)
				}
				coll, found := complete(t, db, s)
				if len(found) != len(listed) || coll.ResourceVersion != rv {
					t.Fatalf("%v at %s, want %d objects at %s", found, coll.ResourceVersion, len(listed), rv)
				}
				twice := len(tt.list) > len(listed)
				for name, want := range listed {
					if got := payload(t, db, coll.ID, name); got != want && !twice {
						t.Errorf("%s is %s, want %s", name, got, want)
					}
				}
				if got, want := db.Outline(s).Len(), len(tt.list); got != want && !twice {
					t.Errorf("the outline has %d items, want %d", got, want)
				}
			}
		})
	}
}

func TestAnOutlineDoesNotHideWhatHasHappenedSince(t *testing.T) {
	event := func(db *DB, o Object) Object {
		o.Told = db.Next()
		o.Asked, o.Read = o.Told, Stream
		return o
	}
	for name, since := range map[string]func(tx *Tx, c Collection) error{
		"an event has changed an object": func(tx *Tx, c Collection) error {
			return tx.PutEvent(c.ID, c.Scope, event(tx.db, object("a", 150)))
		},
		"an event has deleted an object": func(tx *Tx, c Collection) error {
			n := tx.db.Next()
			return tx.RemoveEvent(c.ID, c.Scope, Key{"shop", "a"}, Evidence{Says: Gone, Version: "150", Asked: n, Told: n, Read: Stream})
		},
		"an event has deleted an object, and another has added one": func(tx *Tx, c Collection) error {
			n := tx.db.Next()
			return errors.Join(tx.RemoveEvent(c.ID, c.Scope, Key{"shop", "a"}, Evidence{Says: Gone, Version: "150", Asked: n, Told: n, Read: Stream}),
				tx.PutEvent(c.ID, c.Scope, event(tx.db, object("new", 151))))
		},
		"another list has replaced an object": func(tx *Tx, c Collection) error {
			list := NewSnapshot(c.Scope, Evidence{Asked: 1, Told: 1, Read: Latest}) // asked for before the first one
			return errors.Join(list.Add(tx, object("a", 150)), list.Add(tx, object("b", 2)), list.Commit(tx, commitAt("160")))
		},
		"the collection was forgotten": func(tx *Tx, c Collection) error { return tx.Forget(c) },
	} {
		t.Run(name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			s := scope("shop")
			objects := hashed(object("a", 1), object("b", 2))
			record(t, db, s, "100", objects...)
			outline := db.Outline(s)
			c, _ := complete(t, db, s)
			update(t, db, func(tx *Tx) error { return since(tx, c) })
			list := NewSnapshot(s, asked(db))
			err := db.Update(t.Context(), func(tx *Tx) error {
				if err := list.Same(tx, outline, 0, 2); err != nil {
					return err
				}
				return list.Commit(tx, commitAt("200"))
			})
			if !errors.Is(err, ErrBaseGone) {
				t.Errorf("the list was recorded: %v", err)
			}
		})
	}
}

func TestAnEventThatWasToldBeforeTheListEndsItsOutline(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	s := scope("shop")
	early := db.Next()
	record(t, db, s, "100", hashed(object("a", 1), object("b", 2))...)
	outline := db.Outline(s)
	if outline.Len() != 2 {
		t.Fatal("there is no outline")
	}
	c, _ := complete(t, db, s)
	update(t, db, func(tx *Tx) error {
		o := object("a", 150)
		o.Asked, o.Told, o.Read = early, early, Stream
		return tx.PutEvent(c.ID, s, o)
	})
	if db.Outline(s) != nil {
		t.Error("the outline does not show that an object was changed since")
	}
	list := NewSnapshot(s, asked(db))
	err := db.Update(t.Context(), func(tx *Tx) error {
		return errors.Join(list.Same(tx, outline, 0, 2), list.Commit(tx, commitAt("200")))
	})
	if !errors.Is(err, ErrBaseGone) {
		t.Errorf("a list that came meanwhile was recorded: %v", err)
	}
}

func TestAnOutlineIsOfWhatIsCommitted(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	s := scope("shop")
	list := NewSnapshot(s, asked(db))
	failed := errors.New("rolled back")
	err := db.Update(context.Background(), func(tx *Tx) error {
		return errors.Join(list.Add(tx, hashed(object("a", 1))[0]), list.Commit(tx, commitAt("100")), failed)
	})
	if !errors.Is(err, failed) || db.Outline(s) != nil {
		t.Errorf("%v, and an outline of %d", err, db.Outline(s).Len())
	}
}

func TestAListIsComparedWithItsRowsOnceAnHour(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	db, err := Open(t.Context(), t.TempDir(), Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s := scope("shop")
	list := func(rv string, objects ...Object) {
		list := NewSnapshot(s, asked(db))
		update(t, db, func(tx *Tx) error {
			return errors.Join(addKnown(list, tx, db.Outline(s), hashed(objects...)), list.Commit(tx, commitAt(rv)))
		})
	}
	list("100", object("a", 1), object("b", 2))
	if _, err := db.file.write.ExecContext(t.Context(), `UPDATE object SET resource_version = '7' WHERE name = 'a'`); err != nil { // damage
		t.Fatal(err)
	}
	for range 3 {
		now = now.Add(25 * time.Minute)
		list("200", object("a", 1), object("b", 300))
	}
	_, found := complete(t, db, s)
	want(t, found, "a@1", "b@300")
}

func TestOutlinesAreBounded(t *testing.T) {
	var o outlines
	for i := range 10 {
		o.put(scopedOutline{Scope{Namespace: string(rune('a' + i))}, &Outline{outlineItems: &outlineItems{hashes: make([]uint64, maxOutline/4)}}})
	}
	if o.len > maxOutline || len(o.all) != 4 || o.all[0].scope.Namespace != "g" {
		t.Errorf("%d objects in %d outlines, the first of them of %q", o.len, len(o.all), o.all[0].scope.Namespace)
	}
	var s outlined
	for range maxOutline {
		s.add(1, 1)
	}
	if !s.off || s.ids != nil {
		t.Error("the outline of a list of any size is kept")
	}
}

func TestOutlinesOfEmptyListsAreBounded(t *testing.T) {
	var o outlines
	for i := range 2 * maxOutlines {
		o.put(scopedOutline{Scope{LabelSelector: fmt.Sprint("app=", i)}, &Outline{outlineItems: &outlineItems{}}})
	}
	if n := len(o.all); n != maxOutlines {
		t.Errorf("there are %d outlines", n)
	}
}

func TestAListThatIsForgottenInItsTransactionHasNoOutline(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	s := scope("shop")
	list := NewSnapshot(s, asked(db))
	update(t, db, func(tx *Tx) error {
		if err := errors.Join(list.Add(tx, hashed(object("a", 1))[0]), list.Commit(tx, commitAt("100"))); err != nil {
			return err
		}
		c, err := tx.Collection(s, Complete)
		return errors.Join(err, tx.Forget(c))
	})
	if db.Outline(s) != nil {
		t.Error("there is an outline of a collection that is gone")
	}
}
