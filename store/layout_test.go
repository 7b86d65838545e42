package store

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOtherVersion(t *testing.T) {
	for name, test := range map[string]struct {
		setup func(t *testing.T, dir string)
		want  bool
	}{
		"no file":     {func(*testing.T, string) {}, false},
		"an open one": {func(t *testing.T, dir string) { openAt(t, dir, Options{}) }, false},
		"a closed one": {func(t *testing.T, dir string) {
			if err := openAt(t, dir, Options{}).Close(); err != nil {
				t.Fatal(err)
			}
		}, false},
		"another version, in the log": {func(t *testing.T, dir string) { setVersion(t, openAt(t, dir, Options{}), "4") }, true},
		"another version, in the file": {func(t *testing.T, dir string) {
			db := openAt(t, dir, Options{})
			setVersion(t, db, "4")
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}, true},
		"another program": {func(t *testing.T, dir string) {
			db := openAt(t, dir, Options{})
			setVersion(t, db, "4; PRAGMA application_id = 1")
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}, false},
		"no database": {func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, FileName), make([]byte, 200), 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
		"the beginning of one": {func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, FileName), []byte("SQLite format 3\x00"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			test.setup(t, dir)
			if got := OtherVersion(t.Context(), dir); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func setVersion(t *testing.T, db *DB, version string) {
	t.Helper()
	if _, err := db.file.write.Exec("PRAGMA user_version = " + version); err != nil {
		t.Fatal(err)
	}
}
