package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const eventsPath = "/api/v1/namespaces/shop/events"

func queued(name, object, patch string) Queued {
	return Queued{Principal: "web", Path: eventsPath, Name: name, At: clock, Object: []byte(object), Patch: []byte(patch)}
}

func enqueue(t *testing.T, db *DB, q Queued) int64 {
	t.Helper()
	id, err := db.Enqueue(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// queueContents returns the complete queued writes in order, as words.
func queueContents(t *testing.T, db *DB) string {
	t.Helper()
	rows, err := db.Outbox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, row := range rows {
		q, err := db.Queued(t.Context(), row.ID)
		if err != nil || q.Name != row.Name || q.Path != eventsPath || q.Principal != row.Principal || !q.At.Equal(row.At) {
			t.Fatalf("%+v became %+v: %v", row, q, err)
		}
		words = append(words, strings.TrimRight(q.Name+"="+string(q.Object)+"+"+string(q.Patch), "+"))
	}
	return strings.Join(words, " ")
}

func wantQueue(t *testing.T, db *DB, want string) {
	t.Helper()
	if got := queueContents(t, db); got != want {
		t.Fatalf("the queue is %q, want %q", got, want)
	}
}

func TestTheOutboxKeepsTheOrderOfAcceptance(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir, Options{})
	a := enqueue(t, db, queued("a", "1", ""))
	b := enqueue(t, db, queued("b", "2", ""))
	later := queued("a", "3", "p")
	later.At = clock.Add(time.Hour)
	if again := enqueue(t, db, later); again != a {
		t.Errorf("the same Event has the ids %d and %d", a, again)
	}
	other := queued("a", "4", "")
	other.Principal = "other"
	enqueue(t, db, other)
	wantQueue(t, db, "a=3+p b=2 a=4")
	if rows, err := db.Outbox(t.Context()); err != nil || !rows[0].At.Equal(clock) {
		t.Errorf("a changed Event is queued at %v, not when it was first queued: %v", rows[0].At, err)
	}
	if err := errors.Join(db.Dequeue(t.Context(), b), db.Dequeue(t.Context(), b), db.Close()); err != nil {
		t.Fatal(err)
	}
	db = openAt(t, dir, Options{})
	wantQueue(t, db, "a=3+p a=4")
	if _, err := db.Queued(t.Context(), b); !errors.Is(err, ErrNotFound) {
		t.Errorf("reading a dequeued write gives %v", err)
	}
	if _, err := db.Bind(t.Context(), Owner{Authorities: []string{"this"}}); err != nil {
		t.Fatal(err)
	}
	if emptied, err := db.Bind(t.Context(), Owner{Authorities: []string{"another"}}); err != nil || !emptied {
		t.Fatal(emptied, err)
	}
	wantQueue(t, db, "")
}

func TestTheOutboxIsCarriedOverToANewFile(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose func(t *testing.T, db *DB) *DB
	}{
		{"because the file has another schema version", func(t *testing.T, db *DB) *DB {
			_, err := db.file.write.Exec(`PRAGMA user_version = 999`)
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			return openAt(t, filepath.Dir(db.Path()), Options{})
		}},
		{"because the process was killed and the file has another schema version", func(t *testing.T, db *DB) *DB {
			if _, err := db.file.write.Exec(`PRAGMA user_version = 999`); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir() // a copy of the files as the killed process leaves them
			for _, suffix := range []string{"", "-wal"} {
				raw, err := os.ReadFile(db.Path() + suffix)
				if err := errors.Join(err, os.WriteFile(filepath.Join(dir, FileName+suffix), raw, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			return openAt(t, dir, Options{})
		}},
		{"because the old file was removed", func(t *testing.T, db *DB) *DB {
			if err := errors.Join(removeDatabase(db.Path()), db.Recreate(t.Context())); err != nil {
				t.Fatal(err)
			}
			return db
		}},
		{"because the old file was found corrupt just before Close", func(t *testing.T, db *DB) *DB {
			db.file.corrupt.Store(true)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			return openAt(t, filepath.Dir(db.Path()), Options{})
		}},
		{"because another operation found the old file corrupt", func(t *testing.T, db *DB) *DB {
			db.file.corrupt.Store(true)
			if _, err := db.Enqueue(t.Context(), queued("c", "3", "")); !errors.Is(err, ErrCorrupt) {
				t.Errorf("writing to a corrupt file gives %v", err)
			}
			if err := db.Recreate(t.Context()); err != nil {
				t.Fatal(err)
			}
			return db
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			gone := enqueue(t, db, queued("gone", "0", ""))
			enqueue(t, db, queued("a", "1", "p"))
			b := enqueue(t, db, queued("b", "2", ""))
			if err := db.Dequeue(t.Context(), gone); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Bind(t.Context(), Owner{Authorities: []string{"this"}}); err != nil {
				t.Fatal(err)
			}
			record(t, db, scope("shop"), "1", object("a", 1))
			db = tt.lose(t, db)
			wantQueue(t, db, "a=1+p b=2")
			if q, err := db.Queued(t.Context(), b); err != nil || q.Name != "b" {
				t.Errorf("the id of b leads to %q, %v", q.Name, err)
			}
			if all, err := db.Collections(t.Context(), scope("shop").Principal, "", "v1", "configmaps"); err != nil || len(all) > 0 {
				t.Errorf("the new file has collections of the old one: %v %v", all, err)
			}
			enqueue(t, db, queued("c", "3", ""))
			wantQueue(t, db, "a=1+p b=2 c=3")
			if emptied, err := db.Bind(t.Context(), Owner{Authorities: []string{"another"}}); err != nil || !emptied {
				t.Errorf("the Events are kept for another cluster: emptied %v, %v", emptied, err)
			}
			wantQueue(t, db, "")
		})
	}
}

func TestAQueuedWriteWithAWrongChecksumIsNotRead(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	a := enqueue(t, db, queued("a", "1", ""))
	enqueue(t, db, queued("b", "2", ""))
	if _, err := db.file.write.Exec(`UPDATE outbox SET object = '9' WHERE name = 'a'`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Queued(t.Context(), a); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("it gives %v", err)
	}
	if err := db.Recreate(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantQueue(t, db, "b=2")
}

func TestTheIDOfAQueuedWriteIsNotReused(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	ids := map[int64]string{}
	next := func(name string) (id int64) {
		t.Helper()
		id = enqueue(t, db, queued(name, "1", ""))
		if other, ok := ids[id]; ok {
			t.Errorf("%s has the id that %s had", name, other)
		}
		ids[id] = name
		return id
	}
	if err := db.Dequeue(t.Context(), next("delivered")); err != nil {
		t.Fatal(err)
	}
	lost := next("lost with the file")
	if _, err := db.file.write.Exec(`UPDATE outbox SET object = '9'`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Queued(t.Context(), lost); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("it gives %v", err)
	}
	if err := db.Recreate(t.Context()); err != nil {
		t.Fatal(err)
	}
	next("the first of the new file")
	wantQueue(t, db, "the first of the new file=1")
}

func TestEnqueueFailsOnAFullDisk(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{MaxSize: 4 << 20})
	enqueue(t, db, queued("a", "1", ""))
	var err error
	for i := 0; err == nil; i++ {
		if i > 1000 {
			t.Fatal("4 MiB are never full")
		}
		_, err = db.Enqueue(t.Context(), queued(strings.Repeat("x", i+1), strings.Repeat("y", 64<<10), ""))
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("a full disk gives %v", err)
	}
	rows, err := db.Outbox(t.Context())
	if err != nil || len(rows) < 2 || rows[0].Name != "a" {
		t.Fatalf("%d are queued, %v", len(rows), err)
	}
	if err := db.Dequeue(t.Context(), rows[1].ID); err != nil {
		t.Fatal(err)
	}
	enqueue(t, db, queued("b", "2", ""))
}
