package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// said is evidence that is asked for and told now.
func said(db *DB, says Says, version string, read Read, uids ...string) Evidence {
	return Evidence{Says: says, Version: version, Asked: db.Next(), Told: db.Next(), Read: read, UIDs: uids}
}

func observe(t *testing.T, db *DB, key Key, e Evidence) {
	t.Helper()
	update(t, db, func(tx *Tx) error { return tx.Observe(scope("").Of(), key, e) })
}

// observed returns what is observed of a key, without what is about its namespace.
func observed(t *testing.T, db *DB, key Key) (o Observation, ok bool) {
	t.Helper()
	known, err := db.Known(t.Context(), scope("").Of(), key, "", "")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(known.Observations, func(o Observation) bool { return o.Key == key })
	if i < 0 {
		return o, false
	}
	return known.Observations[i], true
}

func TestADeletionCoversWhatWasToldBefore(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	record(t, db, scope("shop"), "20", object("a", 19))
	update(t, db, func(tx *Tx) error { return putSingle(tx, scope(""), object("b", 6)) })
	for _, name := range []string{"a", "b"} {
		observe(t, db, Key{"shop", name}, said(db, Gone, "", Latest))
		o, ok := observed(t, db, Key{"shop", name})
		if !ok || !slices.Equal(o.UIDs, []string{"uid-" + name}) || o.Floor != "20" {
			t.Errorf("%s: %+v", name, o)
		}
	}
	if c, got := complete(t, db, scope("shop")); c.ResourceVersion != "20" || !slices.Equal(got, []string{"a@19"}) {
		t.Errorf("the list has changed: %v", got)
	}
	if known, err := db.Known(t.Context(), scope("").Of(), Key{"shop", "b"}, "", ""); err != nil || len(known.States) != 0 {
		t.Errorf("the single is still there: %v %v", known.States, err)
	}
	observe(t, db, Key{"shop", "a"}, said(db, Gone, "25", Stream, "uid-another"))
	if o, _ := observed(t, db, Key{"shop", "a"}); !slices.Equal(o.UIDs, []string{"uid-a", "uid-another"}) {
		t.Errorf("the uids are %v", o.UIDs)
	}
}

func TestARepeated404IsNotRewrittenForEachRequest(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	now := clock
	db.opts.Now = func() time.Time { return now }
	key := Key{"shop", "a"}
	observe(t, db, key, said(db, Gone, "", Latest))
	before := changes(t, db)
	for range 5 {
		observe(t, db, key, said(db, Gone, "", Latest))
	}
	if n := changes(t, db) - before; n != 0 {
		t.Errorf("%d rows were written", n)
	}
	now = now.Add(renewObservation)
	observe(t, db, key, said(db, Gone, "", Latest))
	if n := changes(t, db) - before; n == 0 {
		t.Error("it was not renewed")
	}
}

func TestObservationsAreBoundedAndWhatIsDroppedIsDoubtful(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	update(t, db, func(tx *Tx) error {
		for i := range maxObservations + pruneEvery {
			if err := tx.Observe(scope("").Of(), Key{"shop", fmt.Sprintf("o%d", i)}, said(db, Exists, "", Latest)); err != nil {
				return err
			}
		}
		return nil
	})
	var n int
	if err := db.file.read.QueryRow(`SELECT count(*) FROM observation`).Scan(&n); err != nil || n > maxObservations+pruneEvery || n < maxObservations/2 {
		t.Errorf("%d observations: %v", n, err)
	}
	if _, ok := observed(t, db, Key{"shop", "o0"}); ok {
		t.Error("the oldest is still there")
	}
	if o, ok := observed(t, db, Key{Namespace: "shop"}); !ok || o.Says != Unknown {
		t.Errorf("the namespace is %+v", o)
	}
}

func TestWhatAnEvictedListHasSaidStays(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	old := scope("shop")
	old.MediaType = "application/vnd.kubernetes.protobuf"
	record(t, db, old, "10", object("a", 5))
	record(t, db, scope("shop"), "20", object("a", 15))
	newest, _ := complete(t, db, scope("shop"))
	update(t, db, func(tx *Tx) error { return tx.Forget(newest) })
	c, _ := complete(t, db, old)
	by, err := db.Overtaken(t.Context(), c, everything)
	if err != nil || by == "" {
		t.Errorf("the older list still answers: %q %v", by, err)
	}
	record(t, db, old, "30", object("a", 15))
	c, _ = complete(t, db, old)
	if by, err := db.Overtaken(t.Context(), c, everything); err != nil || by != "" {
		t.Errorf("a newer list does not answer: %q %v", by, err)
	}
}

// everything selects all objects.
var everything = Selection{
	Labels:  func(string) (bool, error) { return true, nil },
	Matches: func(string, string) (bool, error) { return true, nil },
}

