package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// seedSuffix is on the name of a copy that is not finished.
const seedSuffix = ".seed"

// Seed makes the database of directory dir, in which there is none, from the one in the
// directory from, which another process may be using and which stays as it is. What the other
// has to do itself is not taken: its queued writes, and what it has seen of its link.
// It gives ErrNotFound when nothing complete is recorded there. Whatever goes wrong, and when ctx
// ends first, there is no database in dir.
func Seed(ctx context.Context, dir, from string) error {
	path, source := filepath.Join(dir, FileName), filepath.Join(from, FileName)
	partial := path + seedSuffix
	// Of a process that was interrupted: half a copy, or the log of a database that was being
	// removed, which SQLite would apply to the new one.
	if err := errors.Join(removeDatabase(partial), removeAuxiliary(path)); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	if _, err := os.Lstat(source); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", ErrNotFound, err)
		}
		return fmt.Errorf("seed: %w", err)
	}
	err := vacuumInto(ctx, source, partial)
	if err == nil {
		err = dropPrivate(ctx, partial)
	}
	if err == nil {
		err = os.Rename(partial, path)
	}
	if err != nil {
		_ = removeDatabase(partial)
		return translate("seed from "+source, err)
	}
	return nil
}

// vacuumInto writes one state of a database into a new file.
func vacuumInto(ctx context.Context, source, to string) (err error) {
	db := sql.OpenDB(connector{dsn: dsn(source, "_busy_timeout=1000"), reader: true, pragmas: []string{"PRAGMA trusted_schema = OFF", "PRAGMA cache_size = -1024"}})
	db.SetMaxOpenConns(1)
	defer func() { err = errors.Join(err, db.Close()) }()
	var appID, version, complete int
	row := db.QueryRowContext(ctx, "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version)")
	if err := row.Scan(&appID, &version); err != nil {
		return err
	}
	if appID != applicationID || version != schemaVersion {
		return fmt.Errorf("%w, %#x %d", errSchemaVersion, appID, version)
	}
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM collection WHERE state = 'complete'").Scan(&complete); err != nil {
		return err
	}
	if complete == 0 {
		return ErrNotFound
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", to)
	return err
}

// dropPrivate takes from a copy what was not for it, and makes sure that the rest is on the disk.
func dropPrivate(ctx context.Context, path string) error {
	db := sql.OpenDB(connector{dsn: dsn(path, "_txlock=immediate"), pragmas: []string{"PRAGMA temp_store = MEMORY", "PRAGMA foreign_keys = ON", "PRAGMA trusted_schema = OFF"}})
	_, err := db.ExecContext(ctx, `BEGIN; DELETE FROM outbox; DELETE FROM link; DELETE FROM collection WHERE state = 'filling'; DELETE FROM response WHERE question <> ''; COMMIT`)
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
