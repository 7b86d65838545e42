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
	known, err := db.Known(t.Context(), scope("").Of(), key)
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
	if known, err := db.Known(t.Context(), scope("").Of(), Key{"shop", "b"}); err != nil || len(known.States) != 0 {
		t.Errorf("the single is still there: %v %v", known.States, err)
	}
	observe(t, db, Key{"shop", "a"}, said(db, Gone, "25", Stream, "uid-another"))
	if o, _ := observed(t, db, Key{"shop", "a"}); !slices.Equal(o.UIDs, []string{"uid-a", "uid-another"}) {
		t.Errorf("the uids are %v", o.UIDs)
	}
}

func TestWhatTwoAnswersSayOfAKey(t *testing.T) {
	type answer struct {
		says    Says
		version string
		read    Read
	}
	for name, tt := range map[string]struct {
		old, fresh, want answer
	}{
		"404, then a doubt":                 {answer{Gone, "", Latest}, answer{Unknown, "", Latest}, answer{Unknown, "", Latest}},
		"a doubt, then 404":                 {answer{Unknown, "", Latest}, answer{Gone, "", Latest}, answer{Gone, "", Latest}},
		"404, then 409":                     {answer{Gone, "", Latest}, answer{Exists, "", Latest}, answer{Unknown, "", Latest}},
		"409 twice":                         {answer{Exists, "", Latest}, answer{Exists, "", Latest}, answer{Exists, "", Latest}},
		"a scale, then 409":                 {answer{Exists, "12", Latest}, answer{Exists, "", Latest}, answer{Exists, "12", Latest}},
		"404, then a scale":                 {answer{Gone, "", Latest}, answer{Exists, "12", Latest}, answer{Exists, "12", Latest}},
		"404, then a 404 of a cache":        {answer{Gone, "", Latest}, answer{Gone, "", Lagging}, answer{Gone, "", Latest}},
		"a scale, then a 404 of a cache":    {answer{Exists, "12", Latest}, answer{Gone, "", Lagging}, answer{Unknown, "", Latest}},
		"a deletion at a version, then 404": {answer{Gone, "12", Stream}, answer{Gone, "", Latest}, answer{Gone, "", Latest}},
		"refused twice":                     {answer{Refused, "", Latest}, answer{Refused, "", Latest}, answer{Refused, "", Latest}},
	} {
		t.Run(name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			record(t, db, scope("other"), "10")
			key := Key{"shop", "a"}
			observe(t, db, key, said(db, tt.old.says, tt.old.version, tt.old.read))
			observe(t, db, key, said(db, tt.fresh.says, tt.fresh.version, tt.fresh.read))
			o, _ := observed(t, db, key)
			if got := (answer{o.Says, o.Version, o.Read}); got != tt.want {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestADoubtIsNotLiftedByWhatIsOlderThanTheStatesThatItCovers(t *testing.T) {
	key := Key{"shop", "a"}
	for name, tell := range map[string]func(*Tx, Evidence) error{
		"a state": func(tx *Tx, told Evidence) error {
			o := object("a", 14)
			o.Asked, o.Told, o.Read = told.Asked, told.Told, told.Read
			return tx.PutSingle(scope(""), "ConfigMap", "v1", o)
		},
		"that it exists": func(tx *Tx, told Evidence) error { return tx.Observe(scope("").Of(), key, told) },
	} {
		t.Run(name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			before := said(db, Exists, "14", Latest, "uid-a")
			doubt := said(db, Unknown, "", Latest) // it is written first
			doubt.Floor = "12"
			observe(t, db, key, doubt)
			update(t, db, func(tx *Tx) error { return tell(tx, before) })
			observe(t, db, key, said(db, Gone, "13", Stream, "uid-another"))
			if o, _ := observed(t, db, key); o.Says != Unknown || o.Floor != "14" {
				t.Errorf("after an older event it is %+v", o)
			}
			observe(t, db, key, said(db, Gone, "15", Stream, "uid-a"))
			if o, _ := observed(t, db, key); o.Says != Gone {
				t.Errorf("after a newer event it is %+v", o)
			}
		})
	}
}

func TestADoubtThatTwoAnswersMakeIsNeitherOfThem(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	key := Key{"shop", "a"}
	observe(t, db, key, said(db, Unknown, "", Latest))
	table := said(db, Gone, "9", Lagging)
	observe(t, db, key, table)
	list := VerbatimList{Namespace: "shop", Evidence: table, Parsed: true}
	if newer, err := db.Superseded(t.Context(), scope("").Of(), list); err != nil || !newer {
		t.Errorf("the answer that made it doubtful is given: %v", err)
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
