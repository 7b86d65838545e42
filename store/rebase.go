package store

import (
	"fmt"
	"hash/maphash"
)

// state is which state of which object a row has. SQLite may give a row the id of a deleted one.
type state struct {
	id           int64
	key          Key
	uid, version string
}

var sumSeed = maphash.MakeSeed()

func (s state) hash() uint64 { return maphash.Comparable(sumSeed, s) }

// keep notes that the list has an object of base, unchanged.
func (s *Snapshot) keep(r *baseRow) {
	if !s.unchanged.has(r.id) {
		s.unchanged.add(r.id)
		s.sum += r.state().hash()
	}
}

// unkeep notes that the list has another state of an object of base.
func (s *Snapshot) unkeep(r *baseRow) {
	switch {
	case !s.unchanged.has(r.id):
	case s.sameIDs.has(r.id):
		s.unchanged.remove(r.id)
		s.sameIDs.remove(r.id)
	default:
		s.unchanged.remove(r.id)
		s.sum -= r.state().hash()
	}
}

func (r *baseRow) state() state { return state{r.id, r.Key, r.uid, r.version} }

// rebase takes into account what has become of base since the snapshot was begun: events have
// changed it, and other lists were merged into it. Objects of fill that base has by now are
// unchanged. It returns ErrBaseGone if another list, or an event since the outline, has replaced an
// object that was unchanged.
func (s *Snapshot) rebase(tx *Tx) error {
	if s.fill != 0 {
		const equal = `SELECT b.id, f.id, b.namespace, b.name, b.uid, b.resource_version FROM object f JOIN object b ON b.collection_id = ? AND b.namespace = f.namespace AND b.name = f.name
			AND b.uid = f.uid AND b.resource_version = f.resource_version AND b.encoding = f.encoding AND b.size = f.size AND b.checksum = f.checksum WHERE f.collection_id = ?`
		type pair struct {
			base baseRow
			fill int64
		}
		pairs, err := collect(func(scan func(...any) error) (p pair, err error) {
			err = scan(&p.base.id, &p.fill, &p.base.Namespace, &p.base.Name, &p.base.uid, &p.base.version)
			return p, err
		})(tx.tx.Query(equal, s.base, s.fill))
		if err != nil {
			return tx.wrapErr("compare snapshot", err)
		}
		for _, p := range pairs {
			s.outlined.off = true // it has the other row
			s.keep(&p.base)
			if err := tx.removeRow(p.fill); err != nil {
				return err
			}
		}
	}
	var sum uint64
	var same int64
	var after Key
	for more := true; more; {
		rows, err := s.baseObjects(tx, after, mergeBatch)
		if err != nil {
			return err
		}
		more = len(rows) == mergeBatch
		for _, o := range rows {
			after = o.Key()
			switch {
			case !s.unchanged.has(o.id):
			case !s.sameIDs.has(o.id):
				sum += state{o.id, after, o.UID, o.ResourceVersion}.hash()
			case o.Told <= s.same.told:
				same++
			}
		}
	}
	if sum != s.sum || same != s.sameIDs.len() {
		return fmt.Errorf("merge snapshot: %w", ErrBaseGone)
	}
	return nil
}
