package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

func grave(t *testing.T, db *DB, name string) (Tombstone, bool) {
	t.Helper()
	g, err := db.Tombstone(t.Context(), scope("").Principal, "", "configmaps", "shop", name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	return g, err == nil
}

func TestATombstoneHidesWhatWasKnownBefore(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	seen := scope("")
	record(t, db, scope("shop"), "20", object("a", 19))
	record(t, db, scope(""), "10", object("a", 5), object("b", 6))
	update(t, db, func(tx *Tx) error {
		return errors.Join(tx.PutSingle(seen, "ConfigMap", "v1", object("a", 18)), tx.PutSingle(seen, "ConfigMap", "v1", object("b", 6)))
	})
	bury := func(name, uid string, at time.Time) {
		update(t, db, func(tx *Tx) error {
			return tx.PutTombstone(Deletion{Scope: seen, Namespace: "shop", Name: name, UID: uid, Asked: at, At: at})
		})
	}
	bury("a", "", clock.Add(time.Second))
	g, ok := grave(t, db, "a")
	if !ok || !slices.Equal(g.UIDs, []string{"uid-a"}) || g.ResourceVersion != "20" || !g.At.Equal(clock.Add(time.Second)) {
		t.Fatalf("%+v %v", g, ok)
	}
	if c, got := complete(t, db, scope("shop")); c.ResourceVersion != "20" || !slices.Equal(got, []string{"a@19"}) {
		t.Errorf("the list has changed: %v", got)
	}
	all, err := db.Collections(t.Context(), seen.Principal, "", "v1", "configmaps")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if got := names(t, db, c, Range{}); c.State == Single && !slices.Equal(got, []string{"b@6"}) {
			t.Errorf("of what was read alone there is %v", got)
		}
	}

	bury("b", "", clock) // asked when this was recorded: it may be newer
	if g, _ := grave(t, db, "b"); len(g.UIDs) != 0 || g.ResourceVersion != "" {
		t.Errorf("what may be newer is hidden: %+v", g)
	}
	bury("b", "uid-b", clock) // unless it is the very one
	if g, _ := grave(t, db, "b"); !slices.Equal(g.UIDs, []string{"uid-b"}) || g.ResourceVersion != "6" {
		t.Errorf("the one that was deleted is not hidden: %+v", g)
	}
	bury("b", "uid-other", clock.Add(-time.Hour))
	if g, _ := grave(t, db, "b"); !slices.Equal(g.UIDs, []string{"uid-b", "uid-other"}) || !g.At.Equal(clock) {
		t.Errorf("a second burial has forgotten the first: %+v", g)
	}
}

func TestATombstoneIsNotWrittenAgainForEachQuestion(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	bury := func(at time.Time) time.Time {
		update(t, db, func(tx *Tx) error {
			return tx.PutTombstone(Deletion{Scope: scope(""), Namespace: "shop", Name: "a", Asked: at, At: at})
		})
		g, _ := grave(t, db, "a")
		return g.At
	}
	for _, step := range []struct{ asked, want time.Duration }{{0, 0}, {time.Second, 0}, {59 * time.Second, 0}, {61 * time.Second, 61 * time.Second}} {
		if got := bury(clock.Add(step.asked)).Sub(clock); got != step.want {
			t.Errorf("asked after %v it is of %v, want %v", step.asked, got, step.want)
		}
	}
	record(t, db, scope("shop"), "20", object("a", 19))
	if got := bury(clock.Add(62 * time.Second)).Sub(clock); got != 62*time.Second {
		t.Errorf("what was seen meanwhile is not hidden: it is of %v", got)
	}
}

