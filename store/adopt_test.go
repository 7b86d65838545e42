package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// openBound opens a database of an owner.
func openBound(t *testing.T, dir, cluster string) *DB {
	t.Helper()
	db := openAt(t, dir, Options{Notice: func(what string) { t.Log(what) }})
	if cluster != "" {
		if _, err := db.Bind(t.Context(), Owner{Authorities: []string{cluster}, Account: "uid"}); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

func TestQueuedWritesOfASlotThatWasLeftAreAdopted(t *testing.T) {
	for name, tt := range map[string]struct {
		from, to string // their owners
		killed   bool
		want     string
		left     string
		err      error
	}{
		"after a proper end":             {"c", "c", false, "mine=1 shared=2 a=3+p b=4", "", nil},
		"after a kill":                   {"c", "c", true, "mine=1 shared=2 a=3+p b=4", "", nil},
		"of another cluster, not":        {"other", "c", false, "mine=1 shared=2", "a=3+p b=4 shared=5", ErrOwner},
		"of nobody knows whom, not":      {"", "c", false, "mine=1 shared=2", "a=3+p b=4 shared=5", ErrOwner},
		"before the owner is known, not": {"c", "", false, "mine=1 shared=2", "a=3+p b=4 shared=5", ErrOwner},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			from, to := openBound(t, dir, tt.from), openBound(t, t.TempDir(), tt.to)
			enqueue(t, to, queued("mine", "1", ""))
			enqueue(t, to, queued("shared", "2", ""))
			for _, q := range []Queued{queued("a", "3", "p"), queued("b", "4", ""), queued("shared", "5", "")} {
				enqueue(t, from, q)
			}
			if tt.killed {
				left := t.TempDir()
				copyDatabase(t, dir, left)
				dir = left
			} else if err := from.Close(); err != nil {
				t.Fatal(err)
			}
			n, err := to.Adopt(t.Context(), dir)
			if !errors.Is(err, tt.err) || tt.err == nil && (n != 3 || err != nil) {
				t.Errorf("%d, %v", n, err)
			}
			wantQueue(t, to, tt.want)
			wantQueue(t, openAt(t, dir, Options{}), tt.left)
			if n, err := to.Adopt(t.Context(), dir); tt.err == nil && (n != 0 || err != nil) {
				t.Errorf("again: %d, %v", n, err)
			}
			enqueue(t, to, queued("new", "6", ""))
			wantQueue(t, to, tt.want+" new=6")
		})
	}
}

// copyDatabase copies a database in use, as a kill would leave it.
func copyDatabase(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		raw, err := os.ReadFile(filepath.Join(from, FileName+suffix))
		if err != nil || len(raw) == 0 {
			t.Fatalf("%s: %d bytes, %v", suffix, len(raw), err)
		}
		if err := os.WriteFile(filepath.Join(to, FileName+suffix), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The janitor goes by the time of the last change.
func TestALookAtASlotWithoutQueuedWritesLeavesNoTrace(t *testing.T) {
	dir := t.TempDir()
	from, to := openBound(t, dir, "c"), openBound(t, t.TempDir(), "c")
	if err := from.Close(); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour).Truncate(time.Second)
	file := filepath.Join(dir, FileName)
	for _, path := range []string{file, dir} {
		if err := os.Chtimes(path, past, past); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := to.Adopt(t.Context(), dir); n != 0 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	for _, path := range []string{file, dir} {
		if info, err := os.Stat(path); err != nil || !info.ModTime().Equal(past) {
			t.Errorf("%s was changed at %v, %v", path, info.ModTime(), err)
		}
	}
	for name, dir := range map[string]string{"no database": t.TempDir(), "no directory": filepath.Join(dir, "none")} {
		if n, err := to.Adopt(t.Context(), dir); n != 0 || err != nil {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
	if err := os.WriteFile(file, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := to.Adopt(t.Context(), dir); n != 0 || err != nil {
		t.Errorf("a damaged one: %d, %v", n, err)
	}
}

func TestASeedReplacesADatabaseAndKeepsItsQueuedWrites(t *testing.T) {
	for name, tt := range map[string]struct {
		owner string // of the database that is replaced
		want  string
	}{
		"of the same owner": {"c", "a=1 b=2"},
		"of another owner":  {"other", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, source := t.TempDir(), t.TempDir()
			old := openBound(t, dir, tt.owner)
			record(t, old, scope("shop"), "10", object("old", 5))
			enqueue(t, old, queued("a", "1", ""))
			enqueue(t, old, queued("b", "2", ""))
			left := t.TempDir() // killed
			copyDatabase(t, dir, left)
			fresh := openBound(t, source, "c")
			record(t, fresh, scope("shop"), "20", object("new", 15))
			if err := Seed(t.Context(), left, source); err != nil {
				t.Fatal(err)
			}
			db := openAt(t, left, Options{})
			_, got := complete(t, db, scope("shop"))
			want(t, got, "new@15")
			wantQueue(t, db, tt.want)
			wantFiles(t, left)
		})
	}
}

// wantFiles fails if a directory has other files than those of an open database.
func wantFiles(t *testing.T, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		switch f.Name() {
		case FileName, FileName + "-wal", FileName + "-shm":
		default:
			t.Errorf("%s is left", f.Name())
		}
	}
}

func TestAnInterruptedSeedLeavesTheDatabaseAndItsQueuedWrites(t *testing.T) {
	dir := t.TempDir()
	old := openBound(t, dir, "c")
	record(t, old, scope("shop"), "10", object("old", 5))
	enqueue(t, old, queued("a", "1", ""))
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if err := setPrevious(t.Context(), filepath.Join(dir, FileName)); err != nil {
		t.Fatal(err)
	}
	source := t.TempDir()
	record(t, openBound(t, source, "c"), scope("shop"), "20", object("new", 15))
	if err := Seed(t.Context(), dir, source); err == nil {
		t.Error("a second seed replaced the database before its writes were adopted")
	}
	db := openAt(t, dir, Options{})
	_, got := complete(t, db, scope("shop"))
	want(t, got, "old@5")
	wantQueue(t, db, "a=1")
	wantFiles(t, dir)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Seed(t.Context(), dir, source); err != nil {
		t.Error(err)
	}
}

func TestASeedDoesNotReplaceTheDatabaseOfAnotherProgram(t *testing.T) {
	dir, source := t.TempDir(), t.TempDir()
	record(t, openBound(t, source, "c"), scope("shop"), "20", object("new", 15))
	other := openOther(filepath.Join(dir, FileName), "mode=rwc")
	if _, err := other.Exec("CREATE TABLE theirs (x)"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(other.Close(), Seed(t.Context(), dir, source)); !errors.Is(err, ErrForeign) {
		t.Errorf("%v", err)
	}
}
