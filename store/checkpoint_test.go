package store

import (
	"os"
	"testing"
)

func TestCheckpointsAreHeldBack(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	s := scope("shop")
	size := func(suffix string) int64 {
		info, err := os.Stat(db.path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	fill := func(name string) {
		s.Namespace = name
		recordInGroups(t, db, s, pods(1000, 3400)) // more than checkpointPages
	}
	if err := db.HoldCheckpoints(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	before := size("")
	fill("a")
	fill("b")
	if after := size(""); after != before || size("-wal") < 2*checkpointPages*pageSize/2 {
		t.Errorf("the file has %d bytes, before %d, and the log %d", after, before, size("-wal"))
	}
	if err := db.HoldCheckpoints(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	record(t, db, scope("other"), "100", object("a", 1))
	if after := size(""); after < 2*1000*3400 {
		t.Errorf("the file has %d bytes after the next commit", after)
	}
}

func TestTheHeldLogIsBoundedByTheQuota(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{MaxSize: 64 << 20})
	if err := db.HoldCheckpoints(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		s := scope(name)
		recordInGroups(t, db, s, pods(1000, 3400))
	}
	info, err := os.Stat(db.path + "-wal")
	if err != nil || info.Size() > 3*64<<20/heldShare {
		t.Errorf("the log has %d bytes: %v", info.Size(), err)
	}
}
