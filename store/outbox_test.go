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

// waiting gives what is queued, whole and in order, as words.
func waiting(t *testing.T, db *DB) string {
	t.Helper()
	heads, err := db.Outbox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, head := range heads {
		q, err := db.Queued(t.Context(), head.ID)
		if err != nil || q.Name != head.Name || q.Path != eventsPath || q.Principal != head.Principal || !q.At.Equal(head.At) {
			t.Fatalf("%+v became %+v: %v", head, q, err)
		}
		words = append(words, strings.TrimRight(q.Name+"="+string(q.Object)+"+"+string(q.Patch), "+"))
	}
	return strings.Join(words, " ")
}

func wantQueue(t *testing.T, db *DB, want string) {
	t.Helper()
	if got := waiting(t, db); got != want {
		t.Fatalf("queued is %q, want %q", got, want)
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
	if heads, err := db.Outbox(t.Context()); err != nil || !heads[0].At.Equal(clock) {
		t.Errorf("an Event that was changed is %v old, %v", heads[0].At, err)
	}
	if err := errors.Join(db.Dequeue(t.Context(), b), db.Dequeue(t.Context(), b), db.Close()); err != nil {
		t.Fatal(err)
	}
	db = openAt(t, dir, Options{})
	wantQueue(t, db, "a=3+p a=4")
	if _, err := db.Queued(t.Context(), b); !errors.Is(err, ErrNotFound) {
		t.Errorf("what is not queued any more gives %v", err)
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
		{"because of another version of the schema", func(t *testing.T, db *DB) *DB {
			_, err := db.file.write.Exec(`PRAGMA user_version = 999`)
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			return openAt(t, filepath.Dir(db.Path()), Options{})
		}},
		{"because the process was killed, and the schema is of another version", func(t *testing.T, db *DB) *DB {
			if _, err := db.file.write.Exec(`PRAGMA user_version = 999`); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir() // as it is on the disk at that time
			for _, suffix := range []string{"", "-wal"} {
				raw, err := os.ReadFile(db.Path() + suffix)
				if err := errors.Join(err, os.WriteFile(filepath.Join(dir, FileName+suffix), raw, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			return openAt(t, dir, Options{})
		}},
		{"because the old one was removed", func(t *testing.T, db *DB) *DB {
			if err := errors.Join(removeDatabase(db.Path()), db.Recreate(t.Context())); err != nil {
				t.Fatal(err)
			}
			return db
		}},
		{"because the old one was found corrupt just before the end", func(t *testing.T, db *DB) *DB {
			db.file.corrupt.Store(true)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			return openAt(t, filepath.Dir(db.Path()), Options{})
		}},
		{"because the old one was found corrupt elsewhere", func(t *testing.T, db *DB) *DB {
			db.file.corrupt.Store(true)
			if _, err := db.Enqueue(t.Context(), queued("c", "3", "")); !errors.Is(err, ErrCorrupt) {
				t.Errorf("a corrupt file is written: %v", err)
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
				t.Errorf("its id leads to %q, %v", q.Name, err)
			}
			if all, err := db.Collections(t.Context(), scope("shop").Principal, "", "v1", "configmaps"); err != nil || len(all) > 0 {
				t.Errorf("it is the old file: %v %v", all, err)
			}
			enqueue(t, db, queued("c", "3", ""))
			wantQueue(t, db, "a=1+p b=2 c=3")
			if emptied, err := db.Bind(t.Context(), Owner{Authorities: []string{"another"}}); err != nil || !emptied {
				t.Errorf("the Events go to whatever cluster: emptied %v, %v", emptied, err)
			}
			wantQueue(t, db, "")
		})
	}
}

func TestAQueuedWriteThatTheDiskHasChangedIsNotRead(t *testing.T) {
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

func TestTheIDOfAQueuedWriteLeadsToNoOther(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	ids := map[int64]string{}
	next := func(name string) (id int64) {
		t.Helper()
		id = enqueue(t, db, queued(name, "1", ""))
		if other, ok := ids[id]; ok {
			t.Errorf("%s has the id of %s", name, other)
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

func TestWhatIsQueuedOnAFullDiskIsRefused(t *testing.T) {
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
	heads, err := db.Outbox(t.Context())
	if err != nil || len(heads) < 2 || heads[0].Name != "a" {
		t.Fatalf("%d are queued, %v", len(heads), err)
	}
	if err := db.Dequeue(t.Context(), heads[1].ID); err != nil {
		t.Fatal(err)
	}
	enqueue(t, db, queued("b", "2", ""))
}