func TestWhatWasMadeAnewWhileTheOldOneWasDeletedIsNotHidden(t *testing.T) {
	now := clock
	db, err := Open(t.Context(), t.TempDir(), Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	record(t, db, scope("shop"), "20", object("a", 19))
	asked := clock.Add(time.Second)
	now = asked.Add(time.Second)
	anew := object("a", 22)
	anew.UID = "another"
	record(t, db, scope("shop"), "25", anew) // as the watch brings it, before the answer to the delete is there
	update(t, db, func(tx *Tx) error {
		return tx.PutTombstone(Deletion{Scope: scope(""), Namespace: "shop", Name: "a", UID: "uid-a", Asked: asked, At: now.Add(time.Second)})
	})
	if g, _ := grave(t, db, "a"); !slices.Equal(g.UIDs, []string{"uid-a"}) || g.ResourceVersion != "" {
		t.Fatalf("%+v", g)
	}
}

func TestANewerWordRemovesATombstone(t *testing.T) {
	at := func(seconds int) time.Time { return clock.Add(time.Duration(seconds) * time.Second) }
	other := scope("other")
	without := func(tx *Tx) error {
		return NewSnapshot(scope("shop")).Commit(tx, CollectionMeta{ResourceVersion: "20"})
	}
	for name, tt := range map[string]struct {
		change func(*Tx) error
		gone   bool
	}{
		"the object was seen after that":      {func(tx *Tx) error { return tx.DropTombstone(scope("shop"), "shop", "a", at(20)) }, true},
		"the object was seen before that":     {func(tx *Tx) error { return tx.DropTombstone(scope("shop"), "shop", "a", at(5)) }, false},
		"another object was seen":             {func(tx *Tx) error { return tx.DropTombstone(scope("shop"), "shop", "b", at(20)) }, false},
		"a list of the namespace after that":  {func(tx *Tx) error { return errors.Join(without(tx), tx.DropTombstones(scope("shop"), at(20))) }, true},
		"a list of all namespaces after that": {func(tx *Tx) error { return errors.Join(without(tx), tx.DropTombstones(scope(""), at(20))) }, true},
		"a list, but an older one has it": {func(tx *Tx) error {
			return errors.Join(NewSnapshot(scope("")).Commit(tx, CollectionMeta{ResourceVersion: "20"}), tx.DropTombstones(scope(""), at(20)))
		}, false},
		"a list that has it, of a cluster that was restored": {func(tx *Tx) error {
			s := NewSnapshot(scope(""))
			return errors.Join(s.Add(tx, object("a", 5)), s.Commit(tx, CollectionMeta{ResourceVersion: "20"}), tx.DropTombstones(scope(""), at(20)))
		}, true},
		"a list, and there is a new one": {func(tx *Tx) error {
			again := object("a", 12)
			again.UID = "another"
			return errors.Join(without(tx), tx.PutSingle(scope(""), "ConfigMap", "v1", again), tx.DropTombstones(scope("shop"), at(20)))
		}, true},
		"a list from before that":              {func(tx *Tx) error { return tx.DropTombstones(scope(""), at(5)) }, false},
		"a list of another namespace":          {func(tx *Tx) error { return tx.DropTombstones(other, at(20)) }, false},
		"the cluster was restored from before": {func(tx *Tx) error { return tx.DropRolledBack(scope("shop"), 3, at(20), 0) }, true},
		"the server is at a later version":     {func(tx *Tx) error { return tx.DropRolledBack(scope("shop"), 100, at(20), 0) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			record(t, db, scope("shop"), "10", object("a", 5))
			update(t, db, func(tx *Tx) error {
				return tx.PutTombstone(Deletion{Scope: scope(""), Namespace: "shop", Name: "a", Asked: at(10), At: at(10)})
			})
			update(t, db, tt.change)
			if _, there := grave(t, db, "a"); there == tt.gone {
				t.Errorf("there is a tombstone: %v", there)
			}
		})
	}
}

func TestTombstonesAreBounded(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	update(t, db, func(tx *Tx) error {
		for i := range maxTombstones + 10 {
			if err := tx.PutTombstone(Deletion{Scope: scope(""), Namespace: "shop", Name: fmt.Sprint(i), Asked: clock, At: clock}); err != nil {
				return err
			}
		}
		for i := range maxUIDs + 5 {
			if err := tx.PutTombstone(Deletion{Scope: scope(""), Namespace: "shop", Name: "same", UID: fmt.Sprint(i), Asked: clock, At: clock}); err != nil {
				return err
			}
		}
		return nil
	})
	if g, _ := grave(t, db, "same"); len(g.UIDs) != maxUIDs || g.UIDs[maxUIDs-1] != fmt.Sprint(maxUIDs+4) {
		t.Errorf("uids: %v", g.UIDs)
	}
	var n int
	if err := db.file.read.QueryRow(`SELECT count(*) FROM v_tombstone`).Scan(&n); err != nil || n > maxTombstones {
		t.Errorf("%d tombstones: %v", n, err)
	}
	if _, first := grave(t, db, "0"); first {
		t.Error("the oldest is still there")
	}
	if _, last := grave(t, db, fmt.Sprint(maxTombstones+9)); !last {
		t.Error("the latest is not there")
	}
}

func TestWhatWasReadAloneIsForgottenByNamespace(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	far := object("a", 1)
	far.Namespace = "far"
	update(t, db, func(tx *Tx) error {
		return errors.Join(tx.PutSingle(scope(""), "ConfigMap", "v1", object("a", 1)), tx.PutSingle(scope(""), "ConfigMap", "v1", far), tx.DropSingles(scope("shop")))
	})
	all, err := db.Collections(t.Context(), scope("").Principal, "", "v1", "configmaps")
	if err != nil || len(all) != 1 {
		t.Fatalf("%v %v", all, err)
	}
	if _, _, err := db.Object(t.Context(), all[0].ID, "shop", "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("in the namespace: %v", err)
	}
	if _, _, err := db.Object(t.Context(), all[0].ID, "far", "a"); err != nil {
		t.Errorf("in another: %v", err)
	}
}
