package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestSeedCopiesAnotherDatabase(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	db := openAt(t, from, Options{}) // stays open: another pod is using it
	record(t, db, scope("shop"), "10", object("a", 5), object("b", 6))
	filling := NewSnapshot(scope("other"), asked(db))
	update(t, db, func(tx *Tx) error {
		return errors.Join(filling.Add(tx, object("c", 7)), tx.PutLink("online", "a reason"),
			tx.PutResponse(Response{Principal: "p", Path: "/version", Accept: "*/*", Status: 200, Body: []byte("{}")}),
			tx.PutResponse(Response{Principal: "p", Path: "/review", Question: "digest", Status: 201, Body: []byte("sealed")}))
	})
	id, err := db.Enqueue(t.Context(), Queued{Principal: "p", Path: "/api/v1/namespaces/shop/events", Name: "e", At: clock, Object: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.PutFact(t.Context(), "jwks", []byte("keys")); err != nil {
		t.Fatal(err)
	}
	if err := Seed(t.Context(), to, from); err != nil {
		t.Fatal(err)
	}

	copied := openAt(t, to, Options{Notice: func(what string) { t.Error(what) }})
	all, err := copied.Collections(t.Context(), scope("").Principal, "", "v1", "configmaps")
	if err != nil || len(all) != 1 || all[0].ResourceVersion != "10" {
		t.Fatalf("%+v %v", all, err)
	}
	for _, name := range []string{"a", "b"} {
		if payload(t, copied, all[0].ID, name) == "" {
			t.Errorf("%s is missing", name)
		}
	}
	if keys, _, err := copied.Fact(t.Context(), "jwks"); string(keys) != "keys" || err != nil {
		t.Errorf("the fact is %q %v", keys, err)
	}
	for query, want := range map[string]int{
		`SELECT count(*) FROM object`:                             2,
		`SELECT count(*) FROM response`:                           1,
		`SELECT count(*) FROM link`:                               0,
		`SELECT count(*) FROM outbox`:                             0,
		`SELECT auto_vacuum = 2 FROM pragma_auto_vacuum`:          1,
		`SELECT journal_mode = 'wal' FROM pragma_journal_mode`:    1,
		`SELECT page_size FROM pragma_page_size`:                  pageSize,
		`SELECT count(*) FROM collection WHERE state = 'filling'`: 0,
	} {
		var n int
		if err := copied.file.read.QueryRow(query).Scan(&n); err != nil || n != want {
			t.Errorf("%s: %d %v, want %d", query, n, err, want)
		}
	}

	// The other pod still has its unfinished snapshot and its queued write.
	update(t, db, func(tx *Tx) error { return filling.Commit(tx, CollectionMeta{ResourceVersion: "20"}) })
	if _, err := db.Queued(t.Context(), id); err != nil {
		t.Errorf("the queued write of the other pod: %v", err)
	}
}

// A process that ends while it removes a database may leave the log. SQLite applies a log to
// any database of the same name.
func TestSeedDeletesTheLogOfAnEarlierDatabase(t *testing.T) {
	from, to, before := t.TempDir(), t.TempDir(), t.TempDir()
	record(t, openAt(t, from, Options{}), scope("shop"), "10", object("a", 5))
	record(t, openAt(t, before, Options{}), scope("shop"), "99", object("z", 9))
	log, err := os.ReadFile(filepath.Join(before, FileName+"-wal"))
	if err != nil || len(log) == 0 {
		t.Fatalf("no log: %d bytes, %v", len(log), err)
	}
	if err := os.WriteFile(filepath.Join(to, FileName+"-wal"), log, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Seed(t.Context(), to, from); err != nil {
		t.Fatal(err)
	}
	copied := openAt(t, to, Options{Notice: func(what string) { t.Error(what) }})
	_, got := complete(t, copied, scope("shop"))
	want(t, got, "a@5")
}

func TestAFailedSeedLeavesNoFiles(t *testing.T) {
	openWithData := func(t *testing.T, dir string) *DB {
		db := openAt(t, dir, Options{})
		record(t, db, scope("shop"), "10", object("a", 5))
		return db
	}
	for name, tt := range map[string]struct {
		from    func(t *testing.T, dir string)
		missing bool // there is nothing to copy; Seed returns ErrNotFound
	}{
		"there is no database": {func(*testing.T, string) {}, true},
		"nothing is recorded":  {func(t *testing.T, dir string) { openAt(t, dir, Options{}) }, true},
		"the database is damaged": {func(t *testing.T, dir string) {
			if err := openWithData(t, dir).Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, FileName), []byte("SQLite format 3\x00 and nothing else"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
		"the database has another schema version": {func(t *testing.T, dir string) {
			if _, err := openWithData(t, dir).file.write.Exec("PRAGMA user_version = 1000"); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := t.TempDir(), t.TempDir()
			tt.from(t, from)
			if err := Seed(t.Context(), to, from); err == nil || errors.Is(err, ErrNotFound) != tt.missing {
				t.Errorf("%v", err)
			}
			wantEmpty(t, to)
		})
	}
	t.Run("the context has ended", func(t *testing.T) {
		from, to := t.TempDir(), t.TempDir()
		openWithData(t, from)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := Seed(ctx, to, from); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		wantEmpty(t, to)
	})
	t.Run("an earlier seed was interrupted", func(t *testing.T) {
		from, to := t.TempDir(), t.TempDir()
		openWithData(t, from)
		if err := os.WriteFile(filepath.Join(to, FileName+seedSuffix), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Seed(t.Context(), to, from); err != nil {
			t.Error(err)
		}
	})
	t.Run("an earlier seed was interrupted, and now there is no database to copy", func(t *testing.T) {
		to := t.TempDir()
		for _, suffix := range []string{"", "-journal"} {
			if err := os.WriteFile(filepath.Join(to, FileName+seedSuffix+suffix), []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := Seed(t.Context(), to, t.TempDir()); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v", err)
		}
		wantEmpty(t, to)
	})
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("files are left: %v %v", files, err)
	}
}
