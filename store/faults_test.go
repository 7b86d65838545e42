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

// tmpfs mounts a real file system of a size, in bytes.
func tmpfs(t *testing.T, size int) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system takes root")
	}
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		t.Skip("a file system cannot be mounted here:", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func remount(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, ""); err != nil {
		t.Skip("a file system cannot be mounted again here:", err)
	}
}

// bulky is an object of 8 KiB.
func bulky(name string, rv int) Object {
	o := object(name, rv)
	o.Payload = fmt.Appendf(nil, `{"name":%q,"rv":%d,"text":%q}`, name, rv, strings.Repeat(fmt.Sprintf("%08d", rv), 1<<10))
	return o
}

func TestAFullDiskLosesNothingThatWasWhole(t *testing.T) {
	dir := tmpfs(t, 2<<20)
	db := openAt(t, dir, Options{})
	record(t, db, scope("shop"), "1", object("a", 1))
	var err error
	for i := 0; err == nil; i++ {
		if i > 1000 {
			t.Fatal("2 MiB are never full")
		}
		err = db.Update(t.Context(), func(tx *Tx) error { return tx.PutSingle(scope(""), "ConfigMap", "v1", bulky(fmt.Sprint("o", i), i)) })
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("a full disk gives %v", err)
	}
	_, got := complete(t, db, scope("shop"))
	want(t, got, "a@1")

	// Somebody else had filled it.
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

func TestACacheOnAFullDiskIsOpenedAndRead(t *testing.T) {
	dir := tmpfs(t, 2<<20)
	db := openAt(t, dir, Options{})
	record(t, db, scope("shop"), "1", object("a", 1))
	filling := NewSnapshot(scope("other"))
	update(t, db, func(tx *Tx) error { return errors.Join(filling.Add(tx, bulky("x", 2)), filling.Add(tx, bulky("y", 3))) })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	// What is left is enough for the index of the log, and a page.
	hog := make([]byte, int64(fs.Bavail)*fs.Bsize-36<<10)
	if err := os.WriteFile(filepath.Join(dir, "hog"), hog, 0o600); err != nil {
		t.Fatal(err)
	}
	db = openAt(t, dir, Options{})
	_, got := complete(t, db, scope("shop"))
	want(t, got, "a@1")
	if err := db.Update(t.Context(), func(tx *Tx) error { return tx.PutSingle(scope(""), "ConfigMap", "v1", bulky("o", 2)) }); !errors.Is(err, ErrFull) {
		t.Fatalf("the disk is not full: %v", err)
	}
}

func TestACorruptFileMakesRoomForTheNewOneOnAFullDisk(t *testing.T) {
	dir := tmpfs(t, 2<<20)
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	hog := bytes.Repeat([]byte("no database "), int(fs.Bavail*uint64(fs.Bsize)-8<<10)/12)
	if err := os.WriteFile(filepath.Join(dir, FileName), hog, 0o600); err != nil {
		t.Fatal(err)
	}
	db := openAt(t, dir, Options{})
	record(t, db, scope("shop"), "1", object("a", 1))
	_, got := complete(t, db, scope("shop"))
	want(t, got, "a@1")
}

func TestAReadOnlyDiskIsReadOnAndWrittenLater(t *testing.T) {
	dir := tmpfs(t, 8<<20)
	db := openAt(t, dir, Options{})
	record(t, db, scope("shop"), "1", object("a", 1))
	_ = db.Close() // a file system with a file open for writing stays writable
	remount(t, dir, syscall.MS_RDONLY)
	if _, err := Open(t.Context(), dir, Options{}); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("a read-only disk gives %v", err)
	}
	remount(t, dir, 0)
	_, got := complete(t, openAt(t, dir, Options{}), scope("shop"))
	want(t, got, "a@1")
}

