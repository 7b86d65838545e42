package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
)

var clock = time.UnixMilli(1_700_000_000_000)

func openAt(t *testing.T, dir string, opts Options) *DB {
	t.Helper()
	opts.Now = func() time.Time { return clock }
	db, err := Open(t.Context(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func scope(namespace string) Scope {
	return Scope{Principal: "system:serviceaccount:shop:web", Version: "v1", Resource: "configmaps", Representation: "object", Namespace: namespace, MediaType: "application/json"}
}

func object(name string, rv int) Object {
	return Object{Namespace: "shop", Name: name, UID: "uid-" + name, ResourceVersion: fmt.Sprint(rv), Labels: `{"app":"` + name + `"}`, Encoding: JSONBare,
		Payload: fmt.Appendf(nil, `{"metadata":{"name":%q,"resourceVersion":"%d"}}`, name, rv)}
}

// asked is when a list of the latest state was asked for and came: now.
func asked(db *DB) Evidence { return Evidence{Asked: db.Next(), Told: db.Next(), Read: Latest} }

func update(t *testing.T, db *DB, f func(*Tx) error) {
	t.Helper()
	if err := db.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// record makes a complete collection of objects.
func record(t *testing.T, db *DB, s Scope, rv string, objects ...Object) {
	t.Helper()
	snap := NewSnapshot(s, asked(db))
	update(t, db, func(tx *Tx) error {
		for _, o := range objects {
			if err := snap.Add(tx, o); err != nil {
				return err
			}
		}
		return snap.Commit(tx, CollectionMeta{Kind: "ConfigMap", APIVersion: "v1", Envelope: `{"kind":"ConfigMapList"}`, ResourceVersion: rv})
	})
}

// putSingle records an object that was read alone, now.
func putSingle(tx *Tx, s Scope, o Object) error {
	o.Asked, o.Told, o.Read = tx.db.Next(), tx.db.Next(), Latest
	return tx.PutSingle(s, "ConfigMap", "v1", o)
}

// payload returns the recorded payload of an object in a collection, empty if it is not there.
func payload(t *testing.T, db *DB, collection int64, name string) string {
	t.Helper()
	known, err := db.Known(t.Context(), scope("").Of(), Key{"shop", name}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range known.States {
		if s.Collection.ID == collection {
			raw, err := db.Payload(t.Context(), &s)
			if err != nil {
				t.Fatal(err)
			}
			return string(raw)
		}
	}
	return ""
}

// complete returns the scope's complete collection and its objects as name@version.
func complete(t *testing.T, db *DB, s Scope) (Collection, []string) {
	t.Helper()
	all, err := db.Collections(t.Context(), s.Principal, s.Group, s.Version, s.Resource)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if c.Scope == s && c.State == Complete {
			return c, names(t, db, c, Range{})
		}
	}
	return Collection{}, nil
}

func names(t *testing.T, db *DB, c Collection, r Range) (out []string) {
	t.Helper()
	for {
		next, err := db.List(t.Context(), c.ID, c.Revision, r, func(o Object) error {
			out = append(out, o.Name+"@"+o.ResourceVersion)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if next == nil {
			return out
		}
		r.After = next
	}
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestASnapshotIsInvisibleUntilItIsCommitted(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir, Options{})
	record(t, db, scope("shop"), "10", object("a", 1), object("b", 2))

	snap := NewSnapshot(scope("shop"), asked(db))
	update(t, db, func(tx *Tx) error { return snap.Add(tx, object("a", 11)) })
	c, got := complete(t, db, scope("shop"))
	want(t, got, "a@1", "b@2")
	if c.ResourceVersion != "10" || c.Kind != "ConfigMap" || !c.SyncedAt.Equal(clock) {
		t.Fatalf("collection %+v", c)
	}
	update(t, db, func(tx *Tx) error { return snap.Add(tx, object("c", 12)) })
	update(t, db, func(tx *Tx) error { return snap.Commit(tx, CollectionMeta{ResourceVersion: "12"}) })
	c, got = complete(t, db, scope("shop"))
	want(t, got, "a@11", "c@12")
	if c.ResourceVersion != "12" {
		t.Fatalf("collection at %s", c.ResourceVersion)
	}
}

func TestAnUnfinishedSnapshotLeavesTheOldCollection(t *testing.T) {
	for _, how := range []string{"aborted", "dropped at a restart"} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			db := openAt(t, dir, Options{})
			record(t, db, scope("shop"), "10", object("a", 1))
			snap := NewSnapshot(scope("shop"), asked(db))
			update(t, db, func(tx *Tx) error { return snap.Add(tx, object("b", 11)) })
			if how == "aborted" {
				update(t, db, snap.Abort)
			} else {
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				db = openAt(t, dir, Options{})
			}
			_, got := complete(t, db, scope("shop"))
			want(t, got, "a@1")
			var rows int
			if err := db.file.read.QueryRow(`SELECT (SELECT count(*) FROM object) + (SELECT count(*) FROM collection)`).Scan(&rows); err != nil || rows != 2 {
				t.Fatalf("%d rows are left, want 2: the collection and its object: %v", rows, err)
			}
		})
	}
}

func TestAnUnchangedRelistWritesNoPayload(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	record(t, db, scope("shop"), "10", object("a", 1), object("b", 2))
	before := changes(t, db)
	record(t, db, scope("shop"), "20", object("a", 1), object("b", 2))
	if n := changes(t, db) - before; n != 1 {
		t.Fatalf("%d rows were written, want 1, of the collection", n)
	}
	c, got := complete(t, db, scope("shop"))
	want(t, got, "a@1", "b@2")
	if c.ResourceVersion != "20" {
		t.Fatalf("at %s", c.ResourceVersion)
	}
}

func TestAnObjectThatChangedUnderTheSameVersionIsWritten(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	record(t, db, scope("shop"), "10", object("a", 1))
	restored := object("a", 1)
	restored.Payload = []byte(`{"metadata":{"name":"a"},"data":{"restored":"yes"}}`)
	record(t, db, scope("shop"), "5", restored)
	c, _ := complete(t, db, scope("shop"))
	if got := payload(t, db, c.ID, "a"); got != string(restored.Payload) {
		t.Fatal(got)
	}
}

// changes counts the rows that the writing connection has changed so far.
func changes(t *testing.T, db *DB) (n int) {
	t.Helper()
	if err := db.file.write.QueryRow(`SELECT total_changes()`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAListRemovesAnObjectThatAnEventAddedMeanwhile(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	record(t, db, scope("shop"), "10", object("a", 1))
	snap := NewSnapshot(scope("shop"), asked(db))
	update(t, db, func(tx *Tx) error { return snap.Add(tx, object("a", 1)) })
	// The server created and deleted an object; only the first event has arrived.
	update(t, db, func(tx *Tx) error {
		c, err := tx.Collection(scope("shop"), Complete)
		if err != nil {
			return err
		}
		return errors.Join(tx.Put(c.ID, object("passing", 11)), tx.Advance(c.ID, Move{ResourceVersion: "11", Changed: "11", Told: db.Next()}))
	})
	update(t, db, func(tx *Tx) error { return snap.Commit(tx, CollectionMeta{ResourceVersion: "20"}) })
	_, got := complete(t, db, scope("shop"))
	want(t, got, "a@1")
}

func TestTheIDOfARolledBackCollectionIsNotReused(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	broken := NewSnapshot(scope("shop"), asked(db))
	boom := errors.New("boom")
	if err := db.Update(t.Context(), func(tx *Tx) error {
		return errors.Join(broken.Add(tx, object("x", 1)), boom)
	}); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	record(t, db, scope("shop"), "10", object("a", 1))
	update(t, db, broken.Abort)
	_, got := complete(t, db, scope("shop"))
	want(t, got, "a@1")
}

func TestScopesAreSeparate(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	narrow := scope("shop")
	narrow.LabelSelector = "app=a"
	other := scope("shop")
	other.Principal = "somebody else"
	record(t, db, scope("shop"), "10", object("a", 1), object("b", 2))
	record(t, db, narrow, "11", object("a", 1))
	record(t, db, other, "12", object("c", 3))
	_, got := complete(t, db, scope("shop"))
	want(t, got, "a@1", "b@2")
	_, got = complete(t, db, narrow)
	want(t, got, "a@1")
	_, got = complete(t, db, other)
	want(t, got, "c@3")
	all, err := db.Collections(t.Context(), narrow.Principal, "", "v1", "configmaps")
	if err != nil || len(all) != 2 {
		t.Fatalf("%d collections of the principal: %v", len(all), err)
	}
}

func TestPagesComeFromOneRevisionOrFail(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	var objects []Object
	var all []string
	for i := range pageRows*2 + 7 {
		o := object(fmt.Sprintf("o%05d", i), i+1)
		objects, all = append(objects, o), append(all, o.Name+"@"+o.ResourceVersion)
	}
	record(t, db, scope("shop"), "5000", objects...)
	c, got := complete(t, db, scope("shop"))
	want(t, got, all...)

	next, err := db.List(t.Context(), c.ID, c.Revision, Range{}, func(Object) error { return nil })
	if err != nil || next == nil {
		t.Fatalf("first page: next %v, %v", next, err)
	}
	update(t, db, func(tx *Tx) error {
		return errors.Join(tx.Remove(c.ID, "shop", "o00900"), tx.Advance(c.ID, Move{ResourceVersion: "5001", Changed: "5001", Told: db.Next()}))
	})
	if _, err = db.List(t.Context(), c.ID, c.Revision, Range{After: next}, func(Object) error { return nil }); !errors.Is(err, ErrChanged) {
		t.Fatalf("the second page of a changed collection gives %v", err)
	}
}

func TestARangeSelectsByNamespaceAndName(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	b := object("b", 2)
	b.Namespace = "bar"
	record(t, db, scope(""), "10", object("a", 1), b)
	c, got := complete(t, db, scope(""))
	want(t, got, "b@2", "a@1") // by namespace, then name
	want(t, names(t, db, c, Range{Namespace: "shop"}), "a@1")
	want(t, names(t, db, c, Range{Namespace: "shop", Name: "b"}))
}

func TestListingUsesAnIndexAndDoesNotSort(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	for _, where := range []string{"", " AND namespace = 'x'", " AND (namespace, name) > ('x', 'y')"} {
		steps := plan(t, db, `SELECT payload FROM object WHERE collection_id = 1`+where+` ORDER BY namespace, name LIMIT 500`)
		if s := strings.Join(steps, "; "); !strings.Contains(s, "USING INDEX") || strings.Contains(s, "TEMP B-TREE") {
			t.Errorf("where%s: %s", where, s)
		}
	}
}

func TestSinglesAreSeparateFromLists(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	update(t, db, func(tx *Tx) error {
		return errors.Join(putSingle(tx, scope(""), object("a", 1)), putSingle(tx, scope(""), object("b", 2)))
	})
	update(t, db, func(tx *Tx) error {
		return tx.Observe(scope("").Of(), Key{"shop", "b"}, Evidence{Says: Gone, Asked: db.Next(), Told: db.Next(), Read: Latest})
	})
	all, err := db.Collections(t.Context(), scope("").Principal, "", "v1", "configmaps")
	if err != nil || len(all) != 1 || all[0].State != Single || all[0].Kind != "ConfigMap" {
		t.Fatalf("%+v %v", all, err)
	}
	if payload(t, db, all[0].ID, "a") == "" {
		t.Fatal("it is not recorded")
	}
	if payload(t, db, all[0].ID, "b") != "" {
		t.Fatal("it is still recorded")
	}
}

func TestResponsesFactsAndTheOwner(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir, Options{})
	r := Response{Principal: "p", Path: "/apis?x=1", Accept: "application/json", Status: 200, MediaType: "application/json", ETag: `"e"`, Body: []byte(`{}`)}
	for range 2 {
		update(t, db, func(tx *Tx) error { return tx.PutResponse(r) })
	}
	got, err := db.Response(t.Context(), "p", "/apis?x=1", "application/json")
	if err != nil || string(got.Body) != `{}` || got.ETag != `"e"` || !got.StoredAt.Equal(clock) {
		t.Fatalf("%+v %v", got, err)
	}
	if _, err := db.Response(t.Context(), "q", "/apis?x=1", "application/json"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("another principal's response: %v", err)
	}
	if err := db.PutFact(t.Context(), "jwks", []byte("keys")); err != nil {
		t.Fatal(err)
	}
	if v, _, err := db.Fact(t.Context(), "jwks"); err != nil || string(v) != "keys" {
		t.Fatalf("%s %v", v, err)
	}
	if v, _, err := db.Fact(t.Context(), "unknown"); err != nil || v != nil {
		t.Fatalf("%s %v", v, err)
	}
	for _, step := range []struct {
		owner   Owner
		emptied bool
	}{
		{Owner{[]string{"a"}, ""}, false},
		{Owner{[]string{"a"}, ""}, false},
		{Owner{[]string{"a", "b"}, ""}, false},
		{Owner{[]string{"b"}, "first"}, false}, // now the account is known
		{Owner{[]string{"b"}, ""}, false},
		{Owner{[]string{"b"}, "second"}, true},
	} {
		emptied, err := db.Bind(t.Context(), step.owner)
		if err != nil || emptied != step.emptied {
			t.Fatalf("%v: emptied %v %v", step.owner, emptied, err)
		}
	}
	if _, err := db.Response(t.Context(), "p", "/apis?x=1", "application/json"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("the response of a deleted account is left: %v", err)
	}
	update(t, db, func(tx *Tx) error { return tx.PutResponse(r) })
	if emptied, err := db.Bind(t.Context(), Owner{[]string{"c"}, "second"}); err != nil || !emptied {
		t.Fatalf("another cluster: emptied %v %v", emptied, err)
	}
	if _, err := db.Response(t.Context(), "p", "/apis?x=1", "application/json"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("another cluster's response is left: %v", err)
	}
}

func TestTheLinkHistoryIsBounded(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	update(t, db, func(tx *Tx) error {
		for i := range maxLinkHistory + 5 {
			if err := tx.PutLink("offline", fmt.Sprint(i)); err != nil {
				return err
			}
		}
		return nil
	})
	var n int
	var last string
	if err := db.file.read.QueryRow(`SELECT count(*), (SELECT reason FROM v_link ORDER BY rowid DESC LIMIT 1) FROM link`).Scan(&n, &last); err != nil || n != maxLinkHistory {
		t.Fatalf("%d rows, %v", n, err)
	}
}

func TestOpenReplacesAnUnusableFile(t *testing.T) {
	foreign := func(path string) error {
		db, err := sql.Open("sqlite3", "file:"+path)
		if err != nil {
			return err
		}
		_, err = db.Exec(`CREATE TABLE notes (text); INSERT INTO notes VALUES ('keep me')`)
		return errors.Join(err, db.Close())
	}
	otherVersion := func(path string) error {
		db, err := Open(context.Background(), filepath.Dir(path), Options{})
		if err != nil {
			return err
		}
		_, err = db.file.write.Exec(`PRAGMA user_version = 999`)
		return errors.Join(err, db.Close())
	}
	tests := []struct {
		name   string
		make   func(path string) error
		notice string
		aside  string
	}{
		{"an empty file becomes a new cache", func(path string) error { return os.WriteFile(path, nil, 0o600) }, "", ""},
		{"a text file is renamed", func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("not a database ", 100)), 0o600)
		}, "corrupt", ".corrupt"},
		{"another program's database is renamed", foreign, "another program", ".foreign"},
		{"a database of another schema version is replaced", otherVersion, "999", ""},
		{"a database that lacks one of our tables is renamed", func(path string) error {
			db, err := Open(context.Background(), filepath.Dir(path), Options{})
			if err != nil {
				return err
			}
			_, err = db.file.write.Exec(`DROP TABLE observation`)
			return errors.Join(err, db.Close())
		}, "corrupt", ".corrupt"},
		{"a truncated file is renamed", func(path string) error {
			if err := otherVersion(path); err != nil {
				return err
			}
			return os.Truncate(path, 5000)
		}, "corrupt", ".corrupt"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, FileName)
			if err := tt.make(path); err != nil {
				t.Fatal(err)
			}
			var notices []string
			db := openAt(t, dir, Options{Notice: func(s string) { notices = append(notices, s) }})
			record(t, db, scope("shop"), "1", object("a", 1))
			if got := strings.Join(notices, "\n"); (got == "") != (tt.notice == "") || !strings.Contains(got, tt.notice) || (got != "" && !strings.Contains(got, path)) {
				t.Fatalf("notice %q, want %q and the path", got, tt.notice)
			}
			if tt.aside == "" {
				return
			}
			if _, err := os.Stat(path + tt.aside); err != nil {
				t.Fatalf("the file was lost: %v", err)
			}
		})
	}
}

func TestOpenNamesTheDirectoryThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	if _, err := Open(t.Context(), dir, Options{}); !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), dir) {
		t.Fatal(err)
	}
}

func TestTheQuotaHoldsAndReadsStillWork(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{MaxSize: 256 << 10})
	record(t, db, scope("shop"), "1", object("a", 1))
	big := object("big", 2)
	big.Payload = []byte(`"` + strings.Repeat("x", 1<<20) + `"`)
	err := db.Update(t.Context(), func(tx *Tx) error { return putSingle(tx, scope(""), big) })
	if !errors.Is(err, ErrFull) {
		t.Fatalf("writing 1 MiB with a quota of 256 KiB gives %v", err)
	}
	_, got := complete(t, db, scope("shop"))
	want(t, got, "a@1")
	record(t, db, scope("shop"), "2", object("b", 2))
	if info, err := os.Stat(db.Path()); err != nil || info.Size() > 512<<10 {
		t.Fatalf("%v %v", info, err)
	}
}

func TestTheLeastRecentlyUsedCollectionIsEvictedFirst(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{MaxSize: 8 << 20})
	now := clock
	db.opts.Now = func() time.Time { now = now.Add(time.Second); return now }
	scopes := []Scope{scope("one"), scope("watched"), scope("two"), scope("three")}
	for _, s := range scopes {
		var objects []Object
		for i := range 100 {
			o := object(fmt.Sprint("o", i), i+1)
			o.Payload = []byte(`"` + strings.Repeat("x", 8<<10) + `"`)
			objects = append(objects, o)
		}
		record(t, db, s, "100", objects...)
	}
	update(t, db, func(tx *Tx) error { return tx.PutResponse(Response{Principal: "p", Path: "/api", Body: []byte("{}")}) })
	first, _ := complete(t, db, scopes[0])
	update(t, db, func(tx *Tx) error { return tx.Use(first.ID) })

	used, bound, err := db.Usage(t.Context())
	if err != nil || bound != 8<<20 || used < 3<<20 || used > 6<<20 {
		t.Fatalf("%d of %d bytes: %v", used, bound, err)
	}
	watched := func(c Collection) bool { return c.Namespace == "watched" }
	if n, err := db.Evict(t.Context(), used-1, watched); err != nil || n != 1 {
		t.Fatalf("%d evicted: %v", n, err)
	}
	left := func() (out []string) {
		for _, s := range scopes {
			if c, _ := complete(t, db, s); c.ID != 0 {
				out = append(out, s.Namespace)
			}
		}
		return out
	}
	want(t, left(), "one", "watched", "three")
	if n, err := db.Evict(t.Context(), 0, watched); err != nil || n != 2 {
		t.Fatalf("%d evicted: %v", n, err)
	}
	want(t, left(), "watched")
	if after, _, err := db.Usage(t.Context()); err != nil || after > used/2 {
		t.Fatalf("%d bytes are still used: %v", after, err)
	}
}