func TestAListIsOvertakenByWhatItsClientWasToldSince(t *testing.T) {
	metadata := scope("shop")
	metadata.Representation = "metadata"
	selected := scope("shop")
	selected.LabelSelector = "app=a"
	for name, tt := range map[string]struct {
		then func(*testing.T, *DB)
		want bool
	}{
		"nothing": {func(*testing.T, *DB) {}, false},
		"an object of its version": {func(t *testing.T, db *DB) {
			update(t, db, func(tx *Tx) error { return putSingle(tx, scope(""), object("a", 5)) })
		}, false},
		"a newer object": {func(t *testing.T, db *DB) {
			update(t, db, func(tx *Tx) error { return putSingle(tx, scope(""), object("a", 11)) })
		}, true},
		"a new object": {func(t *testing.T, db *DB) {
			update(t, db, func(tx *Tx) error { return putSingle(tx, scope(""), object("b", 11)) })
		}, true},
		"a 404 for an object it has":      {func(t *testing.T, db *DB) { observe(t, db, Key{"shop", "a"}, said(db, Gone, "", Latest)) }, true},
		"a 404 for an object it lacks":    {func(t *testing.T, db *DB) { observe(t, db, Key{"shop", "b"}, said(db, Gone, "", Latest)) }, false},
		"a 404 in another namespace":      {func(t *testing.T, db *DB) { observe(t, db, Key{"other", "a"}, said(db, Gone, "", Latest)) }, false},
		"a doubt of its namespace":        {func(t *testing.T, db *DB) { observe(t, db, Key{Namespace: "shop"}, said(db, Unknown, "", Latest)) }, true},
		"a doubt of another namespace":    {func(t *testing.T, db *DB) { observe(t, db, Key{Namespace: "other"}, said(db, Unknown, "", Latest)) }, false},
		"a refusal":                       {func(t *testing.T, db *DB) { observe(t, db, Key{Namespace: "shop"}, said(db, Refused, "", Latest)) }, true},
		"a refusal of all namespaces":     {func(t *testing.T, db *DB) { observe(t, db, Key{}, said(db, Refused, "", Latest)) }, false},
		"a newer list in another form":    {func(t *testing.T, db *DB) { record(t, db, metadata, "20", object("a", 15)) }, true},
		"the same list in another form":   {func(t *testing.T, db *DB) { record(t, db, metadata, "20", object("a", 5)) }, false},
		"a newer list that lacks it":      {func(t *testing.T, db *DB) { record(t, db, scope(""), "20") }, true},
		"a newer selection that lacks it": {func(t *testing.T, db *DB) { record(t, db, selected, "20") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			record(t, db, scope("shop"), "10", object("a", 5))
			c, _ := complete(t, db, scope("shop"))
			tt.then(t, db)
			by, err := db.Overtaken(t.Context(), c, everything)
			if err != nil || (by != "") != tt.want {
				t.Errorf("%q %v", by, err)
			}
			if err := db.Update(t.Context(), func(tx *Tx) error { return tx.touch(c.ID) }); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Overtaken(t.Context(), c, everything); !errors.Is(err, ErrChanged) {
				t.Errorf("a list that has changed: %v", err)
			}
		})
	}
}

func TestTheSequenceGoesOnAfterARestart(t *testing.T) {
	for name, put := range map[string]func(*testing.T, *DB){
		"a list": func(t *testing.T, db *DB) { record(t, db, scope("shop"), "10", object("a", 5)) },
		"a single": func(t *testing.T, db *DB) {
			update(t, db, func(tx *Tx) error { return putSingle(tx, scope(""), object("a", 5)) })
		},
		"an observation": func(t *testing.T, db *DB) { observe(t, db, Key{"shop", "a"}, said(db, Gone, "", Latest)) },
		"a response": func(t *testing.T, db *DB) {
			update(t, db, func(tx *Tx) error { return tx.PutResponse(Response{Path: "/api", Told: db.Next(), Body: []byte("{}")}) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db := openAt(t, dir, Options{})
			for range 100 {
				db.Next()
			}
			put(t, db)
			last := db.next.Load()
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if got := openAt(t, dir, Options{}).Next(); got <= last {
				t.Errorf("%d follows %d", got, last)
			}
		})
	}
}

func TestADamagedPayloadCostsItsCollection(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	record(t, db, scope("shop"), "10", object("a", 5))
	record(t, db, scope("other"), "10")
	if _, err := db.file.write.Exec(`UPDATE object SET checksum = checksum + 1`); err != nil {
		t.Fatal(err)
	}
	c, _ := complete(t, db, scope("other"))
	damaged, err := db.Collections(t.Context(), scope("").Principal, "", "v1", "configmaps")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.List(t.Context(), damaged[0].ID, damaged[0].Revision, Range{}, func(Object) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Fatalf("reading it: %v", err)
	}
	update(t, db, func(tx *Tx) error {
		_, err := tx.DropDamaged(damaged[0].ID)
		return err
	})
	if still, _ := complete(t, db, scope("other")); still.ID != c.ID {
		t.Error("another collection is gone")
	}
	if gone, _ := complete(t, db, scope("shop")); gone.ID != 0 {
		t.Error("it is still there")
	}
	if err := db.Update(t.Context(), func(tx *Tx) error {
		_, err := tx.DropDamaged(damaged[0].ID)
		return err
	}); !isNotFound(err) {
		t.Errorf("dropping it again: %v", err)
	}
}
