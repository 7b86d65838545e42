package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// tmpfs mounts a real file system of size bytes.
func tmpfs(t *testing.T, size int) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		t.Skip("cannot mount a file system here:", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fill leaves only enough space for the index of the log and one page.
func fill(t *testing.T, dir string) {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	filler := make([]byte, int64(fs.Bavail)*fs.Bsize-36<<10)
	if err := os.WriteFile(filepath.Join(dir, "filler"), filler, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remount(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, ""); err != nil {
		t.Skip("cannot remount a file system here:", err)
	}
}

// bulky returns an object of 8 KiB.
func bulky(name string, rv int) Object {
	o := object(name, rv)
	o.Payload = fmt.Appendf(nil, `{"name":%q,"rv":%d,"text":%q}`, name, rv, strings.Repeat(fmt.Sprintf("%08d", rv), 1<<10))
	return o
}

func TestAFullDiskLosesNoCompleteCollection(t *testing.T) {
	dir := tmpfs(t, 2<<20)
	db := openAt(t, dir, Options{})
	record(t, db, scope("shop"), "1", object("a", 1))
	var err error
	for i := 0; err == nil; i++ {
		if i > 1000 {
			t.Fatal("2 MiB are never full")
		}
		err = db.Update(t.Context(), func(tx *Tx) error { return putSingle(tx, scope(""), bulky(fmt.Sprint("o", i), i)) })
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("a full disk gives %v", err)
	}
	_, got := complete(t, db, scope("shop"))
	want(t, got, "a@1")

	// Another program had filled the disk, and frees it.
	remount(t, dir, 0)
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=32m"); err != nil {
		t.Skip(err)
	}
	record(t, db, scope("shop"), "2", object("b", 2))
	_, got = complete(t, db, scope("shop"))
	want(t, got, "b@2")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, got = complete(t, openAt(t, dir, Options{}), scope("shop"))
	want(t, got, "b@2")
}

func TestACacheOnAFullDiskCanBeOpenedAndRead(t *testing.T) {
	dir := tmpfs(t, 2<<20)
	db := openAt(t, dir, Options{})
	record(t, db, scope("shop"), "1", object("a", 1))
	filling := NewSnapshot(scope("other"), asked(db))
	update(t, db, func(tx *Tx) error { return errors.Join(filling.Add(tx, bulky("x", 2)), filling.Add(tx, bulky("y", 3))) })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	fill(t, dir)
	db = openAt(t, dir, Options{})
	_, got := complete(t, db, scope("shop"))
	want(t, got, "a@1")
	if err := db.Update(t.Context(), func(tx *Tx) error { return putSingle(tx, scope(""), bulky("o", 2)) }); !errors.Is(err, ErrFull) {
		t.Fatalf("writing to the full disk gives %v", err)
	}
}

func TestOnAFullDiskACorruptFileIsDeletedForTheNewOne(t *testing.T) {
	dir := tmpfs(t, 2<<20)
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	filler := bytes.Repeat([]byte("no database "), int(fs.Bavail*uint64(fs.Bsize)-8<<10)/12)
	if err := os.WriteFile(filepath.Join(dir, FileName), filler, 0o600); err != nil {
		t.Fatal(err)
	}
	db := openAt(t, dir, Options{})
	record(t, db, scope("shop"), "1", object("a", 1))
	_, got := complete(t, db, scope("shop"))
	want(t, got, "a@1")
}

func TestOpenFailsOnAReadOnlyDiskAndWorksOnceItIsWritable(t *testing.T) {
	dir := tmpfs(t, 8<<20)
	db := openAt(t, dir, Options{})
	record(t, db, scope("shop"), "1", object("a", 1))
	_ = db.Close() // a file open for writing would prevent the remount
	remount(t, dir, syscall.MS_RDONLY)
	if _, err := Open(t.Context(), dir, Options{}); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("Open on a read-only disk gives %v", err)
	}
	remount(t, dir, 0)
	_, got := complete(t, openAt(t, dir, Options{}), scope("shop"))
	want(t, got, "a@1")
}

