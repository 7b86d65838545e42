package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"
)

const (
	// maxTombstones bounds how many are kept, the latest. They are some hundred bytes
	// each, and a newer list makes them superfluous.
	maxTombstones = 4096
	// maxUIDs bounds those of one tombstone, the latest.
	maxUIDs = 16
	// renewTombstone is how old one gets before it is written anew only for its time: a
	// program that asks again and again for what is not there shall not wear the disk.
	renewTombstone = time.Minute
)

// Deletion says that the server has said of one object that it is not there.
type Deletion struct {
	// Scope tells principal, group and resource. The rest of it does not matter: what
	// is not there is so in every form.
	Scope
	Namespace, Name string
	// UID of the object that is gone. Empty: whatever had been there.
	UID string
	// Asked is when the server was asked: what was recorded before that was there before.
	Asked time.Time
	// At is a time at which it was not there, not before Asked.
	At time.Time
}

// Tombstone is what a tombstone hides.
type Tombstone struct {
	UIDs            []string // of objects that are gone
	ResourceVersion string   // the newest that was known of the resource then; empty: none
	At              time.Time
}

// PutTombstone records that an object is not there. What was recorded of it before then stays in
// the collections, which are what the server had at their versions; what was read
// alone is deleted.
func (tx *Tx) PutTombstone(d Deletion) error {
	t, err := tx.tombstone(d)
	if err != nil {
		return tx.wrapErr("put tombstone", err)
	}
	before := len(t.UIDs)
	if err := tx.addRecorded(d, &t); err != nil {
		return tx.wrapErr("put tombstone", err)
	}
	t.add(d.UID)
	_, err = tx.tx.Exec(`DELETE FROM object WHERE namespace = ? AND name = ? AND (updated_at < ? OR uid = ?) AND collection_id IN (
		SELECT id FROM collection WHERE principal = ? AND api_group = ? AND resource = ? AND state = 'seen')`,
		d.Namespace, d.Name, d.Asked.UnixMilli(), d.UID, d.Principal, d.Group, d.Resource)
	if err != nil {
		return tx.wrapErr("put tombstone", err)
	}
	if len(t.UIDs) == before && d.At.Sub(t.At) < renewTombstone {
		return nil
	}
	uids, err := json.Marshal(t.UIDs[max(0, len(t.UIDs)-maxUIDs):])
	if err != nil {
		return err
	}
	_, err = tx.tx.Exec(`INSERT OR REPLACE INTO tombstone (principal, api_group, resource, namespace, name, uids, resource_version, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		d.Principal, d.Group, d.Resource, d.Namespace, d.Name, string(uids), t.ResourceVersion, max(t.At.UnixMilli(), d.At.UnixMilli()))
	if err != nil {
		return tx.wrapErr("put tombstone", err)
	}
	_, err = tx.tx.Exec(`DELETE FROM tombstone WHERE id <= (SELECT max(id) FROM tombstone) - ?`, maxTombstones)
	return tx.wrapErr("put tombstone", err)
}

// tombstone gives what the object's tombstone so far hides.
func (tx *Tx) tombstone(d Deletion) (t Tombstone, err error) {
	t, err = scanTombstone(tx.tx.QueryRow(`SELECT uids, resource_version, at FROM tombstone
		WHERE principal = ? AND api_group = ? AND resource = ? AND namespace = ? AND name = ?`, d.Principal, d.Group, d.Resource, d.Namespace, d.Name))
	if errors.Is(err, sql.ErrNoRows) {
		return Tombstone{}, nil
	}
	return t, err
}

// addRecorded adds to a grave what was recorded of the object before the server was asked, or
// is the very one that is gone. What was recorded after that may be a new one. A new one
// has a version behind all that the server had given out by then.
func (tx *Tx) addRecorded(d Deletion, t *Tombstone) error {
	newest, _ := strconv.ParseInt(t.ResourceVersion, 10, 64)
	rows, err := tx.tx.Query(`SELECT uid, CAST(resource_version AS INTEGER) FROM object WHERE namespace = ?1 AND name = ?2 AND (updated_at < ?3 OR uid = ?4)
			AND collection_id IN (SELECT id FROM collection WHERE principal = ?5 AND api_group = ?6 AND resource = ?7 AND state <> 'filling')
		UNION ALL SELECT '', CAST(resource_version AS INTEGER) FROM collection
			WHERE principal = ?5 AND api_group = ?6 AND resource = ?7 AND state = 'complete' AND synced_at < ?3`,
		d.Namespace, d.Name, d.Asked.UnixMilli(), d.UID, d.Principal, d.Group, d.Resource)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var uid string
		var version int64 // 0: it is no number
		if err := rows.Scan(&uid, &version); err != nil {
			return err
		}
		t.add(uid)
		newest = max(newest, version)
	}
	if newest > 0 {
		t.ResourceVersion = strconv.FormatInt(newest, 10)
	}
	return rows.Err()
}

func (t *Tombstone) add(uid string) {
	if uid != "" && !slices.Contains(t.UIDs, uid) {
		t.UIDs = append(t.UIDs, uid)
	}
}

func scanTombstone(row *sql.Row) (t Tombstone, err error) {
	var uids string
	var at int64
	if err := row.Scan(&uids, &t.ResourceVersion, &at); err != nil {
		return t, err
	}
	t.At = time.UnixMilli(at)
	return t, json.Unmarshal([]byte(uids), &t.UIDs)
}

// Tombstone finds what is hidden of an object that the server has said is not there.
func (db *DB) Tombstone(ctx context.Context, principal, group, resource, namespace, name string) (t Tombstone, err error) {
	err = db.read("read tombstone", func(read *sql.DB) (err error) {
		t, err = scanTombstone(read.QueryRowContext(ctx, `SELECT uids, resource_version, at FROM tombstone
			WHERE principal = ? AND api_group = ? AND resource = ? AND namespace = ? AND name = ?`, principal, group, resource, namespace, name))
		return err
	})
	return t, err
}

// DropTombstone deletes the tombstone of an object, if it was not there before a time and the
// server's word of that time is another.
func (tx *Tx) DropTombstone(s Scope, namespace, name string, before time.Time) error {
	_, err := tx.tx.Exec(`DELETE FROM tombstone WHERE principal = ? AND api_group = ? AND resource = ? AND namespace = ? AND name = ? AND at < ?`,
		s.Principal, s.Group, s.Resource, namespace, name, before.UnixMilli())
	return tx.wrapErr("drop tombstone", err)
}

// DropTombstones deletes the tombstones of a scope's namespace, or of all, from before a
// time: the scope's list of that time says of each object whether it is there. Those stay
// that still hide what only an older list has, of another form, say: the new one may be forgotten first.
func (tx *Tx) DropTombstones(s Scope, before time.Time) error {
	list, err := tx.Collection(s, Complete)
	if ignoreNotFound(err) != nil {
		return err
	}
	// Of the collections with what a tombstone hides, is the list one? Then there is nothing to hide.
	_, err = tx.tx.Exec(`DELETE FROM tombstone AS t WHERE principal = ?1 AND api_group = ?2 AND resource = ?3 AND ?4 IN ('', namespace) AND at < ?5
		AND coalesce((SELECT max(c.id = ?6) FROM collection c JOIN object o ON o.collection_id = c.id AND o.namespace = t.namespace AND o.name = t.name
			WHERE c.principal = ?1 AND c.api_group = ?2 AND c.resource = ?3 AND c.state <> 'filling' AND (
				o.uid IN (SELECT value FROM json_each(t.uids)) OR CAST(o.resource_version AS INTEGER) <= CAST(t.resource_version AS INTEGER))), true)`,
		s.Principal, s.Group, s.Resource, s.Namespace, before.UnixMilli(), list.ID)
	return tx.wrapErr("drop tombstones", err)
}

// DropSingles deletes what was read alone of a resource in a namespace, or in all when
// it is empty.
func (tx *Tx) DropSingles(s Scope) error {
	_, err := tx.tx.Exec(`DELETE FROM object WHERE ?1 IN ('', namespace) AND collection_id IN (
		SELECT id FROM collection WHERE principal = ?2 AND api_group = ?3 AND resource = ?4 AND state = 'seen')`, s.Namespace, s.Principal, s.Group, s.Resource)
	return tx.wrapErr("drop single objects", err)
}
