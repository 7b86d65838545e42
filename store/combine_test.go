package store

import (
	"errors"
	"testing"
)

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
		"409, then a Table of a cache":      {answer{Exists, "", Latest}, answer{Exists, "9", Lagging}, answer{Exists, "9", Latest}},
		"409, then a Table":                 {answer{Exists, "", Latest}, answer{Exists, "9", Latest}, answer{Exists, "9", Latest}},
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
	list := VerbatimList{Namespace: "shop", Evidence: table, Objects: func() ([]Object, bool) { return nil, true }}
	if newer, err := db.Superseded(t.Context(), scope("").Of(), list); err != nil || !newer {
		t.Errorf("the answer that made it doubtful is given: %v", err)
	}
}

func TestWhatWasSaidOfTheLatestStateIsNotWeakerForALaggingAnswer(t *testing.T) {
	key := Key{"shop", "a"}
	put := func(tx *Tx, version int, e Evidence) error {
		o := object("a", version)
		o.Asked, o.Told, o.Read = e.Asked, e.Told, e.Read
		return tx.PutSingle(scope(""), "ConfigMap", "v1", o)
	}
	for name, tell := range map[string]func(tx *Tx, latest, lagging Evidence) error{
		"a POST, then a GET": func(tx *Tx, latest, lagging Evidence) error {
			return errors.Join(put(tx, 8, latest), put(tx, 8, lagging))
		},
		"a 409, then a Table": func(tx *Tx, latest, lagging Evidence) error {
			lagging.Version = "8"
			return errors.Join(tx.Observe(scope("").Of(), key, latest), tx.Observe(scope("").Of(), key, lagging))
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			record(t, db, scope("shop"), "10") // after this the cluster is restored to a version below
			latest, lagging := said(db, Exists, "", Latest), said(db, Exists, "", Lagging)
			update(t, db, func(tx *Tx) error { return tell(tx, latest, lagging) })
			known, err := db.Known(t.Context(), scope("").Of(), key, "", "")
			if err != nil {
				t.Fatal(err)
			}
			var all []Evidence
			for i := range known.States {
				all = append(all, known.States[i].Evidence())
			}
			for _, o := range known.Observations {
				all = append(all, o.Evidence)
			}
			if len(all) != 1 || len(known.Lists) != 1 {
				t.Fatalf("known: %+v", known)
			}
			if known.Lists[0].Position().Newer(all[0]) {
				t.Errorf("the list is newer than %+v", all[0])
			}
		})
	}
}

func TestARefusalDoesNotLiftADoubt(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	key := Key{Namespace: "shop"}
	doubt := said(db, Unknown, "12", Lagging)
	observe(t, db, key, said(db, Refused, "", Latest))
	observe(t, db, key, doubt) // as of a list that is evicted only then
	if o, _ := observed(t, db, key); o.Says != Unknown {
		t.Errorf("observed: %+v", o)
	}
}
