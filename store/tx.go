package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Tx can change rows, for the duration of one Update.
type Tx struct {
	db   *DB
	file *file
	tx   *sql.Tx
	said []Said
	// bound has the prepared statements that were used.
	bound map[*sql.Stmt]*sql.Stmt
	// symptoms are those of a restored cluster.
	symptoms []Symptom
	// outlines are those of the lists that the transaction records, for when it is committed.
	outlines []scopedOutline
}

// Said is evidence, recorded in a transaction, that lists of the objects may lack.
type Said struct {
	Resource
	Key            // without a name: all objects of the namespace
	Version string // since when; empty: unknown
}

// Symptom is evidence, recorded in a transaction, that is older than what was told before it was
// asked for: the API server's cache may lag, or the cluster was restored from a backup.
type Symptom struct {
	Resource
	Key
	Evidence
}

// Symptoms returns what was older in this transaction so far.
func (tx *Tx) Symptoms() []Symptom { return tx.symptoms }

// Said returns what may have overtaken lists in this transaction so far.
func (tx *Tx) Said() []Said { return tx.said }

// Update runs f in one transaction: it commits all changes or none. There is one writer at a
// time. f must return the first error that it meets: when the disk is full, SQLite rolls
// back, and would then commit each later statement on its own.
//
// For the same reason, a context that ends stops Update only before f starts. Update does
// not write to a file that was found corrupt.
func (db *DB) Update(ctx context.Context, f func(*Tx) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	file, release, err := db.acquire()
	if err != nil {
		return err
	}
	defer release()
	if err := file.writable(db.path); err != nil {
		return err
	}
	tx, err := file.write.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return file.wrapErr("begin", err)
	}
	changes := &Tx{db: db, file: file, tx: tx}
	if err := f(changes); err != nil {
		if rollback := tx.Rollback(); rollback != nil && !errors.Is(rollback, sql.ErrTxDone) && !errors.Is(err, ErrFull) {
			return errors.Join(err, file.wrapErr("roll back", rollback))
		}
		return err
	}
	err = tx.Commit()
	file.collections.invalidate()
	if err == nil {
		for _, o := range changes.outlines {
			file.outlines.put(o)
		}
	}
	return file.wrapErr("commit", err)
}

func (f *file) writable(path string) error {
	switch {
	case f.attached:
		return fmt.Errorf("%s: %w: it is open for reading only", path, ErrReadOnly)
	case f.corrupt.Load():
		return fmt.Errorf("%s: %w", path, ErrCorrupt)
	}
	return nil
}

// writeSynced runs f in one transaction, which is on the disk when writeSynced returns. A
// power loss may undo an Update.
func (db *DB) writeSynced(ctx context.Context, op string, f func(*sql.Tx) error) error {
	file, release, err := db.acquire()
	if err != nil {
		return err
	}
	defer release()
	if err := file.writable(db.path); err != nil {
		return err
	}
	// synchronous cannot be changed inside a transaction.
	conn, err := file.write.Conn(ctx)
	if err != nil {
		return file.wrapErr(op, err)
	}
	defer conn.Close()
	ctx = context.WithoutCancel(ctx)
	if _, err := conn.ExecContext(ctx, `PRAGMA synchronous = FULL`); err != nil {
		return file.wrapErr(op, err)
	}
	defer conn.ExecContext(ctx, `PRAGMA synchronous = NORMAL`) //nolint:errcheck // FULL is only slower
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return file.wrapErr(op, err)
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback() // when the disk is full, SQLite has done so
		return file.wrapErr(op, err)
	}
	return file.wrapErr(op, tx.Commit())
}

// read runs f with the reading connections.
func (db *DB) read(op string, f func(*sql.DB) error) error {
	file, release, err := db.acquire()
	if err != nil {
		return err
	}
	defer release()
	return file.query(op, f)
}

func (f *file) query(op string, read func(*sql.DB) error) error {
	err := read(f.read)
	var caller callbackError
	if errors.As(err, &caller) {
		return fmt.Errorf("%s: %w", op, caller.error)
	}
	return f.wrapErr(op, err)
}

// callbackError is an error of a caller's function that processes rows. It gets no kind:
// even if it wraps one of SQLite's errors, it does not mean that this file is corrupt.
type callbackError struct{ error }

