package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"hash/crc32"
	"slices"
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
