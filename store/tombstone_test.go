package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

func tombstone(t *testing.T, db *DB, name string) (Tombstone, bool) {
	t.Helper()
	got, err := db.Tombstone(t.Context(), scope("").Principal, "", "configmaps", "shop", name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	return got, err == nil
}

func TestATombstoneSupersedesEarlierRecords(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	singles := scope("")
	record(t, db, scope("shop"), "20", object("a", 19))
	record(t, db, scope(""), "10", object("a", 5), object("b", 6))
	update(t, db, func(tx *Tx) error {
		return errors.Join(tx.PutSingle(singles, "ConfigMap", "v1", object("a", 18)), tx.PutSingle(singles, "ConfigMap", "v1", object("b", 6)))
	})
	putTombstone := func(name, uid string, at time.Time) {
		update(t, db, func(tx *Tx) error {
			return tx.PutTombstone(Deletion{Scope: singles, Namespace: "shop", Name: name, UID: uid, Asked: at, At: at})
		})
	}
	putTombstone("a", "", clock.Add(time.Second))
	got, ok := tombstone(t, db, "a")
	if !ok || !slices.Equal(got.UIDs, []string{"uid-a"}) || got.ResourceVersion != "20" || !got.At.Equal(clock.Add(time.Second)) {
		t.Fatalf("%+v %v", got, ok)
	}
	if c, got := complete(t, db, scope("shop")); c.ResourceVersion != "20" || !slices.Equal(got, []string{"a@19"}) {
		t.Errorf("the list changed: %v", got)
	}
	all, err := db.Collections(t.Context(), singles.Principal, "", "v1", "configmaps")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if got := names(t, db, c, Range{}); c.State == Single && !slices.Equal(got, []string{"b@6"}) {
			t.Errorf("the singles are %v", got)
		}
	}

	putTombstone("b", "", clock) // asked in the millisecond in which b was recorded: b may be newer
	if got, _ := tombstone(t, db, "b"); len(got.UIDs) != 0 || got.ResourceVersion != "" {
		t.Errorf("a record that may be newer is superseded: %+v", got)
	}
	putTombstone("b", "uid-b", clock) // unless the uid proves that b was deleted
	if got, _ := tombstone(t, db, "b"); !slices.Equal(got.UIDs, []string{"uid-b"}) || got.ResourceVersion != "6" {
		t.Errorf("the deleted object is not superseded: %+v", got)
	}
	putTombstone("b", "uid-other", clock.Add(-time.Hour))
	if got, _ := tombstone(t, db, "b"); !slices.Equal(got.UIDs, []string{"uid-b", "uid-other"}) || !got.At.Equal(clock) {
		t.Errorf("the second tombstone lacks the uid or the time of the first: %+v", got)
	}
}

func TestATombstoneIsNotRewrittenForEachRequest(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	putTombstone := func(at time.Time) time.Time {
		update(t, db, func(tx *Tx) error {
			return tx.PutTombstone(Deletion{Scope: scope(""), Namespace: "shop", Name: "a", Asked: at, At: at})
		})
		got, _ := tombstone(t, db, "a")
		return got.At
	}
	for _, step := range []struct{ asked, want time.Duration }{{0, 0}, {time.Second, 0}, {59 * time.Second, 0}, {61 * time.Second, 61 * time.Second}} {
		if got := putTombstone(clock.Add(step.asked)).Sub(clock); got != step.want {
			t.Errorf("after %v the tombstone's time is %v, want %v", step.asked, got, step.want)
		}
	}
	record(t, db, scope("shop"), "20", object("a", 19))
	if got := putTombstone(clock.Add(62 * time.Second)).Sub(clock); got != 62*time.Second {
		t.Errorf("the object recorded meanwhile is not superseded: the tombstone's time is %v", got)
	}
}

