package store

import "time"

// DropRolledBack deletes the records of the scope's resource that have a version above the
// given one and were last confirmed before asked. At that time the server returned the given
// version as its latest, so it was restored from a backup: later versions never happened.
// The collection keep stays.
//
// SQLite casts a version to the number at its start. Versions without one count as 0 and stay.
func (tx *Tx) DropRolledBack(s Scope, version uint64, asked time.Time, keep int64) error {
	before := asked.UnixMilli()
	_, err := tx.tx.Exec(`DELETE FROM collection WHERE principal = ? AND api_group = ? AND version = ? AND resource = ? AND state = 'complete' AND id <> ?
		AND CAST(resource_version AS INTEGER) > ? AND synced_at < ?`, s.Principal, s.Group, s.Version, s.Resource, keep, version, before)
	if err != nil {
		return tx.wrapErr("drop rolled-back versions", err)
	}
	_, err = tx.tx.Exec(`DELETE FROM object WHERE collection_id IN (SELECT id FROM collection
			WHERE principal = ? AND api_group = ? AND version = ? AND resource = ? AND state = 'seen')
		AND CAST(resource_version AS INTEGER) > ? AND updated_at < ?`, s.Principal, s.Group, s.Version, s.Resource, version, before)
	if err != nil {
		return tx.wrapErr("drop rolled-back versions", err)
	}
	_, err = tx.tx.Exec(`DELETE FROM tombstone WHERE principal = ? AND api_group = ? AND resource = ? AND CAST(resource_version AS INTEGER) > ? AND at < ?`,
		s.Principal, s.Group, s.Resource, version, before)
	return tx.wrapErr("drop rolled-back versions", err)
}

// Forbid deletes the complete collections of a resource that a principal may no longer list:
// those of the scope's namespace, and those of all namespaces, which include it. If the
// namespace is empty, it deletes only the latter.
func (tx *Tx) Forbid(s Scope) error {
	_, err := tx.tx.Exec(`DELETE FROM collection WHERE principal = ? AND api_group = ? AND resource = ? AND namespace IN ('', ?) AND state = 'complete'`,
		s.Principal, s.Group, s.Resource, s.Namespace)
	return tx.wrapErr("forbid", err)
}

// Forget deletes a complete collection.
func (tx *Tx) Forget(id int64) error { return tx.dropCollection(id) }
