package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// attached opens a database that another DB may have open.
func attached(t *testing.T, dir string) *DB {
	t.Helper()
	db, err := Attach(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestAnAttachedCacheShowsWhatIsWrittenMeanwhile(t *testing.T) {
	dir := t.TempDir()
	writer := openAt(t, dir, Options{})
	record(t, writer, scope("shop"), "10", object("a", 1), object("b", 2))
	reader := attached(t, dir)
	collections := func() string {
		all, err := reader.Collections(t.Context(), scope("shop").Principal, scope("shop").Group, scope("shop").Version, scope("shop").Resource)
		if err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
		return all[0].ResourceVersion
	}
	if got := collections(); got != "10" {
		t.Errorf("the collection is at %s, want 10", got)
	}
	record(t, writer, scope("shop"), "12", object("a", 1), object("b", 2), object("c", 12))
	if got := collections(); got != "12" {
		t.Errorf("the collection is at %s, want 12", got)
	}
	stock, err := reader.Inventory(t.Context())
	if err != nil || len(stock) != 1 || stock[0].Objects != 3 || stock[0].Bytes == 0 || stock[0].State != Complete {
		t.Errorf("inventory %+v, %v", stock, err)
	}
	names, err := reader.Names(t.Context())
	if err != nil || len(names) != 3 || names[2].Name != "c" || names[2].Version != "v1" {
		t.Errorf("names %+v, %v", names, err)
	}
	if err := reader.Update(t.Context(), func(tx *Tx) error { return tx.Remove(stock[0].ID, "shop", "a") }); err == nil {
		t.Error("an attached cache was changed")
	}
}

func TestAnAttachedCacheIsLeftAsItIs(t *testing.T) {
	dir := t.TempDir()
	if _, err := Attach(t.Context(), dir); !errors.Is(err, ErrNotFound) {
		t.Errorf("no database: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("%v were created", entries)
	}
	path := filepath.Join(dir, FileName)
	garbage := strings.Repeat("garbage ", 1000)
	if err := os.WriteFile(path, []byte(garbage), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(t.Context(), dir); !errors.Is(err, ErrCorrupt) {
		t.Errorf("garbage: %v", err)
	}
	if raw, err := os.ReadFile(path); string(raw) != garbage {
		t.Errorf("the file was changed (%v)", err)
	}
}

func TestACacheOfAnotherVersionIsNotRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := openAt(t, dir, Options{}).file.write.Exec(`PRAGMA user_version = 999`); err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "999") {
		t.Errorf("another version: %v", err)
	}
	if _, _, err := Vacuum(t.Context(), dir); err == nil {
		t.Error("a file of another version was vacuumed")
	}
}

func TestVerifyFindsADamagedPayload(t *testing.T) {
	dir := t.TempDir()
	writer := openAt(t, dir, Options{})
	record(t, writer, scope("shop"), "10", object("a", 1), object("b", 2))
	var found []string
	verify := func() {
		found = nil
		if n, err := attached(t, dir).Verify(t.Context(), func(what string) { found = append(found, what) }); n != 2 || err != nil {
			t.Fatalf("%d objects, %v", n, err)
		}
	}
	if verify(); len(found) > 0 {
		t.Errorf("a good file: %q", found)
	}
	if _, err := writer.file.write.Exec(`UPDATE object SET payload = replace(payload, 'b', 'x') WHERE name = 'b'`); err != nil {
		t.Fatal(err)
	}
	if verify(); len(found) != 1 || !strings.Contains(found[0], "shop/b: its payload is damaged") {
		t.Errorf("a damaged payload: %q", found)
	}
	if _, err := writer.file.write.Exec(`PRAGMA foreign_keys = OFF; DELETE FROM collection`); err != nil {
		t.Fatal(err)
	}
	if verify(); len(found) != 3 {
		t.Errorf("objects without a collection: %q", found)
	}
}

func TestVacuumGivesFreePagesBackWhileTheCacheIsUsed(t *testing.T) {
	dir := t.TempDir()
	writer := openAt(t, dir, Options{})
	var objects []Object
	for i := range 500 {
		o := object("x"+strings.Repeat("y", i), i+1)
		o.Payload = []byte(`"` + strings.Repeat("z", 8000) + `"`)
		objects = append(objects, o)
	}
	record(t, writer, scope("shop"), "1000", objects...)
	record(t, writer, scope("shop"), "1001", objects[0])
	before, after, err := Vacuum(t.Context(), dir)
	if err != nil || before < 4<<20 || after > 1<<20 {
		t.Errorf("%d bytes became %d, %v", before, after, err)
	}
	record(t, writer, scope("shop"), "1002", objects[:2]...)
	if n, err := attached(t, dir).Verify(t.Context(), func(what string) { t.Error(what) }); n != 2 || err != nil {
		t.Errorf("%d objects, %v", n, err)
	}
}