// spoil overwrites everything in the file but its first page.
func spoil(t *testing.T, db *DB) {
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

func TestALostFileIsReplacedWhileRunning(t *testing.T) {
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
		{"removed with its companions", func(t *testing.T, db *DB) {
			if err := removeDatabase(db.Path()); err != nil {
				t.Fatal(err)
			}
		}, ErrGone, false},
		{"replaced by another file", func(t *testing.T, db *DB) {
			if err := errors.Join(os.Remove(db.Path()), os.WriteFile(db.Path(), []byte("what somebody restored"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}, ErrGone, true},
		{"corrupt", spoil, ErrCorrupt, true},
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
			begun := NewSnapshot(scope("shop"))
			update(t, db, func(tx *Tx) error { return begun.Add(tx, object("x", 101)) })

			tt.lose(t, db)
			err := db.Check()
			if err == nil {
				_, err = db.List(t.Context(), old.ID, old.Revision, Range{}, func(Object) error { return nil })
			}
			if !errors.Is(err, tt.kind) {
				t.Fatalf("it is noticed as %v", err)
			}
			if tt.kind == ErrCorrupt {
				if err := db.Update(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrCorrupt) {
					t.Errorf("a corrupt file is written: %v", err)
				}
			}
			if err := db.Recreate(t.Context()); err != nil {
				t.Fatal(err)
			}

			if _, err := os.Stat(db.Path() + ".corrupt"); (err == nil) != tt.aside {
				t.Errorf("set aside: %v", err)
			}
			if _, err := db.List(t.Context(), old.ID, old.Revision, Range{}, func(Object) error { return nil }); !errors.Is(err, ErrChanged) {
				t.Errorf("the old file's collection is read: %v", err)
			}
			if err := db.Update(t.Context(), func(tx *Tx) error { return begun.Add(tx, object("y", 102)) }); !errors.Is(err, ErrBaseGone) {
				t.Errorf("a snapshot goes on in another file: %v", err)
			}
			update(t, db, begun.Abort)
			if v, _, err := db.Fact(t.Context(), "jwks"); string(v) != "keys" || err != nil {
				t.Errorf("the fact is %q %v", v, err)
			}
			record(t, db, scope("shop"), "200", object("new", 200))
			c, got := complete(t, db, scope("shop"))
			want(t, got, "new@200")
			if c.ID <= old.ID {
				t.Errorf("id %d leads to a new collection, it was %d before", c.ID, old.ID)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db = openAt(t, dir, Options{Notice: func(what string) { t.Error(what) }})
			if v, _, err := db.Fact(t.Context(), "jwks"); string(v) != "keys" || err != nil {
				t.Errorf("after a restart the fact is %q %v", v, err)
			}
			if emptied, err := db.Bind(t.Context(), Owner{Authorities: []string{"other"}}); err != nil || !emptied {
				t.Errorf("the new file is of no cluster: emptied %v %v", emptied, err)
			}
		})
	}
}

func TestAFileThatIsWellIsNotReplaced(t *testing.T) {
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
			go func() { done <- db.Recreate(context.Background()) }() // waits for this page
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
		t.Fatalf("the next page gives %v", err)
	}
}

func TestADirectoryThatCannotTakeANewFileIsTriedAgain(t *testing.T) {
	dir := tmpfs(t, 8<<20)
	db := openAt(t, dir, Options{})
	record(t, db, scope("shop"), "1", object("a", 1))
	_ = db.file.close()
	if err := removeDatabase(db.Path()); err != nil {
		t.Fatal(err)
	}
	remount(t, dir, syscall.MS_RDONLY)
	if err := db.Recreate(t.Context()); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("recreated on a read-only disk: %v", err)
	}
	if err := db.Update(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrGone) {
		t.Errorf("without a file writing gives %v", err)
	}
	if _, err := db.Collections(t.Context(), "p", "", "v1", "configmaps"); !errors.Is(err, ErrGone) {
		t.Errorf("without a file reading gives %v", err)
	}
	remount(t, dir, 0)
	if err := db.Recreate(t.Context()); err != nil {
		t.Fatal(err)
	}
	record(t, db, scope("shop"), "2", object("b", 2))
}

// TestADamagedFileNeverGivesWhatWasNotRecorded cuts a file at random lengths, zeroes
// pages and flips bits. SQLite notices what breaks its structure, the checksum what
// breaks a payload; the rest is in doc.go.
func TestADamagedFileNeverGivesWhatWasNotRecorded(t *testing.T) {
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
	whole, err := os.ReadFile(seed.Path())
	if err != nil {
		t.Fatal(err)
	}
	outcomes := map[string]int{}
	base := t.TempDir()
	if os.Geteuid() == 0 {
		base = tmpfs(t, 64<<20) // has nothing to wait for
	}
	for round := range 90 {
		r := rand.New(rand.NewPCG(uint64(round), 7))
		damaged := slices.Clone(whole)
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
			t.Fatalf("round %d: a %s file keeps the cache from opening: %v", round, kind, err)
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
			outcomes[kind+": unnoticed"]++
			for _, o := range got { // names and the like are not under the checksum
				if !slices.ContainsFunc(objects, func(was Object) bool { return bytes.Equal(o.Payload, was.Payload) }) {
					t.Errorf("round %d: a %s file gives a payload that was not recorded", round, kind)
				}
			}
			if kind != "flipped" {
				t.Errorf("round %d: a %s file gives %d objects that are not those recorded", round, kind, len(got))
			}
		}
		// It heals with the next list, and if need be in a new file.
		for attempt := 0; ; attempt++ {
			snap := NewSnapshot(scope("shop"))
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
				t.Fatalf("round %d: a %s file does not heal: %d objects, %v", round, kind, len(got), err)
			}
			if err := db.Recreate(t.Context()); err != nil {
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