func TestCheckReportsARemovedFile(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	if err := db.Check(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(db.Path()); err != nil {
		t.Fatal(err)
	}
	if err := db.Check(); !errors.Is(err, ErrGone) {
		t.Fatal(err)
	}
}

func TestAReadingConnectionCannotWrite(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	if _, err := db.file.read.Exec(`DELETE FROM object`); err == nil {
		t.Fatal("a reading connection deleted rows")
	}
}

func TestTheDriverHasNoWALResetBug(t *testing.T) {
	if _, number, _ := sqlite3.Version(); number < 3_051_003 {
		t.Fatalf("SQLite %d has a bug that damages databases; 3.51.3 or later is needed", number)
	}
}

func TestTheShellShowsAnObjectOnce(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	binary := scope("shop")
	binary.MediaType = "application/vnd.kubernetes.protobuf"
	p := object("a", 9)
	p.Encoding, p.Payload = Protobuf, []byte{10, 0}
	record(t, db, binary, "10", p, object("b", 2))
	update(t, db, func(tx *Tx) error { return putSingle(tx, scope("shop"), object("a", 9)) })
	update(t, db, func(tx *Tx) error { return putSingle(tx, scope("shop"), object("c", 3)) })
	update(t, db, func(tx *Tx) error {
		return tx.Observe(scope("shop").Of(), Key{"shop", "c"}, Evidence{Says: Gone, Asked: tx.db.Next(), Told: tx.db.Next(), Read: Latest})
	})
	const query = `SELECT name, resource_version, encoding, json IS NOT NULL FROM v_object ORDER BY name`
	out, err := exec.Command("sqlite3", "-readonly", db.Path(), query).CombinedOutput()
	if got, want := strings.Fields(string(out)), []string{"a|9|json-bare|1", "b|2|json-bare|1"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("v_object has %q (%v), want %q", got, err, want)
	}
}

func TestTheSQLiteShellCanReadTheCache(t *testing.T) {
	shell, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Fatal("the sqlite3 shell is needed: apt-get install sqlite3")
	}
	db := openAt(t, t.TempDir(), Options{})
	record(t, db, scope("shop"), "10", object("a", 1), object("b", 2))
	update(t, db, func(tx *Tx) error { return tx.PutLink("online", "first probe") })
	enqueue(t, db, queued("e", "{}", ""))
	for query, want := range map[string]string{
		`SELECT resource, state, objects, resource_version, synced FROM v_collection`:     "v1/configmaps|complete|2|10|2023-11-14 22:13:20",
		`SELECT name, json->>'$.metadata.resourceVersion' FROM v_object WHERE name = 'b'`: "b|2",
		`SELECT name FROM v_label WHERE label = 'app' AND value = 'a'`:                    "a",
		`SELECT state, reason FROM v_link`:                                                "online|first probe",
		`SELECT name, json, queued FROM v_outbox`:                                         "e|{}|2023-11-14 22:13:20",
	} {
		out, err := exec.Command(shell, "-readonly", db.Path(), query).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%s: %q %v, want %q", query, got, err, want)
		}
	}
}

