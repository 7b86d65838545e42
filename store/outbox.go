package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Queued is a write that the application was told is accepted, and that the API server does
// not have yet.
type Queued struct {
	ID        int64 // in the order of acceptance; 0: not stored yet
	Principal string
	Path      string // of the collection in which the object is created
	Name      string
	At        time.Time // when it was first queued
	Object    []byte    // JSON of the complete object
	Patch     []byte    // JSON merge patch of later changes; empty: none
}

// Enqueue adds a queued write, or replaces object and patch of the row with its principal,
// path and name. The row is on the disk when Enqueue returns. Enqueue returns its id, which
// is never reused: the id of a row that was deleted or lost with its file leads to nothing.
func (db *DB) Enqueue(ctx context.Context, q Queued) (id int64, err error) {
	err = db.writeSynced(ctx, "enqueue", func(tx *sql.Tx) (err error) {
		id, err = putQueued(tx, db.lastQueued.Add(1), q)
		return err
	})
	return id, err
}

// putQueued writes a row, under newID if it is a new row.
func putQueued(tx *sql.Tx, newID int64, q Queued) (id int64, err error) {
	err = tx.QueryRow(`INSERT INTO outbox (id, principal, path, name, queued_at, object, patch, checksum) VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?)
		ON CONFLICT (principal, path, name) DO UPDATE SET object = excluded.object, patch = excluded.patch, checksum = excluded.checksum RETURNING id`,
		newID, q.Principal, q.Path, q.Name, q.At.UnixMilli(), nonNil(q.Object), nonNil(q.Patch), q.checksum()).Scan(&id)
	return id, err
}

// adoptQueued writes a row of another database. If the same object is queued here, that stays.
func adoptQueued(tx *sql.Tx, newID int64, q Queued) error {
	_, err := tx.Exec(`INSERT INTO outbox (id, principal, path, name, queued_at, object, patch, checksum) VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?)
		ON CONFLICT (principal, path, name) DO NOTHING`,
		newID, q.Principal, q.Path, q.Name, q.At.UnixMilli(), nonNil(q.Object), nonNil(q.Patch), q.checksum())
	return err
}

// nonNil returns an empty slice for nil: the columns are NOT NULL.
func nonNil(p []byte) []byte {
	if p == nil {
		return []byte{}
	}
	return p
}

func (q *Queued) checksum() int64 {
	return checksum(append(append([]byte(nil), q.Object...), q.Patch...))
}

// Outbox returns the queued writes in order, without Object and Patch.
func (db *DB) Outbox(ctx context.Context) (all []Queued, err error) {
	err = db.read("read outbox", func(read *sql.DB) error {
		all, err = collect(func(scan func(...any) error) (q Queued, err error) {
			var at int64
			err = scan(&q.ID, &q.Principal, &q.Path, &q.Name, &at)
			q.At = time.UnixMilli(at)
			return q, err
		})(read.QueryContext(ctx, `SELECT id, principal, path, name, queued_at FROM outbox ORDER BY id`))
		return err
	})
	return all, err
}

const selectQueued = `SELECT id, principal, path, name, queued_at, CAST(object AS BLOB), CAST(patch AS BLOB), checksum FROM outbox`

func scanQueued(scan func(...any) error) (q Queued, err error) {
	var at, sum int64
	if err := scan(&q.ID, &q.Principal, &q.Path, &q.Name, &at, &q.Object, &q.Patch, &sum); err != nil {
		return q, err
	}
	q.At = time.UnixMilli(at)
	if q.checksum() != sum {
		return q, fmt.Errorf("%w: the checksum of a queued write is wrong", ErrCorrupt)
	}
	return q, nil
}

// Queued reads one queued write. It returns ErrNotFound if the write is gone.
func (db *DB) Queued(ctx context.Context, id int64) (q Queued, err error) {
	err = db.read("read queued write", func(read *sql.DB) error {
		q, err = scanQueued(read.QueryRowContext(ctx, selectQueued+` WHERE id = ?`, id).Scan)
		return err
	})
	return q, err
}

// Dequeue deletes a queued write. A power loss may bring it back.
func (db *DB) Dequeue(ctx context.Context, id int64) error {
	return db.Update(ctx, func(tx *Tx) error {
		_, err := tx.tx.Exec(`DELETE FROM outbox WHERE id = ?`, id)
		return tx.wrapErr("dequeue", err)
	})
}
