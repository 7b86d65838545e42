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
	// maxTombstones bounds the tombstones; the latest stay. Each has some hundred bytes, and
	// a newer list makes it superfluous.
	maxTombstones = 4096
	// maxUIDs bounds the UIDs of one tombstone; the latest stay.
	maxUIDs = 16
	// renewTombstone is the age at which a tombstone is rewritten only to update its time. A
	// program that keeps asking for an absent object must not wear out the disk.
	renewTombstone = time.Minute
)

// Deletion is the server's report that one object is absent.
type Deletion struct {
	// Scope gives principal, group and resource. Its other fields do not matter: an absent
	// object is absent in every form.
	Scope
	Namespace, Name string
	// UID of the deleted object. Empty: any object of that name.
	UID string
	// Asked is when the server was asked. The report is newer than any record from before.
	Asked time.Time
	// At is when the object was known to be absent; it is never before Asked.
	At time.Time
}

// Tombstone says which records of an absent object it supersedes.
type Tombstone struct {
	UIDs            []string // of deleted objects
	ResourceVersion string   // the newest recorded of the resource at that time; empty: none
	At              time.Time
}

// PutTombstone records that an object is absent. Earlier records of it stay in complete
// collections, which are the server's state at their versions. Earlier singles are deleted.
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

// tombstone returns the object's present tombstone; empty: there is none.
func (tx *Tx) tombstone(d Deletion) (t Tombstone, err error) {
	t, err = scanTombstone(tx.tx.QueryRow(`SELECT uids, resource_version, at FROM tombstone
		WHERE principal = ? AND api_group = ? AND resource = ? AND namespace = ? AND name = ?`, d.Principal, d.Group, d.Resource, d.Namespace, d.Name))
	if errors.Is(err, sql.ErrNoRows) {
		return Tombstone{}, nil
	}
	return t, err
}

// addRecorded adds to t the records of the object from before the server was asked, and
// those with the deleted UID. A later record may be of a recreated object: its version is
// above all versions that the server had given out by the time it was asked.
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
		var version int64 // 0: it does not start with a number
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

// Tombstone reads the tombstone of an object. It returns ErrNotFound if there is none.
func (db *DB) Tombstone(ctx context.Context, principal, group, resource, namespace, name string) (t Tombstone, err error) {
	err = db.read("read tombstone", func(read *sql.DB) (err error) {
		t, err = scanTombstone(read.QueryRowContext(ctx, `SELECT uids, resource_version, at FROM tombstone
			WHERE principal = ? AND api_group = ? AND resource = ? AND namespace = ? AND name = ?`, principal, group, resource, namespace, name))
		return err
	})
	return t, err
}

// DropTombstone deletes the tombstone of an object if it is from before a time. At that time
// the server was asked for the object, and returned it.
func (tx *Tx) DropTombstone(s Scope, namespace, name string, before time.Time) error {
	_, err := tx.tx.Exec(`DELETE FROM tombstone WHERE principal = ? AND api_group = ? AND resource = ? AND namespace = ? AND name = ? AND at < ?`,
		s.Principal, s.Group, s.Resource, namespace, name, before.UnixMilli())
	return tx.wrapErr("drop tombstone", err)
}

// DropTombstones deletes the tombstones from before a time, of the scope's namespace or of
// all namespaces: the scope's list of that time says of each object whether it is there. A
// tombstone stays while an older collection, for example in another encoding, still has the
// object: the new list may be evicted first, and the object would come back.
func (tx *Tx) DropTombstones(s Scope, before time.Time) error {
	list, err := tx.Collection(s, Complete)
	if ignoreNotFound(err) != nil {
		return err
	}
	// The subquery finds the collections with a record that the tombstone supersedes. Without
	// any, the tombstone is not needed. If the list is among them, the object is there again.
	_, err = tx.tx.Exec(`DELETE FROM tombstone AS t WHERE principal = ?1 AND api_group = ?2 AND resource = ?3 AND ?4 IN ('', namespace) AND at < ?5
		AND coalesce((SELECT max(c.id = ?6) FROM collection c JOIN object o ON o.collection_id = c.id AND o.namespace = t.namespace AND o.name = t.name
			WHERE c.principal = ?1 AND c.api_group = ?2 AND c.resource = ?3 AND c.state <> 'filling' AND (
				o.uid IN (SELECT value FROM json_each(t.uids)) OR CAST(o.resource_version AS INTEGER) <= CAST(t.resource_version AS INTEGER))), true)`,
		s.Principal, s.Group, s.Resource, s.Namespace, before.UnixMilli(), list.ID)
	return tx.wrapErr("drop tombstones", err)
}

// DropSingles deletes the singles of a resource, in the scope's namespace or in all namespaces
// if it is empty.
func (tx *Tx) DropSingles(s Scope) error {
	_, err := tx.tx.Exec(`DELETE FROM object WHERE ?1 IN ('', namespace) AND collection_id IN (
		SELECT id FROM collection WHERE principal = ?2 AND api_group = ?3 AND resource = ?4 AND state = 'seen')`, s.Namespace, s.Principal, s.Group, s.Resource)
	return tx.wrapErr("drop single objects", err)
}
