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

// seedSuffix marks the name of an unfinished copy.
const seedSuffix = ".seed"

// Seed copies the database in directory from to directory dir. Another process may be using the
// source, which does not change. The copy lacks the rows that only the other process can use: its
// queued writes, its unfinished lists, its reviews, its link history. The copy replaces the database
// in dir, if there is one, whose queued writes the next Open of dir adopts.
//
// Seed returns ErrNotFound if the source has no complete collection. After an error, and when ctx
// ends first, dir has the database that it had.
func Seed(ctx context.Context, dir, from string) error {
	path, source := filepath.Join(dir, FileName), filepath.Join(from, FileName)
	partial := path + seedSuffix
	_, err := os.Lstat(path)
	replaces := err == nil
	// An interrupted process may have left half a copy, or the log of a database that it was
	// removing. SQLite would apply that log to the new database.
	err = removeDatabase(partial)
	if !replaces {
		err = errors.Join(err, removeAuxiliary(path))
	}
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	if _, err := os.Lstat(source); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", ErrNotFound, err)
		}
		return fmt.Errorf("seed: %w", err)
	}
	err = vacuumInto(ctx, source, partial)
	if err == nil {
		err = dropPrivate(ctx, partial)
	}
	if err == nil && replaces {
		err = setPrevious(ctx, path)
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

// setPrevious gives a database that is about to be replaced a second name, with its log merged into
// it. So there is a database at path at every instant.
func setPrevious(ctx context.Context, path string) error {
	if _, err := os.Lstat(path + previousSuffix); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(errors.New("the queued writes of an earlier database are not adopted yet"), err)
	}
	db := openOther(path, "mode=rw")
	var appID int
	err := db.QueryRowContext(ctx, "SELECT application_id FROM pragma_application_id").Scan(&appID)
	if err == nil && appID != applicationID {
		err = fmt.Errorf("%w (application_id %#x)", ErrForeign, appID)
	}
	if err == nil {
		_, err = db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if wal, err := os.Stat(path + "-wal"); err == nil && wal.Size() > 0 {
		return errors.New("the log of the database that is replaced cannot be merged")
	}
	return errors.Join(removeAuxiliary(path), os.Link(path, path+previousSuffix))
}

// vacuumInto writes one consistent state of a database into a new file.
func vacuumInto(ctx context.Context, source, to string) (err error) {
	db := sql.OpenDB(connector{dsn: dsn(source, "_busy_timeout=1000"), reader: true, pragmas: []string{
		"PRAGMA trusted_schema = OFF",
		"PRAGMA cache_size = -1024",
	}})
	db.SetMaxOpenConns(1)
	defer func() { err = errors.Join(err, db.Close()) }()
	var appID, version, complete int
	row := db.QueryRowContext(ctx, "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version)")
	if err := row.Scan(&appID, &version); err != nil {
		return err
	}
	if appID != applicationID || version != schemaVersion {
		return fmt.Errorf("%w (application_id %#x, version %d)", errSchemaVersion, appID, version)
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

// dropPrivate deletes the rows that only the other process can use, and syncs the copy.
func dropPrivate(ctx context.Context, path string) error {
	db := sql.OpenDB(connector{dsn: dsn(path, "_txlock=immediate"), pragmas: []string{
		"PRAGMA temp_store = MEMORY",
		"PRAGMA foreign_keys = ON",
		"PRAGMA trusted_schema = OFF",
	}})
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
