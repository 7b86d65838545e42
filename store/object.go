package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// Encoding of a payload.
type Encoding string

// The encodings, as in schema.sql.
const (
	JSON     Encoding = "json"      // contains its kind and apiVersion
	JSONBare Encoding = "json-bare" // lacks kind and apiVersion, which are the collection's
	Protobuf Encoding = "protobuf"  // the bare message; lacks them too
)

// Object is one recorded API object.
type Object struct {
	Namespace, Name      string
	UID, ResourceVersion string
	Labels               string // JSON object; empty means {}
	Encoding             Encoding
	Payload              []byte
	// UpdatedAt is when the object came from the server; a tombstone's time is compared
	// with it. Zero: when Put is called.
	UpdatedAt time.Time
}

// Put adds or replaces an object.
func (tx *Tx) Put(collection int64, o Object) error {
	if o.Labels == "" {
		o.Labels = "{}"
	}
	updated := tx.nowMilli()
	if !o.UpdatedAt.IsZero() {
		updated = o.UpdatedAt.UnixMilli()
	}
	_, err := tx.stmt(tx.file.stmts.put).Exec(collection, o.Namespace, o.Name, o.ResourceVersion, o.UID, updated, o.Labels, len(o.Payload), checksum(o.Payload), o.Encoding, o.Payload)
	return tx.wrapErr("put object", err)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is stored with a payload. It costs a fraction of a microsecond. It detects a
// bad flash card's damage to pages that hold only a part of a value, which SQLite cannot.
func checksum(payload []byte) int64 { return int64(crc32.Checksum(payload, castagnoli)) }

func verifyChecksum(payload []byte, sum int64) error {
	if checksum(payload) != sum {
		return fmt.Errorf("%w: the checksum of a payload is wrong", ErrCorrupt)
	}
	return nil
}

// Remove deletes an object. A missing object is not an error.
func (tx *Tx) Remove(collection int64, namespace, name string) error {
	_, err := tx.stmt(tx.file.stmts.remove).Exec(collection, namespace, name)
	return tx.wrapErr("remove object", err)
}

// Version returns an object's resourceVersion in a collection, empty if the object is not
// there.
func (tx *Tx) Version(collection int64, namespace, name string) (version string, err error) {
	err = tx.stmt(tx.file.stmts.version).QueryRow(collection, namespace, name).Scan(&version)
	return version, ignoreNotFound(tx.wrapErr("find version", err))
}

// PutSingle records a single, an object read by GET alone. The scope's namespace and
// selectors must be empty: the singles of a resource share one collection.
func (tx *Tx) PutSingle(s Scope, kind, apiVersion string, o Object) error {
	id, err := tx.singles(s)
	if err != nil {
		return err
	}
	if _, err := tx.tx.Exec(`UPDATE collection SET kind = ?, api_version = ? WHERE id = ?`, kind, apiVersion, id); err != nil {
		return tx.wrapErr("put single object", err)
	}
	if err := tx.Put(id, o); err != nil {
		return err
	}
	return tx.touch(id)
}

// DropSingle deletes a single, in every form of the scope's resource.
func (tx *Tx) DropSingle(s Scope, namespace, name string) error {
	_, err := tx.tx.Exec(`DELETE FROM object WHERE namespace = ? AND name = ? AND collection_id IN (
		SELECT id FROM collection WHERE principal = ? AND api_group = ? AND resource = ? AND state = 'seen')`, namespace, name, s.Principal, s.Group, s.Resource)
	return tx.wrapErr("drop single object", err)
}

// singles returns the scope's collection of singles, and creates it if it is missing.
func (tx *Tx) singles(s Scope) (int64, error) {
	c, err := tx.Collection(s, Single)
	if ignoreNotFound(err) != nil {
		return 0, err
	}
	if err == nil {
		return c.ID, nil
	}
	return tx.create(s, Single)
}

// Object reads one object of a collection, and the collection's resourceVersion at the same
// instant: together they can prove that the object is absent. It returns ErrNotFound if the
// object is not in the collection, and ErrChanged if the collection is gone.
func (db *DB) Object(ctx context.Context, collection int64, namespace, name string) (o Object, resourceVersion string, err error) {
	var (
		found                          sql.NullString
		updated, sum                   sql.NullInt64
		uid, version, labels, encoding sql.NullString
	)
	err = db.read("read object", func(read *sql.DB) error {
		// One statement reads one state of the database.
		err := read.QueryRowContext(ctx, `SELECT c.resource_version, o.name, o.uid, o.resource_version, o.labels, o.encoding, o.updated_at, CAST(o.payload AS BLOB), o.checksum
			FROM collection c LEFT JOIN object o ON o.collection_id = c.id AND o.namespace = ? AND o.name = ? WHERE c.id = ?`, namespace, name, collection).
			Scan(&resourceVersion, &found, &uid, &version, &labels, &encoding, &updated, &o.Payload, &sum)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrChanged
		case err != nil:
			return err
		case !found.Valid:
			return sql.ErrNoRows
		}
		return verifyChecksum(o.Payload, sum.Int64)
	})
	o.Namespace, o.Name, o.UID, o.ResourceVersion = namespace, name, uid.String, version.String
	o.Labels, o.Encoding, o.UpdatedAt = labels.String, Encoding(encoding.String), time.UnixMilli(updated.Int64)
	return o, resourceVersion, err
}

