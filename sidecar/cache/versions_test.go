package cache

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	"rockpool.dev/store"
	"rockpool.dev/tests/eventually"
)

// Tests of two versions of the sidecar side by side, with caches of different layouts.

// otherVersion makes the cache in a slot one of another version: with another number, and tables
// that this one does not know. The queued writes are as they were.
func (n *node) otherVersion(slot string) {
	n.t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(n.directory, slot, store.FileName))
	if err != nil {
		n.t.Fatal(err)
	}
	defer db.Close()
	for _, statement := range []string{"PRAGMA user_version = 99", "CREATE TABLE novelty (a)", "DROP TABLE object"} {
		if _, err := db.Exec(statement); err != nil {
			n.t.Fatalf("%s: %v", statement, err)
		}
	}
}

// isOtherVersion checks that a slot still has the cache of the other version.
func (n *node) isOtherVersion(slot string, want bool) {
	n.t.Helper()
	if got := store.OtherVersion(n.t.Context(), filepath.Join(n.directory, slot)); got != want {
		n.t.Errorf("slot %s has a cache of another version: %v, want %v", slot, got, want)
	}
}

func TestARollbackFindsTheCacheOfItsVersion(t *testing.T) {
	n := newNode(t)
	old := n.start("old")
	old.record("10")
	upgraded := n.start("upgraded") // beside it, as in a rolling update
	upgraded.isIn("1")
	upgraded.record("20")
	old.stop()
	upgraded.minutes(2) // begins the next epoch: its slot is the freshest
	upgraded.queue("a")
	upgraded.stop()
	n.otherVersion("1")

	back := n.start("back")
	back.isIn("0")
	back.knows("10")
	eventually.True(t, "the Event of the newer version is adopted", func() bool { return back.queued() == "a" })
	n.isOtherVersion("1", true)
}

func TestAPodBesideOneOfAnotherVersionIsSeededFromItsOwn(t *testing.T) {
	n := newNode(t)
	canary := n.start("canary")
	canary.record("30")
	canary.stop()
	n.otherVersion("0")
	first := n.start("first")
	first.isIn("1") // not the one that the next canary takes
	first.record("10")
	second := n.start("second")
	second.isIn("2")
	second.knows("10")
	n.isOtherVersion("0", true)
}

func TestAPodThatIsUpgradedInPlaceBeginsWithAnEmptyCache(t *testing.T) {
	n := newNode(t)
	p := n.start("one")
	p.record("10")
	p.queue("a")
	p.stop()
	n.otherVersion("0")
	again := n.start("one")
	again.isIn("0") // a volume of its own has no room for a second cache
	n.isOtherVersion("0", false)
	if all, err := again.Store().Collections(t.Context(), "p", "", "v1", "configmaps"); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if got := again.queued(); got != "a" {
		t.Errorf("the queue has %q", got)
	}
}

func TestFilesThatANewerVersionLeavesDoNoHarm(t *testing.T) {
	n := newNode(t)
	p := n.start("one")
	p.record("10")
	p.stop()
	slot := filepath.Join(n.directory, "0")
	for name, content := range map[string]string{
		"age":             `{"epoch":7,"pod":"one","generation":{"of":"a newer version"}}`,
		"rockpool.v9.db":  "another format",
		"rockpool.db.tmp": "",
	} {
		if err := os.WriteFile(filepath.Join(slot, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(slot, "segments", "1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(n.directory, "shared"), 0o700); err != nil {
		t.Fatal(err)
	}
	again := n.start("one")
	again.isIn("0")
	again.knows("10")
	for _, name := range []string{"rockpool.v9.db", "segments/1", "../shared"} {
		if _, err := os.Stat(filepath.Join(slot, name)); err != nil {
			t.Error(err)
		}
	}
}
