package store

import "time"

// DropRolledBack deletes what is recorded of the scope's resource at versions behind
// version, and was last known to be true before asked. A server that, asked for its
// latest state at that time, answered with an older version has been restored
// from a backup: those versions have not happened. The collection keep stays.
//
// Versions that are not numbers cannot be compared and stay.
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

// Forbid deletes what a principal has listed of a resource in a namespace, or over
// all namespaces when it is empty: the server does not allow that any more. A list
// over all namespaces goes with each one that is forbidden.
func (tx *Tx) Forbid(s Scope) error {
	_, err := tx.tx.Exec(`DELETE FROM collection WHERE principal = ? AND api_group = ? AND resource = ? AND namespace IN ('', ?) AND state = 'complete'`,
		s.Principal, s.Group, s.Resource, s.Namespace)
	return tx.wrapErr("forbid", err)
}

// Forget deletes a complete collection.
func (tx *Tx) Forget(id int64) error { return tx.dropCollection(id) }
