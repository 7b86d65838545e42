package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
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
	// UpdatedAt is when the object came from the server. Zero: when Put is called.
	UpdatedAt time.Time
	// Asked, Told and Read say how the object came; see Evidence.
	Asked, Told int64
	Read        Read
	// Hash is of the bytes of an item of a list, for the list's Outline; 0: unknown. It is not
	// stored.
	Hash uint64
}

// Key identifies the object.
func (o *Object) Key() Key { return Key{o.Namespace, o.Name} }

// Evidence is what the object, as it came alone or by an event, says.
func (o *Object) Evidence() Evidence {
	return Evidence{Says: Present, Version: o.ResourceVersion, Asked: o.Asked, Told: o.Told, Read: o.Read, UIDs: []string{o.UID}}
}

// Put adds or replaces an object.
func (tx *Tx) Put(collection int64, o Object) error {
	tx.forgetIfTold(collection, o.Told)
	_, err := tx.put(collection, &o)
	return err
}

// put returns the id of the row, if it is new.
func (tx *Tx) put(collection int64, o *Object) (id int64, err error) {
	if o.Labels == "" {
		o.Labels = "{}"
	}
	updated := tx.nowMilli()
	if !o.UpdatedAt.IsZero() {
		updated = o.UpdatedAt.UnixMilli()
	}
	if o.Read == "" {
		o.Read = Lagging
	}
	res, err := tx.stmt(tx.file.stmts.put).Exec(collection, o.Namespace, o.Name, o.ResourceVersion, o.UID, updated, o.Asked, o.Told, o.Read, o.Labels, len(o.Payload), checksum(o.Payload), o.Encoding, o.Payload)
	if err == nil {
		id, err = res.LastInsertId()
	}
	return id, tx.wrapErr("put object", err)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is stored with a payload. It costs a fraction of a microsecond. It detects a
// bad flash card's damage to pages that hold only a part of a value, which SQLite cannot.
func checksum(payload []byte) int64 { return int64(crc32.Checksum(payload, castagnoli)) }

func verifyChecksum(payload []byte, sum int64) error {
	if checksum(payload) != sum {
		return fmt.Errorf("%w: wrong checksum", ErrDamaged)
	}
	return nil
}

// Remove deletes an object. A missing object is not an error.
func (tx *Tx) Remove(collection int64, namespace, name string) error {
	_, err := tx.stmt(tx.file.stmts.remove).Exec(collection, namespace, name)
	return tx.wrapErr("remove object", err)
}

// Version returns an object's uid and resourceVersion in a collection, empty if the object is not
// there.
func (tx *Tx) Version(collection int64, namespace, name string) (uid, version string, err error) {
	err = tx.stmt(tx.file.stmts.version).QueryRow(collection, namespace, name).Scan(&uid, &version)
	return uid, version, ignoreNotFound(tx.wrapErr("find version", err))
}

// PutSingle records a single: an object that was read by GET, written, or told by an event
// alone. The scope's namespace and selectors must be empty: the singles of a resource share one
// collection. PutSingle does nothing if something newer is recorded of the object, and deletes
// what is older.
func (tx *Tx) PutSingle(s Scope, kind, apiVersion string, o Object) error {
	key, e := o.Key(), o.Evidence()
	rows, err := tx.allRows(s.Of(), key)
	if err != nil {
		return err
	}
	if err := tx.compare(s.Of(), key, e, rows); err != nil {
		return err
	}
	if slices.ContainsFunc(rows, func(r row) bool { return r.evidence.Newer(e) && !r.evidence.Agrees(e) }) {
		return nil
	}
	unlisted, err := tx.mayBeUnlisted(s, key, e, rows)
	if err != nil {
		return err
	}
	if superseded, err := tx.settle(s.Of(), key, e, ""); superseded || err != nil {
		return err
	}
	if unlisted {
		if err := tx.observe(s.Of(), key, doubtOf(e, e)); err != nil {
			return err
		}
	}
	tx.said = append(tx.said, Said{s.Of(), key, e.Version})
	for _, row := range rows {
		if row.state != Single || row.form != s.form() {
			continue
		}
		if row.evidence.Agrees(e) {
			both := e.again(row.evidence)
			if row.evidence.Told > e.Told { // as of a list that is given up
				both = row.evidence.again(e)
			}
			if renewed, err := tx.renew(row.id, both, &o); renewed || err != nil {
				return err
			}
			o.Asked, o.Told, o.Read = both.Asked, both.Told, both.Read
		} else if !e.Newer(row.evidence) { // of which the new row takes the place
			if err := tx.observe(s.Of(), key, doubtOf(row.evidence, e)); err != nil {
				return err
			}
		}
	}
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

// Supersedes reports whether evidence about an object is newer than a recorded state of it.
func (tx *Tx) Supersedes(res Resource, key Key, e Evidence) (bool, error) {
	rows, err := tx.allRows(res, key)
	return slices.ContainsFunc(rows, func(r row) bool { return e.Newer(r.evidence) && !e.Agrees(r.evidence) }), err
}

// renew notes that an object has come again, unchanged. It reports false if the payload differs.
func (tx *Tx) renew(id int64, e Evidence, o *Object) (renewed bool, err error) {
	res, err := tx.tx.Exec(`UPDATE object SET asked = ?, told = ?, read = ?, updated_at = CASE WHEN told > ? THEN updated_at ELSE ? END
		WHERE id = ? AND size = ? AND checksum = ?`,
		e.Asked, e.Told, e.Read, o.Told, o.UpdatedAt.UnixMilli(), id, len(o.Payload), checksum(o.Payload))
	if err != nil {
		return false, tx.wrapErr("renew object", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, tx.wrapErr("renew object", err)
	}
	_, err = tx.tx.Exec(`UPDATE collection SET moved = ?, revision = revision + 1 WHERE id = (SELECT collection_id FROM object WHERE id = ?)`, tx.db.next.Load(), id)
	return true, tx.wrapErr("renew object", err)
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

// Key identifies an object in its collection.
type Key struct{ Namespace, Name string }

// compare orders keys as the index of the objects does.
func (k Key) compare(other Key) int {
	return cmp.Or(cmp.Compare(k.Namespace, other.Namespace), cmp.Compare(k.Name, other.Name))
}

// Range selects objects of a collection. The zero value selects all of them.
type Range struct {
	Namespace string // empty: all
	Name      string // empty: all
	After     *Key   // only objects after this key
	// Payloads means that List reads nothing but the key and the payload of each object, which takes
	// half of the time.
	Payloads bool
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
	err = db.view(ctx, "list objects", func(tx *sql.Tx) error {
		next, err = list(ctx, tx, collection, revision, r, f)
		return err
	})
	return next, err
}

func list(ctx context.Context, tx *sql.Tx, collection, revision int64, r Range, f func(Object) error) (next *Key, err error) {
	where, args := r.where(collection)
	columns, scan := `namespace, name, uid, resource_version, labels, encoding, checksum, CAST(payload AS BLOB)`, scanWhole
	if r.Payloads {
		columns, scan = `checksum || ' ' || namespace || ' ' || name, CAST(payload AS BLOB)`, scanPayload
	}
	query := `SELECT ` + columns + ` FROM object` + where + ` ORDER BY namespace, name LIMIT ?`
	args = append(args, pageRows)
	if err := checkRevision(ctx, tx, collection, revision); err != nil {
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	count, size := 0, 0
	for rows.Next() {
		o, sum, err := scan(rows.Scan)
		if err == nil {
			err = verifyChecksum(o.Payload, sum)
		}
		if err != nil {
			return nil, err
		}
		if err := f(o); err != nil {
			return nil, callbackError{err}
		}
		count, size = count+1, size+len(o.Payload)
		if count == pageRows || size >= pageBytes {
			return &Key{o.Namespace, o.Name}, nil
		}
	}
	return nil, rows.Err()
}

// scanWhole reads an object and its checksum. The payload is valid until the next row is read.
func scanWhole(scan func(...any) error) (o Object, sum int64, err error) {
	var payload sql.RawBytes
	err = scan(&o.Namespace, &o.Name, &o.UID, &o.ResourceVersion, &o.Labels, &o.Encoding, &sum, &payload)
	o.Payload = payload
	return o, sum, err
}

// scanPayload is scanWhole for the key and the payload. Each column is a value that the driver
// allocates, so there are few.
func scanPayload(scan func(...any) error) (o Object, sum int64, err error) {
	var head string
	var payload sql.RawBytes
	if err := scan(&head, &payload); err != nil {
		return o, 0, err
	}
	number, key, _ := strings.Cut(head, " ") // neither namespaces nor names have one
	o.Namespace, o.Name, _ = strings.Cut(key, " ")
	o.Payload = payload
	sum, err = strconv.ParseInt(number, 10, 64)
	return o, sum, err
}

// where returns the range as an SQL condition.
func (r Range) where(collection int64) (sql string, args []any) {
	sql, args = r.conditions("object")
	return ` WHERE collection_id = ?` + sql, append([]any{collection}, args...)
}

// conditions returns the range as further SQL conditions on a table.
func (r Range) conditions(table string) (sql string, args []any) {
	if r.Namespace != "" {
		sql, args = sql+` AND `+table+`.namespace = ?`, append(args, r.Namespace)
	}
	if r.Name != "" {
		sql, args = sql+` AND `+table+`.name = ?`, append(args, r.Name)
	}
	if r.After != nil {
		sql, args = sql+` AND (`+table+`.namespace, `+table+`.name) > (?, ?)`, append(args, r.After.Namespace, r.After.Name)
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

// Holds returns ErrChanged if a collection is no longer at the revision.
func (db *DB) Holds(ctx context.Context, collection, revision int64) error {
	return db.view(ctx, "check collection", func(tx *sql.Tx) error { return checkRevision(ctx, tx, collection, revision) })
}

// Size returns how many objects a collection has, and how many bytes their payloads are, or
// ErrChanged if it is no longer at the revision.
func (db *DB) Size(ctx context.Context, collection, revision int64) (objects int, bytes int64, err error) {
	err = db.view(ctx, "measure collection", func(tx *sql.Tx) error {
		if err := checkRevision(ctx, tx, collection, revision); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(size), 0) FROM object WHERE collection_id = ?`, collection).Scan(&objects, &bytes)
	})
	return objects, bytes, err
}

// Newest returns the object of a collection with the latest resourceVersion, without its payload,
// of those for which which is true. It returns ErrNotFound if there is none, and ErrChanged if the
// collection is no longer at the revision.
func (db *DB) Newest(ctx context.Context, collection, revision int64, which func(Object) bool) (newest Object, err error) {
	err = db.view(ctx, "find newest object", func(tx *sql.Tx) error {
		if err := checkRevision(ctx, tx, collection, revision); err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, `SELECT namespace, name, uid, resource_version FROM object WHERE collection_id = ?`, collection)
		if err != nil {
			return err
		}
		defer rows.Close()
		newest = Object{}
		for rows.Next() {
			var o Object
			if err := rows.Scan(&o.Namespace, &o.Name, &o.UID, &o.ResourceVersion); err != nil {
				return err
			}
			if which(o) && (newest.Name == "" || NewerVersion(o.ResourceVersion, newest.ResourceVersion)) {
				newest = o
			}
		}
		if newest.Name == "" && rows.Err() == nil {
			return sql.ErrNoRows
		}
		return rows.Err()
	})
	return newest, err
}

// Measure groups the objects that List would read by labels and payload size. It calls f for
// each group, with the number of objects in it, and reads no payloads. If List reads nothing but
// payloads, the labels are empty.
func (db *DB) Measure(ctx context.Context, collection, revision int64, r Range, f func(labels string, size, count int) error) error {
	return db.view(ctx, "measure objects", func(tx *sql.Tx) error {
		return measure(ctx, tx, collection, revision, r, f)
	})
}

func measure(ctx context.Context, tx *sql.Tx, collection, revision int64, r Range, f func(labels string, size, count int) error) error {
	where, args := r.where(collection)
	if err := checkRevision(ctx, tx, collection, revision); err != nil {
		return err
	}
	query := `SELECT labels, size, count(*) FROM object` + where + ` GROUP BY labels, size`
	if r.Payloads { // an index has all that
		query = `SELECT '', size, count(*) FROM object` + where + ` GROUP BY size`
	}
	rows, err := tx.QueryContext(ctx, query, args...)
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
}
