package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrOwner: the queued writes belong to another cluster or service account, or nobody knows.
var ErrOwner = errors.New("queued writes of another owner")

// previousSuffix marks the name of a database that a seed has replaced. It is kept until its queued
// writes are adopted.
const previousSuffix = ".previous"

// Adopt moves the queued writes of the database in another directory into this one, and returns how
// many there were. An application was promised them, and nobody else would deliver them. The caller
// makes sure that no process uses the other database. Adopt does not touch it, not even its time,
// if it has no queued writes and was closed properly. The error is ErrOwner if the two databases are
// not known to have the same owner; then the writes stay.
func (db *DB) Adopt(ctx context.Context, from string) (int, error) {
	return db.adopt(ctx, filepath.Join(from, FileName))
}

func (db *DB) adopt(ctx context.Context, path string) (int, error) {
	if _, err := os.Stat(path); err != nil {
		return 0, nil //nolint:nilerr // there is nothing to adopt
	}
	var other carryOver
	wal, err := os.Stat(path + "-wal")
	if unclean := err == nil && wal.Size() > 0; unclean {
		from := openOther(path, "mode=rw")
		other.salvage(ctx, from)
		_ = from.Close() // what could be read was read
	} else {
		from := openOther(path, "mode=ro&immutable=1")
		other.salvage(ctx, from)
		_ = from.Close()
	}
	if len(other.queued) == 0 {
		return 0, nil
	}
	if same, err := db.hasOwner(ctx, other.owner); err != nil || !same {
		return 0, errors.Join(err, fmt.Errorf("adopt from %s: %w", path, ErrOwner))
	}
	err = db.writeSynced(ctx, "adopt", func(tx *sql.Tx) error {
		for _, q := range other.queued {
			if err := adoptQueued(tx, db.lastQueued.Add(1), q); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(other.queued), translate("adopt from "+path, dropQueued(ctx, path, other.queued))
}

// openOther opens a database that is no cache of this process. The last connection to close merges
// the log.
func openOther(path, params string) *sql.DB {
	db := sql.OpenDB(connector{dsn: dsn(path, params+"&_busy_timeout=1000"), pragmas: []string{
		"PRAGMA temp_store = MEMORY",
		"PRAGMA trusted_schema = OFF",
	}})
	db.SetMaxOpenConns(1)
	return db
}

// hasOwner reports whether the cache is known to have the same owner as another.
func (db *DB) hasOwner(ctx context.Context, other string) (bool, error) {
	var bound string
	err := db.read("read owner", func(read *sql.DB) error {
		return read.QueryRowContext(ctx, `SELECT value FROM meta WHERE key = 'cluster'`).Scan(&bound)
	})
	if err != nil {
		return false, ignoreNotFound(err)
	}
	var a, b Owner
	if json.Unmarshal([]byte(bound), &a) != nil || json.Unmarshal([]byte(other), &b) != nil {
		return false, nil
	}
	return !a.differs(b), nil
}

// dropQueued deletes queued writes from a database that nobody uses.
func dropQueued(ctx context.Context, path string, all []Queued) (err error) {
	from := openOther(path, "mode=rw&_txlock=immediate")
	defer func() { err = errors.Join(err, from.Close()) }()
	tx, err := from.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for _, q := range all {
		if _, err := tx.ExecContext(ctx, `DELETE FROM outbox WHERE id = ?`, q.ID); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

// adoptPrevious adopts the queued writes of the database that a seed has replaced, and deletes that
// database.
func (db *DB) adoptPrevious(ctx context.Context) {
	path := db.path + previousSuffix
	previous, err := os.Lstat(path)
	if err != nil {
		return
	}
	// A seed that was interrupted has not replaced it.
	if current, statErr := os.Lstat(db.path); statErr != nil || !os.SameFile(current, previous) {
		_, err = db.adopt(ctx, path)
	}
	if err == nil || errors.Is(err, ErrOwner) {
		err = errors.Join(err, removeDatabase(path))
	}
	if err != nil {
		db.opts.Notice(fmt.Sprintf("cannot deliver the writes that were queued in %s: %v", path, err))
	}
}
