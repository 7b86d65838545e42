package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Attach opens the cache in directory dir only to read it, also while another process writes it.
// Nothing is cleaned up, repaired or created there, apart from the files that SQLite needs to share
// the log. An error wraps ErrNotFound if there is no database, ErrForeign if it is another
// program's, and ErrCorrupt if it cannot be read.
//
// What the other process has not yet written is missing: up to a tenth of a second of events, and
// everything that is recorded in memory only.
func Attach(ctx context.Context, dir string) (*DB, error) {
	db := &DB{path: filepath.Join(dir, FileName), opts: Options{MaxSize: DefaultMaxSize, Now: time.Now}, pins: make(chan struct{}, maxPins)}
	inode, err := os.Stat(db.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", db.path, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	read := sql.OpenDB(connector{dsn: dsn(db.path, "mode=ro&_busy_timeout=5000"), reader: true, pragmas: []string{
		"PRAGMA query_only = ON",
		"PRAGMA cache_size = -1024",
		"PRAGMA temp_store = MEMORY",
		"PRAGMA trusted_schema = OFF",
	}})
	read.SetMaxOpenConns(maxReaders)
	db.file = &file{write: read, read: read, inode: inode, attached: true}
	if err := checkSchema(ctx, read, db.path); err != nil {
		return nil, errors.Join(err, read.Close())
	}
	return db, nil
}

// checkSchema returns an error unless the file is a cache of this version.
func checkSchema(ctx context.Context, from *sql.DB, path string) error {
	var app, version int
	row := from.QueryRowContext(ctx, "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version)")
	if err := row.Scan(&app, &version); err != nil {
		return translate("open "+path, err)
	}
	if app != applicationID {
		return fmt.Errorf("%s: %w (application_id %#x)", path, ErrForeign, app)
	}
	if version != schemaVersion {
		return fmt.Errorf("%s: %w: %d, this program reads %d; use the program that writes it, such as the one in the pod", path, errSchemaVersion, version, schemaVersion)
	}
	return nil
}

// Vacuum gives free pages of the cache in directory dir back to the file system, and empties its
// log, also while another process uses the cache: it holds the lock only for some pages at once. It
// returns the bytes of the file and its log, before and after. A log that a reader still needs stays
// as large as it is.
func Vacuum(ctx context.Context, dir string) (before, after int64, err error) {
	path := filepath.Join(dir, FileName)
	if before, err = sizeOf(path); err != nil {
		return 0, 0, err
	}
	write := sql.OpenDB(connector{dsn: dsn(path, "mode=rw&_txlock=immediate&_busy_timeout=5000"), reader: true, pragmas: []string{
		"PRAGMA cache_size = -1024",
		"PRAGMA temp_store = MEMORY",
		"PRAGMA trusted_schema = OFF",
	}})
	defer func() { err = errors.Join(err, write.Close()) }()
	write.SetMaxOpenConns(1)
	if err := checkSchema(ctx, write, path); err != nil {
		return before, before, err
	}
	const pages = 256 // 1 MiB, which is written to the log once
	for free := 1; free > 0; {
		if err := drain(ctx, write, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", pages)); err != nil {
			return before, before, translate("vacuum "+path, err)
		}
		was := free
		if err := write.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&free); err != nil {
			return before, before, translate("vacuum "+path, err)
		}
		if was > 1 && free >= was {
			break // the other process frees pages as fast
		}
	}
	if err := drain(ctx, write, "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		return before, before, translate("vacuum "+path, err)
	}
	after, err = sizeOf(path)
	return before, after, err
}

// drain runs a statement to its end: Exec would stop after its first step.
func drain(ctx context.Context, db *sql.DB, statement string) error {
	rows, err := db.QueryContext(ctx, statement)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

// sizeOf returns the bytes of a database and its log.
func sizeOf(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	size := info.Size()
	if log, err := os.Stat(path + "-wal"); err == nil {
		size += log.Size()
	}
	return size, nil
}
