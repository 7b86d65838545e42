package store

import (
	"fmt"
	"os"
	"testing"
)

// settled gives the size of the file with everything in it.
func settled(t *testing.T, db *DB) int64 {
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

func fill(t *testing.T, db *DB, scopes, objects int) {
	t.Helper()
	for s := range scopes {
		var list []Object
		for i := range objects {
			list = append(list, bulky(fmt.Sprintf("o%03d", i), i+1))
		}
		record(t, db, scope(fmt.Sprint("n", s)), "100", list...)
	}
}

func TestWhatIsEvictedIsGivenBack(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{MaxSize: 16 << 20})
	fill(t, db, 12, 100)
	before := settled(t, db)
	if _, err := db.Evict(t.Context(), 2<<20, func(Scope) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if size := settled(t, db); size != before {
		t.Fatalf("eviction alone makes the file smaller, from %d to %d bytes: Shrink is of no use", before, size)
	}
	size := before
	for step := 0; ; step++ {
		if err := db.Shrink(t.Context()); err != nil {
			t.Fatal(err)
		}
		now := settled(t, db)
		if size-now > shrinkStep*pageSize*11/10 {
			t.Fatalf("one step has written all of %d bytes anew", size-now)
		}
		if now == size {
			break
		}
		size = now
		if step > 10 {
			t.Fatal("it never ends")
		}
	}
	if most := int64(2<<20 + 16<<20/10 + 64<<10); size > most {
		t.Fatalf("the file has %d bytes, want at most %d: what is used and a tenth of the quota", size, most)
	}
	var verdict string
	if err := db.file.write.QueryRow(`PRAGMA integrity_check`).Scan(&verdict); err != nil || verdict != "ok" {
		t.Fatal(verdict, err)
	}
}

func TestAQuotaThatWasLoweredIsKept(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir, Options{MaxSize: 16 << 20})
	fill(t, db, 12, 100)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	const quota = 4 << 20
	db = openAt(t, dir, Options{MaxSize: quota})
	if _, err := db.Evict(t.Context(), quota*8/10, func(Scope) bool { return false }); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := db.Shrink(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if size := settled(t, db); size > quota {
		t.Fatalf("the file has %d bytes of %d", size, quota)
	}
	var pages int64
	if err := db.file.write.QueryRow(`PRAGMA max_page_count`).Scan(&pages); err != nil || pages*pageSize > quota {
		t.Fatalf("it may grow to %d bytes of %d: %v", pages*pageSize, quota, err)
	}
}

func TestARelistWithNothingChangedWritesLessThanAHundredth(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	var list []Object
	payload := int64(0)
	for i := range 500 {
		o := bulky(fmt.Sprintf("o%03d", i), i+1)
		list, payload = append(list, o), payload+int64(len(o.Payload))
	}
	record(t, db, scope("shop"), "100", list...)
	before := settled(t, db)
	record(t, db, scope("shop"), "200", list...)
	log, err := os.Stat(db.Path() + "-wal") // was empty, and takes whatever is written
	if err != nil {
		t.Fatal(err)
	}
	if log.Size() == 0 || log.Size() > payload/100 {
		t.Errorf("%d bytes were written for %d of payload", log.Size(), payload)
	}
	if size := settled(t, db); size != before {
		t.Errorf("the file went from %d to %d bytes", before, size)
	}
}