func TestATombstoneDoesNotSupersedeARecreatedObject(t *testing.T) {
	now := clock
	db, err := Open(t.Context(), t.TempDir(), Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	record(t, db, scope("shop"), "20", object("a", 19))
	asked := clock.Add(time.Second)
	now = asked.Add(time.Second)
	recreated := object("a", 22)
	recreated.UID = "another"
	// The watch delivers the new object before the answer to the DELETE arrives.
	record(t, db, scope("shop"), "25", recreated)
	update(t, db, func(tx *Tx) error {
		return tx.PutTombstone(Deletion{Scope: scope(""), Namespace: "shop", Name: "a", UID: "uid-a", Asked: asked, At: now.Add(time.Second)})
	})
	if got, _ := tombstone(t, db, "a"); !slices.Equal(got.UIDs, []string{"uid-a"}) || got.ResourceVersion != "" {
		t.Fatalf("%+v", got)
	}
}

func TestANewerAnswerRemovesATombstone(t *testing.T) {
	at := func(seconds int) time.Time { return clock.Add(time.Duration(seconds) * time.Second) }
	other := scope("other")
	without := func(tx *Tx) error {
		return NewSnapshot(scope("shop")).Commit(tx, CollectionMeta{ResourceVersion: "20"})
	}
	for name, tt := range map[string]struct {
		change func(*Tx) error
		gone   bool
	}{
		"the object was read later":      {func(tx *Tx) error { return tx.DropTombstone(scope("shop"), "shop", "a", at(20)) }, true},
		"the object was read earlier":    {func(tx *Tx) error { return tx.DropTombstone(scope("shop"), "shop", "a", at(5)) }, false},
		"another object was read":        {func(tx *Tx) error { return tx.DropTombstone(scope("shop"), "shop", "b", at(20)) }, false},
		"a later list of the namespace":  {func(tx *Tx) error { return errors.Join(without(tx), tx.DropTombstones(scope("shop"), at(20))) }, true},
		"a later list of all namespaces": {func(tx *Tx) error { return errors.Join(without(tx), tx.DropTombstones(scope(""), at(20))) }, true},
		"a later list, but an older list still has the object": {func(tx *Tx) error {
			return errors.Join(NewSnapshot(scope("")).Commit(tx, CollectionMeta{ResourceVersion: "20"}), tx.DropTombstones(scope(""), at(20)))
		}, false},
		"a later list with the object, of a restored cluster": {func(tx *Tx) error {
			s := NewSnapshot(scope(""))
			return errors.Join(s.Add(tx, object("a", 5)), s.Commit(tx, CollectionMeta{ResourceVersion: "20"}), tx.DropTombstones(scope(""), at(20)))
		}, true},
		"a later list, and the object was recreated": {func(tx *Tx) error {
			again := object("a", 12)
			again.UID = "another"
			return errors.Join(without(tx), tx.PutSingle(scope(""), "ConfigMap", "v1", again), tx.DropTombstones(scope("shop"), at(20)))
		}, true},
		"an earlier list":                                {func(tx *Tx) error { return tx.DropTombstones(scope(""), at(5)) }, false},
		"a later list of another namespace":              {func(tx *Tx) error { return tx.DropTombstones(other, at(20)) }, false},
		"the cluster was restored to an earlier version": {func(tx *Tx) error { return tx.DropRolledBack(scope("shop"), 3, at(20), 0) }, true},
		"the server is at a later version":               {func(tx *Tx) error { return tx.DropRolledBack(scope("shop"), 100, at(20), 0) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			record(t, db, scope("shop"), "10", object("a", 5))
			update(t, db, func(tx *Tx) error {
				return tx.PutTombstone(Deletion{Scope: scope(""), Namespace: "shop", Name: "a", Asked: at(10), At: at(10)})
			})
			update(t, db, tt.change)
			if _, there := tombstone(t, db, "a"); there == tt.gone {
				t.Errorf("the tombstone is there: %v", there)
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
	if got, _ := tombstone(t, db, "same"); len(got.UIDs) != maxUIDs || got.UIDs[maxUIDs-1] != fmt.Sprint(maxUIDs+4) {
		t.Errorf("uids: %v", got.UIDs)
	}
	var n int
	if err := db.file.read.QueryRow(`SELECT count(*) FROM v_tombstone`).Scan(&n); err != nil || n > maxTombstones {
		t.Errorf("%d tombstones: %v", n, err)
	}
	if _, first := tombstone(t, db, "0"); first {
		t.Error("the oldest tombstone is still there")
	}
	if _, last := tombstone(t, db, fmt.Sprint(maxTombstones+9)); !last {
		t.Error("the latest tombstone is not there")
	}
}

func TestSinglesAreDroppedByNamespace(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	other := object("a", 1)
	other.Namespace = "far"
	update(t, db, func(tx *Tx) error {
		return errors.Join(tx.PutSingle(scope(""), "ConfigMap", "v1", object("a", 1)), tx.PutSingle(scope(""), "ConfigMap", "v1", other), tx.DropSingles(scope("shop")))
	})
	all, err := db.Collections(t.Context(), scope("").Principal, "", "v1", "configmaps")
	if err != nil || len(all) != 1 {
		t.Fatalf("%v %v", all, err)
	}
	if _, _, err := db.Object(t.Context(), all[0].ID, "shop", "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the single of the namespace: %v", err)
	}
	if _, _, err := db.Object(t.Context(), all[0].ID, "far", "a"); err != nil {
		t.Errorf("the single of another namespace: %v", err)
	}
}