// corruptFile overwrites everything in the file except its first page.
func corruptFile(t *testing.T, db *DB) {
	t.Helper()
	if _, err := db.file.write.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(db.Path(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, int(info.Size())-pageSize), pageSize)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestALostFileIsReplacedAtRunTime(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lose  func(t *testing.T, db *DB)
		kind  error
		aside bool
	}{
		{"removed", func(t *testing.T, db *DB) {
			if err := os.Remove(db.Path()); err != nil {
				t.Fatal(err)
			}
		}, ErrGone, false},
		{"removed with its log", func(t *testing.T, db *DB) {
			if err := removeDatabase(db.Path()); err != nil {
				t.Fatal(err)
			}
		}, ErrGone, false},
		{"replaced by another file", func(t *testing.T, db *DB) {
			if err := errors.Join(os.Remove(db.Path()), os.WriteFile(db.Path(), []byte("a restored file"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}, ErrGone, true},
		{"corrupt", corruptFile, ErrCorrupt, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			db := openAt(t, dir, Options{})
			if err := db.PutFact(t.Context(), "jwks", []byte("keys")); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Bind(t.Context(), Owner{Authorities: []string{"this"}}); err != nil {
				t.Fatal(err)
			}
			var objects []Object
			for i := range 100 {
				objects = append(objects, bulky(fmt.Sprintf("o%03d", i), i+1))
			}
			record(t, db, scope("shop"), "100", objects...)
			old, _ := complete(t, db, scope("shop"))
			begun := NewSnapshot(scope("shop"), asked(db))
			update(t, db, func(tx *Tx) error { return begun.Add(tx, object("x", 101)) })

			tt.lose(t, db)
			err := db.Check()
			if err == nil {
				_, err = db.List(t.Context(), old.ID, old.Revision, Range{}, func(Object) error { return nil })
			}
			if !errors.Is(err, tt.kind) {
				t.Fatalf("the loss is reported as %v", err)
			}
			if tt.kind == ErrCorrupt {
				if err := db.Update(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrCorrupt) {
					t.Errorf("writing to a corrupt file gives %v", err)
				}
			}
			if err := db.Recreate(t.Context()); err != nil {
				t.Fatal(err)
			}

			if _, err := os.Stat(db.Path() + ".corrupt"); (err == nil) != tt.aside {
				t.Errorf("renamed file: %v, want one: %v", err, tt.aside)
			}
			if _, err := db.List(t.Context(), old.ID, old.Revision, Range{}, func(Object) error { return nil }); !errors.Is(err, ErrChanged) {
				t.Errorf("reading the old file's collection gives %v", err)
			}
			if err := db.Update(t.Context(), func(tx *Tx) error { return begun.Add(tx, object("y", 102)) }); !errors.Is(err, ErrBaseGone) {
				t.Errorf("adding to a snapshot that the old file began gives %v", err)
			}
			update(t, db, begun.Abort)
			if v, _, err := db.Fact(t.Context(), "jwks"); string(v) != "keys" || err != nil {
				t.Errorf("the fact is %q %v", v, err)
			}
			record(t, db, scope("shop"), "200", object("new", 200))
			c, got := complete(t, db, scope("shop"))
			want(t, got, "new@200")
			if c.ID <= old.ID {
				t.Errorf("the new collection has the id %d, the old one had %d", c.ID, old.ID)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db = openAt(t, dir, Options{Notice: func(what string) { t.Error(what) }})
			if v, _, err := db.Fact(t.Context(), "jwks"); string(v) != "keys" || err != nil {
				t.Errorf("after a restart the fact is %q %v", v, err)
			}
			if emptied, err := db.Bind(t.Context(), Owner{Authorities: []string{"other"}}); err != nil || !emptied {
				t.Errorf("the new file has lost its owner: emptied %v, %v", emptied, err)
			}
		})
	}
}

func TestAHealthyFileIsNotReplaced(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	record(t, db, scope("shop"), "1", object("a", 1))
	if err := db.Recreate(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, got := complete(t, db, scope("shop"))
	want(t, got, "a@1")
}

func TestReadersInFlightGetAnErrorWhenTheFileIsReplaced(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	var objects []Object
	for i := range pageRows + 10 {
		objects = append(objects, object(fmt.Sprintf("o%04d", i), i+1))
	}
	record(t, db, scope("shop"), "1000", objects...)
	c, _ := complete(t, db, scope("shop"))
	if err := removeDatabase(db.Path()); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	rows := 0
	next, err := db.List(t.Context(), c.ID, c.Revision, Range{}, func(Object) error {
		if rows++; rows == 1 {
			go func() { done <- db.Recreate(context.Background()) }() // waits until this page is read
		}
		return nil
	})
	if err != nil || rows != pageRows {
		t.Fatalf("%d rows of the page: %v", rows, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := db.List(t.Context(), c.ID, c.Revision, Range{After: next}, func(Object) error { return nil }); !errors.Is(err, ErrChanged) {
		t.Fatalf("reading the next page gives %v", err)
	}
}

func TestRecreateCanBeRetriedAfterItFailed(t *testing.T) {
	dir := tmpfs(t, 8<<20)
	db := openAt(t, dir, Options{})
	record(t, db, scope("shop"), "1", object("a", 1))
	_ = db.file.close()
	if err := removeDatabase(db.Path()); err != nil {
		t.Fatal(err)
	}
	remount(t, dir, syscall.MS_RDONLY)
	if err := db.Recreate(t.Context()); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("Recreate on a read-only disk gives %v", err)
	}
	if err := db.Update(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrGone) {
		t.Errorf("writing without a file gives %v", err)
	}
	if _, err := db.Collections(t.Context(), "p", "", "v1", "configmaps"); !errors.Is(err, ErrGone) {
		t.Errorf("reading without a file gives %v", err)
	}
	remount(t, dir, 0)
	if err := db.Recreate(t.Context()); err != nil {
		t.Fatal(err)
	}
	record(t, db, scope("shop"), "2", object("b", 2))
}

// TestADamagedFileNeverReturnsAnUnrecordedPayload truncates a file at random lengths,
// zeroes pages and flips bits. SQLite detects damage to the structure of the file, the
// checksum detects damage to a payload. doc.go says which damage stays undetected.
func TestADamagedFileNeverReturnsAnUnrecordedPayload(t *testing.T) {
	seed := openAt(t, t.TempDir(), Options{})
	var objects []Object
	for i := range 60 {
		o := bulky(fmt.Sprintf("o%03d", i), i+1)
		if i%2 == 0 {
			o = object(o.Name, i+1)
		}
		objects = append(objects, o)
	}
	record(t, seed, scope("shop"), "60", objects...)
	if err := seed.Close(); err != nil {
		t.Fatal(err)
	}
	undamaged, err := os.ReadFile(seed.Path())
	if err != nil {
		t.Fatal(err)
	}
	outcomes := map[string]int{}
	base := t.TempDir()
	if os.Geteuid() == 0 {
		base = tmpfs(t, 64<<20) // faster: nothing to sync
	}
	for round := range 90 {
		r := rand.New(rand.NewPCG(uint64(round), 7))
		damaged := slices.Clone(undamaged)
		kind := []string{"cut", "zeroed", "flipped"}[round%3]
		switch kind {
		case "cut":
			damaged = damaged[:r.IntN(len(damaged))]
		case "zeroed":
			page := r.IntN(len(damaged)/pageSize) * pageSize
			clear(damaged[page : page+pageSize])
		case "flipped":
			for range 1 + r.IntN(4) {
				damaged[r.IntN(len(damaged))] ^= 1 << r.IntN(8)
			}
		}
		dir := filepath.Join(base, fmt.Sprint(round))
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, FileName), damaged, 0o600)); err != nil {
			t.Fatal(err)
		}
		db, err := Open(t.Context(), dir, Options{})
		if err != nil {
			t.Fatalf("round %d: cannot open the cache with a %s file: %v", round, kind, err)
		}
		got, err := readAll(t.Context(), db)
		switch {
		case err != nil:
			outcomes[kind+": error"]++
		case len(got) == 0:
			outcomes[kind+": nothing"]++
		case sameObjects(got, objects):
			outcomes[kind+": exact"]++
		default:
			outcomes[kind+": undetected"]++
			for _, o := range got { // the checksum does not cover names, versions and labels
				if !slices.ContainsFunc(objects, func(was Object) bool { return bytes.Equal(o.Payload, was.Payload) }) {
					t.Errorf("round %d: a %s file returns a payload that was not recorded", round, kind)
				}
			}
			if kind != "flipped" {
				t.Errorf("round %d: a %s file returns %d objects, which differ from the recorded ones", round, kind, len(got))
			}
		}
		// The next list repairs the cache, in a new file if necessary.
		for attempt := 0; ; attempt++ {
			snap := NewSnapshot(scope("shop"), asked(db))
			err := db.Update(t.Context(), func(tx *Tx) error {
				for _, o := range objects {
					if err := snap.Add(tx, o); err != nil {
						return err
					}
				}
				return snap.Commit(tx, CollectionMeta{Kind: "ConfigMap", APIVersion: "v1", ResourceVersion: "60"})
			})
			if err == nil {
				if got, err = readAll(t.Context(), db); err == nil && sameObjects(got, objects) {
					break
				}
			}
			if attempt == 2 {
				t.Fatalf("round %d: the next lists do not repair a %s file: %d objects, %v", round, kind, len(got), err)
			}
			repair := db.Recreate
			if errors.Is(err, ErrDamaged) {
				repair = func(ctx context.Context) error {
					return db.Update(ctx, func(tx *Tx) error {
						c, err := tx.Collection(scope("shop"), Complete)
						if err == nil {
							_, err = tx.DropDamaged(c.ID)
						}
						return err
					})
				}
			}
			if err := repair(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(db.Close(), os.RemoveAll(dir)); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	t.Log(outcomes)
}

func readAll(ctx context.Context, db *DB) (out []Object, err error) {
	all, err := db.Collections(ctx, scope("").Principal, "", "v1", "configmaps")
	for _, c := range all {
		if c.Scope != scope("shop") || c.State != Complete || c.ResourceVersion != "60" {
			continue
		}
		r := Range{}
		for more := true; more && err == nil; more = r.After != nil {
			r.After, err = db.List(ctx, c.ID, c.Revision, r, func(o Object) error {
				o.Payload = bytes.Clone(o.Payload)
				out = append(out, o)
				return nil
			})
		}
	}
	return out, err
}

func sameObjects(a, b []Object) bool {
	return slices.EqualFunc(a, b, func(a, b Object) bool {
		return a.Namespace == b.Namespace && a.Name == b.Name && a.UID == b.UID && a.ResourceVersion == b.ResourceVersion &&
			a.Labels == b.Labels && a.Encoding == b.Encoding && bytes.Equal(a.Payload, b.Payload)
	})
}