// Key identifies an object in its collection.
type Key struct{ Namespace, Name string }

// Range selects objects of a collection. The zero value selects all of them.
type Range struct {
	Namespace string // empty: all
	Name      string // empty: all
	After     *Key   // only objects after this key
}

// pageBytes and pageRows bound one page of List. A page is large enough to make the cost of
// the query negligible, and small enough to be read while the client reads the one before.
const (
	pageBytes = 256 << 10
	pageRows  = 500
)

// List calls f for each object of one page, ordered by namespace and name. It returns the
// key after which the next page begins, nil at the end. A payload is valid only during the
// call of f.
//
// List returns ErrChanged if the collection is no longer at the revision. So several pages
// form one snapshot, without a transaction held open for as long as a client takes.
func (db *DB) List(ctx context.Context, collection, revision int64, r Range, f func(Object) error) (next *Key, err error) {
	where, args := r.where(collection)
	query := `SELECT namespace, name, uid, resource_version, labels, encoding, CAST(payload AS BLOB), size, checksum FROM object` + where + ` ORDER BY namespace, name LIMIT ?`
	args = append(args, pageRows)
	err = db.view(ctx, "list objects", func(tx *sql.Tx) error {
		if err := checkRevision(ctx, tx, collection, revision); err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		count, size := 0, 0
		for rows.Next() {
			var o Object
			var payload sql.RawBytes
			var n int
			var sum int64
			if err := rows.Scan(&o.Namespace, &o.Name, &o.UID, &o.ResourceVersion, &o.Labels, &o.Encoding, &payload, &n, &sum); err != nil {
				return err
			}
			if err := verifyChecksum(payload, sum); err != nil {
				return err
			}
			o.Payload = payload
			if err := f(o); err != nil {
				return callbackError{err}
			}
			count, size = count+1, size+n
			if count == pageRows || size >= pageBytes {
				next = &Key{o.Namespace, o.Name}
				return nil
			}
		}
		return rows.Err()
	})
	return next, err
}

// where returns the range as an SQL condition.
func (r Range) where(collection int64) (sql string, args []any) {
	sql, args = ` WHERE collection_id = ?`, []any{collection}
	if r.Namespace != "" {
		sql, args = sql+` AND namespace = ?`, append(args, r.Namespace)
	}
	if r.Name != "" {
		sql, args = sql+` AND name = ?`, append(args, r.Name)
	}
	if r.After != nil {
		sql, args = sql+` AND (namespace, name) > (?, ?)`, append(args, r.After.Namespace, r.After.Name)
	}
	return sql, args
}

// checkRevision returns ErrChanged unless the collection is at the revision.
func checkRevision(ctx context.Context, tx *sql.Tx, collection, revision int64) error {
	var current int64
	err := tx.QueryRowContext(ctx, `SELECT revision FROM collection WHERE id = ?`, collection).Scan(&current)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err != nil || current != revision {
		return ErrChanged
	}
	return nil
}

// Measure groups the objects that List would read by labels and payload size. It calls f for
// each group, with the number of objects in it, and reads no payloads.
func (db *DB) Measure(ctx context.Context, collection, revision int64, r Range, f func(labels string, size, count int) error) error {
	where, args := r.where(collection)
	return db.view(ctx, "measure objects", func(tx *sql.Tx) error {
		if err := checkRevision(ctx, tx, collection, revision); err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, `SELECT labels, size, count(*) FROM object`+where+` GROUP BY labels, size`, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var labels string
			var size, count int
			if err := rows.Scan(&labels, &size, &count); err != nil {
				return err
			}
			if err := f(labels, size, count); err != nil {
				return callbackError{err}
			}
		}
		return rows.Err()
	})
}
