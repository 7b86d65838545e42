package store

import (
	"fmt"
	"os"
	"testing"
)

// checkpointedSize merges the log into the file and returns the file's size.
func checkpointedSize(t *testing.T, db *DB) int64 {
	t.Helper()
	if _, err := db.file.write.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(db.Path())
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func recordScopes(t *testing.T, db *DB, scopes, objects int) {
	t.Helper()
	for s := range scopes {
		var list []Object
		for i := range objects {
			list = append(list, bulky(fmt.Sprintf("o%03d", i), i+1))
		}
		record(t, db, scope(fmt.Sprint("n", s)), "100", list...)
	}
}

func TestShrinkReturnsEvictedPagesToTheFileSystem(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{MaxSize: 16 << 20})
	recordScopes(t, db, 12, 100)
	before := checkpointedSize(t, db)
	if _, err := db.Evict(t.Context(), 2<<20, func(Collection) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if size := checkpointedSize(t, db); size != before {
		t.Fatalf("eviction alone shrinks the file from %d to %d bytes: Shrink is not needed", before, size)
	}
	size := before
	for step := 0; ; step++ {
		if err := db.Shrink(t.Context()); err != nil {
			t.Fatal(err)
		}
		now := checkpointedSize(t, db)
		if size-now > shrinkStep*pageSize*11/10 {
			t.Fatalf("one step moved %d bytes, more than shrinkStep pages", size-now)
		}
		if now == size {
			break
		}
		size = now
		if step > 10 {
			t.Fatal("Shrink still makes the file smaller after 10 steps")
		}
	}
	if most := int64(2<<20 + 16<<20/10 + 64<<10); size > most {
		t.Fatalf("the file has %d bytes, want at most %d: the data and a tenth of the quota", size, most)
	}
	var verdict string
	if err := db.file.write.QueryRow(`PRAGMA integrity_check`).Scan(&verdict); err != nil || verdict != "ok" {
		t.Fatal(verdict, err)
	}
}

func TestAFileAboveALoweredQuotaShrinksToIt(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir, Options{MaxSize: 16 << 20})
	recordScopes(t, db, 12, 100)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	const quota = 4 << 20
	db = openAt(t, dir, Options{MaxSize: quota})
	if _, err := db.Evict(t.Context(), quota*8/10, func(Collection) bool { return false }); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := db.Shrink(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if size := checkpointedSize(t, db); size > quota {
		t.Fatalf("the file has %d bytes, the quota is %d", size, quota)
	}
	var pages int64
	if err := db.file.write.QueryRow(`PRAGMA max_page_count`).Scan(&pages); err != nil || pages*pageSize > 2*quota {
		t.Fatalf("the file may grow to %d bytes, twice the quota is %d: %v", pages*pageSize, 2*quota, err)
	}
}

func TestAnUnchangedRelistWritesLessThanAHundredth(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	var list []Object
	payload := int64(0)
	for i := range 500 {
		o := bulky(fmt.Sprintf("o%03d", i), i+1)
		list, payload = append(list, o), payload+int64(len(o.Payload))
	}
	record(t, db, scope("shop"), "100", list...)
	before := checkpointedSize(t, db)
	record(t, db, scope("shop"), "200", list...)
	// The checkpoint emptied the log, so it holds the writes of the second list only.
	log, err := os.Stat(db.Path() + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if log.Size() == 0 || log.Size() > payload/100 {
		t.Errorf("%d bytes were written for a payload of %d", log.Size(), payload)
	}
	if size := checkpointedSize(t, db); size != before {
		t.Errorf("the file grew from %d to %d bytes", before, size)
	}
}