// view runs f on one consistent state of the database. Its read transaction keeps the log
// from shrinking, so f must be quick and must not wait for a client.
func (db *DB) view(ctx context.Context, op string, f func(*sql.Tx) error) error {
	file, release, err := db.acquire()
	if err != nil {
		return err
	}
	defer release()
	return file.view(ctx, op, f)
}

func (f *file) view(ctx context.Context, op string, read func(*sql.Tx) error) error {
	return f.query(op, func(db *sql.DB) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // nothing was changed
		return read(tx)
	})
}

// collect returns a function that reads all rows of a query. scan makes a value of a row.
func collect[T any](scan func(scan func(...any) error) (T, error)) func(*sql.Rows, error) ([]T, error) {
	return func(rows *sql.Rows, err error) (all []T, _ error) {
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			one, err := scan(rows.Scan)
			if err != nil {
				return nil, err
			}
			all = append(all, one)
		}
		return all, rows.Err()
	}
}

// stmt is a prepared statement in the transaction. It makes one of each, not one for each use: they
// stay in memory until the transaction ends.
func (tx *Tx) stmt(s *sql.Stmt) *sql.Stmt {
	bound := tx.bound[s]
	if bound == nil {
		if tx.bound == nil {
			tx.bound = map[*sql.Stmt]*sql.Stmt{}
		}
		bound = tx.tx.Stmt(s)
		tx.bound[s] = bound
	}
	return bound
}

// wrapErr adds a kind to an error.
func (tx *Tx) wrapErr(op string, err error) error { return tx.file.wrapErr(op, err) }

func (tx *Tx) nowMilli() int64 { return tx.db.nowMilli() }

func (db *DB) nowMilli() int64 { return db.opts.Now().UnixMilli() }

// statements are prepared once on the writing connection, for work that is done for each
// object.
type statements struct {
	findCollection, advance, put, remove, version, observation, singles *sql.Stmt
}

func prepareStatements(ctx context.Context, db *sql.DB) (*statements, error) {
	s := &statements{}
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&s.findCollection, `SELECT ` + collectionColumns + ` FROM collection WHERE principal = ? AND api_group = ? AND version = ? AND resource = ?
			AND representation = ? AND namespace = ? AND label_selector = ? AND field_selector = ? AND media_type = ? AND state = ? AND state <> 'filling'`},
		{&s.advance, `UPDATE collection SET resource_version = ?, moved = ?, changed_version = CASE ? WHEN '' THEN changed_version ELSE ? END, revision = revision + 1, synced_at = ?, used_at = ? WHERE id = ?`},
		{&s.put, `INSERT INTO object (collection_id, namespace, name, resource_version, uid, updated_at, asked, told, read, labels, size, checksum, encoding, payload)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?13, CASE ?13 WHEN 'protobuf' THEN ?14 ELSE CAST(?14 AS TEXT) END)
			ON CONFLICT (collection_id, namespace, name) DO UPDATE SET resource_version = excluded.resource_version, uid = excluded.uid,
			updated_at = excluded.updated_at, asked = excluded.asked, told = excluded.told, read = excluded.read, labels = excluded.labels, size = excluded.size, checksum = excluded.checksum, encoding = excluded.encoding, payload = excluded.payload`},
		{&s.remove, `DELETE FROM object WHERE collection_id = ? AND namespace = ? AND name = ?`},
		{&s.version, `SELECT uid, resource_version FROM object WHERE collection_id = ? AND namespace = ? AND name = ?`},
		{&s.observation, `SELECT ` + observationColumns + ` FROM observation WHERE principal = ? AND api_group = ? AND resource = ? AND namespace = ? AND name = ?`},
		{&s.singles, rowsOf + ` AND c.state = 'seen'`},
	} {
		stmt, err := db.PrepareContext(ctx, p.text)
		if err != nil {
			return nil, fmt.Errorf("prepare %q: %w", p.text, err)
		}
		*p.stmt = stmt
	}
	return s, nil
}

func (s *statements) close() error {
	return errors.Join(s.findCollection.Close(), s.advance.Close(), s.put.Close(), s.remove.Close(), s.version.Close(), s.observation.Close(), s.singles.Close())
}