func TestADatabaseIsUsedAfterItsMemoryWasReleased(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	update(t, db, func(tx *Tx) error { return tx.PutLink("online", "before") })
	if err := db.ReleaseMemory(t.Context()); err != nil {
		t.Fatal(err)
	}
	update(t, db, func(tx *Tx) error { return tx.PutLink("offline", "after") })
	all, err := db.Links(t.Context(), time.Time{})
	if err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
}

// TestReleasedMemoryGoesBackToTheNode looks at the heap of C, which Go's statistics lack.
func TestReleasedMemoryGoesBackToTheNode(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	db := openAt(t, t.TempDir(), Options{})
	var objects []Object
	for i := range 2000 { // with their indexes more than the writer's pages
		objects = append(objects, object(fmt.Sprintf("%s-%04d", strings.Repeat("n", 200), i), i))
	}
	record(t, db, scope("shop"), "10", objects...)
	before := heapOfC(t)
	if err := db.ReleaseMemory(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := heapOfC(t); after > before-512<<10 {
		t.Errorf("the heap of C has %d KiB, and had %d", after>>10, before>>10)
	}
}

// heapOfC returns how much of the heap that malloc grows by brk(2) is in memory, in bytes. With one
// arena that is all of it but large blocks.
func heapOfC(t *testing.T) (bytes int) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, heap, found := strings.Cut(string(maps), "[heap]\n")
	_, rss, _ := strings.Cut(heap, "\nRss:")
	var kib int
	if _, err := fmt.Sscan(rss, &kib); err != nil || !found {
		t.Fatalf("no heap in /proc/self/smaps: %v", err)
	}
	return kib << 10
}
