package store

import "fmt"

// rebase takes into account what has become of base since the snapshot was begun: events have changed
// it, and other lists were merged into it. Objects of fill that base has by now are unchanged. It
// returns ErrBaseGone if another list, or an event since the outline, has replaced an object that was
// unchanged.
func (s *Snapshot) rebase(tx *Tx) error {
	if s.fill != 0 {
		const equal = `SELECT b.id, f.id FROM object f JOIN object b ON b.collection_id = ? AND b.namespace = f.namespace AND b.name = f.name
			AND b.uid = f.uid AND b.resource_version = f.resource_version AND b.encoding = f.encoding AND b.size = f.size AND b.checksum = f.checksum WHERE f.collection_id = ?`
		pairs, err := collect(func(scan func(...any) error) (ids [2]int64, err error) { return ids, scan(&ids[0], &ids[1]) })(tx.tx.Query(equal, s.base, s.fill))
		if err != nil {
			return tx.wrapErr("compare snapshot", err)
		}
		for _, ids := range pairs {
			s.outlined.off = true // it has the other row
			s.unchanged.add(ids[0])
			if err := tx.removeRow(ids[1]); err != nil {
				return err
			}
		}
	}
	var there int64
	var after Key
	for more := true; more; {
		rows, err := s.baseObjects(tx, after, mergeBatch)
		if err != nil {
			return err
		}
		more = len(rows) == mergeBatch
		for _, o := range rows {
			replaced := s.sameIDs.has(o.id) && o.Told > s.same.told
			if after = o.Key(); s.unchanged.has(o.id) && !replaced {
				there++
			}
		}
	}
	if there != s.unchanged.len() {
		return fmt.Errorf("merge snapshot: %w", ErrBaseGone)
	}
	return nil
}
