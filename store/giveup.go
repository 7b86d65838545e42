package store

import (
	"errors"
	"slices"
	"time"
)

// maxGivenUp bounds the objects that GiveUp and Split record alone.
const maxGivenUp = 1000

// GiveUp records the objects that were added as singles, except those that are known to be as in
// the previous collection: the rest of the list will not come. The singles' scope and the kind are
// those of PutSingle. If there are too many, the scope becomes doubtful instead.
func (s *Snapshot) GiveUp(tx *Tx, singles Scope, kind, apiVersion string) error {
	if s.file == nil || s.file != tx.file {
		return nil
	}
	ids, err := s.rows(tx, s.fill)
	if err != nil {
		return err
	}
	observed, err := s.observed(tx)
	if err != nil {
		return err
	}
	ids = append(ids, slices.DeleteFunc(observed, func(id int64) bool { return !s.unchanged.has(id) })...)
	if len(ids) > maxGivenUp {
		if err := s.doubt(tx); err != nil {
			return err
		}
		ids = nil
	}
	if err := s.putAlone(tx, ids, singles, kind, apiVersion); err != nil {
		return err
	}
	return tx.dropCollection(s.fill)
}

// Split records the objects that were added as singles, but not more than maxGivenUp: the list is
// too large to be kept as a whole. It takes the place of the previous collection all the same:
// nothing older of the scope counts any more.
func (s *Snapshot) Split(tx *Tx, singles Scope, kind, apiVersion string) error {
	if err := s.begin(tx); errors.Is(err, ErrBaseGone) {
		return nil
	} else if err != nil {
		return err
	}
	base, err := tx.Collection(s.scope, Complete)
	if ignoreNotFound(err) != nil {
		return err
	}
	list := s.when
	list.Says = Present
	if err == nil && !list.Newer(base.Position()) && base.Position().Newer(list) {
		return s.Abort(tx)
	}
	ids, err := s.rows(tx, s.fill)
	if err != nil {
		return err
	}
	unchanged, err := s.rows(tx, s.base)
	if err != nil {
		return err
	}
	unchanged = slices.DeleteFunc(unchanged, func(id int64) bool { return !s.unchanged.has(id) })
	if ids = append(ids, unchanged...); len(ids) > maxGivenUp {
		ids = ids[:maxGivenUp]
	}
	if err := s.putAlone(tx, ids, singles, kind, apiVersion); err != nil {
		return err
	}
	for _, id := range []int64{s.fill, base.ID} {
		if err := tx.dropCollection(id); err != nil {
			return err
		}
	}
	return s.doubt(tx)
}

// doubt records that nothing older than the list counts of its scope.
func (s *Snapshot) doubt(tx *Tx) error {
	e := s.when
	e.Says = Unknown
	return tx.Observe(s.scope.Of(), Key{Namespace: s.scope.Namespace}, e)
}

// rows returns the ids of the objects of a collection, but not many more than maxGivenUp.
func (s *Snapshot) rows(tx *Tx, collection int64) ([]int64, error) {
	ids, err := collect(scanID)(tx.tx.Query(`SELECT id FROM object WHERE collection_id = ? LIMIT ?`, collection, maxGivenUp+1))
	return ids, tx.wrapErr("read snapshot", err)
}

// observed returns the ids of the objects of base of which there are observations.
func (s *Snapshot) observed(tx *Tx) ([]int64, error) {
	res := s.scope.Of()
	ids, err := collect(scanID)(tx.tx.Query(`SELECT o.id FROM observation t JOIN object o ON o.collection_id = ? AND o.namespace = t.namespace AND o.name = t.name
		WHERE t.principal = ? AND t.api_group = ? AND t.resource = ?`, s.base, res.Principal, res.Group, res.Resource))
	return ids, tx.wrapErr("read snapshot", err)
}

func scanID(scan func(...any) error) (id int64, err error) {
	err = scan(&id)
	return id, err
}

// putAlone records objects of the list as singles.
func (s *Snapshot) putAlone(tx *Tx, ids []int64, singles Scope, kind, apiVersion string) error {
	for _, id := range ids {
		o, err := s.object(tx, id)
		if err != nil {
			return err
		}
		if err := tx.PutSingle(singles, kind, apiVersion, o); err != nil {
			return err
		}
	}
	return nil
}

// object returns an object of the list, which has a row.
func (s *Snapshot) object(tx *Tx, id int64) (Object, error) {
	o := Object{Asked: s.when.Asked, Told: s.when.Told, Read: s.when.Read}
	var updated int64
	err := tx.tx.QueryRow(`SELECT namespace, name, uid, resource_version, labels, encoding, updated_at, CAST(payload AS BLOB) FROM object WHERE id = ?`, id).
		Scan(&o.Namespace, &o.Name, &o.UID, &o.ResourceVersion, &o.Labels, &o.Encoding, &updated, &o.Payload)
	o.UpdatedAt = time.UnixMilli(updated)
	return o, tx.wrapErr("read snapshot", err)
}
