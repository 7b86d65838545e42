package store

import (
	"errors"
	"fmt"
)

// Snapshot records a list in any number of transactions. The last one makes the list the
// scope's complete collection. Until then readers see the previous collection. Only objects
// that differ from the previous collection are written.
//
// A Snapshot keeps about two bits in memory for each object of the previous collection, and its
// Outline.
//
// A Snapshot is for one goroutine. When one of its transactions fails, call Abort.
type Snapshot struct {
	scope     Scope
	when      Evidence // Asked, Told and Read of the list
	file      *file    // in which it was begun; nil: not begun
	base      int64    // the complete collection, where unchanged objects stay; 0: none
	revision  int64    // of base when the snapshot was begun
	fill      int64    // the filling collection, of objects that differ from base; 0: none yet
	unchanged idSet    // the objects of base that the list has, unchanged
	sum       uint64   // of what they were, for rebase, but for those of sameIDs
	ahead     lookahead
	compared  bool     // objects were compared with those of base at revision
	same      *Outline // with which the list was compared; nil: with none
	sameIDs   idSet    // the objects of base that are the same as in that outline
	outlined  outlined
	filled    int64 // bytes of the objects that were written to fill
	// kind and apiVersion of the objects, if a client is told of them as they are added.
	kind, apiVersion string
}

// Filled is how many bytes the list takes beside the previous collection.
func (s *Snapshot) Filled() int64 { return s.filled }

// NewSnapshot starts to record a list of scope. Of when, Asked, Told and Read count. It writes
// nothing before Add.
func NewSnapshot(scope Scope, when Evidence) *Snapshot {
	return &Snapshot{scope: scope, when: when, unchanged: idSet{}}
}

// Tell notes that a client is told of the objects as they are added, and of which kind they are. If
// the process ends before the list does, the next Open gives the list up.
func (s *Snapshot) Tell(kind, apiVersion string) { s.kind, s.apiVersion = kind, apiVersion }

// ErrBaseGone: the collection that the snapshot builds on, or its file, was replaced.
var ErrBaseGone = errors.New("the collection was replaced while a list of it was recorded")

func (s *Snapshot) begin(tx *Tx) error {
	if s.file != nil {
		if s.file != tx.file {
			return ErrBaseGone
		}
		return nil
	}
	c, err := tx.Collection(s.scope, Complete)
	if ignoreNotFound(err) != nil {
		return err
	}
	s.base, s.revision, s.file = c.ID, c.Revision, tx.file
	return nil
}

// Add records an item of the list.
func (s *Snapshot) Add(tx *Tx, o Object) error {
	if err := s.begin(tx); err != nil {
		return err
	}
	known, err := s.ahead.find(tx, s.scope.Of(), s.base, Key{o.Namespace, o.Name})
	if err != nil {
		return err
	}
	s.compared = true
	if known != nil && known.equals(&o) && !known.observed {
		s.keep(known)
		s.outlined.add(o.Hash, known.id)
		if s.fill == 0 {
			return nil
		}
		return tx.Remove(s.fill, o.Namespace, o.Name) // a bad list may have an object twice
	}
	if known != nil {
		s.unkeep(known)
	}
	if err := s.beginFill(tx); err != nil {
		return err
	}
	o.Asked, o.Told, o.Read = s.when.Asked, s.when.Told, s.when.Read
	s.filled += int64(len(o.Payload))
	tx.db.known.raise(s.scope.Of(), o.ResourceVersion)
	id, err := tx.put(s.fill, &o)
	s.outlined.add(o.Hash, id)
	return err
}

func (s *Snapshot) beginFill(tx *Tx) (err error) {
	if s.fill != 0 {
		return nil
	}
	if s.fill, err = tx.create(s.scope, Filling); err != nil {
		return err
	}
	_, err = tx.tx.Exec(`UPDATE collection SET kind = ?, api_version = ? WHERE id = ?`, s.kind, s.apiVersion, s.fill)
	return tx.wrapErr("begin snapshot", err)
}

// Commit makes the added objects the scope's complete collection.
func (s *Snapshot) Commit(tx *Tx, meta CollectionMeta) error {
	if err := s.begin(tx); err != nil {
		return err
	}
	current, err := tx.Collection(s.scope, Complete)
	if ignoreNotFound(err) != nil {
		return err
	}
	if s.base == 0 {
		s.base = current.ID // another list came first; fill has every item of this one
	}
	if current.ID != s.base {
		return fmt.Errorf("commit snapshot: %w", ErrBaseGone)
	}
	unlisted, err := s.unlisted(tx, meta.ResourceVersion)
	if err != nil {
		return err
	}
	target, changed := s.base, true
	if target == 0 {
		if err := s.beginFill(tx); err != nil {
			return err
		}
		target = s.fill
	} else if changed, err = s.merge(tx, current); err != nil {
		if s.same != nil && errors.Is(err, ErrBaseGone) {
			s.forgetMisleading(tx, s.same)
		}
		return err
	}
	if changed || current.Changed == "" || NewerVersion(current.Changed, meta.ResourceVersion) {
		current.Changed = meta.ResourceVersion
	}
	now := tx.nowMilli()
	state := ""
	if target == s.fill { // each statement that sets it writes two indexes, too
		state = `state = 'complete', `
	}
	_, err = tx.tx.Exec(`UPDATE collection SET `+state+`kind = ?, api_version = ?, envelope = ?, resource_version = ?, list_version = ?,
		asked = ?, told = ?, read = ?, moved = 0, changed_version = ?, revision = revision + 1, synced_at = ?, used_at = ? WHERE id = ?`,
		meta.Kind, meta.APIVersion, meta.Envelope, meta.ResourceVersion, meta.ResourceVersion,
		s.when.Asked, s.when.Told, s.when.Read, current.Changed, now, now, target)
	if err != nil {
		return tx.wrapErr("commit snapshot", err)
	}
	if err := tx.settleList(s.scope); err != nil {
		return err
	}
	if err := s.doubtUnlisted(tx, unlisted, meta.ResourceVersion); err != nil {
		return err
	}
	return s.outline(tx, target, meta.ResourceVersion)
}

// merge moves the objects of fill into base, and deletes the objects that the list lacks. It
// reports whether base has changed.
func (s *Snapshot) merge(tx *Tx, base Collection) (changed bool, err error) {
	before, err := tx.count(s.base)
	if err != nil {
		return false, err
	}
	if s.same != nil && s.same.outdated.Load() {
		return false, fmt.Errorf("merge snapshot: %w", ErrBaseGone)
	}
	if s.compared && base.Revision != s.revision || !s.isOutlined(tx, before) {
		if err := s.rebase(tx); err != nil {
			return false, err
		}
	}
	if s.fill == 0 && before.count == s.unchanged.len() { // which are all there
		return false, nil
	}
	if changed, err = s.dropUnlisted(tx, base); err != nil {
		return false, err
	}
	var moved int64
	if s.fill != 0 {
		res, err := tx.tx.Exec(`UPDATE OR REPLACE object SET collection_id = ? WHERE collection_id = ?`, s.base, s.fill)
		if err == nil {
			moved, err = res.RowsAffected()
		}
		if err != nil {
			return false, tx.wrapErr("merge snapshot", err)
		}
		if err := tx.dropCollection(s.fill); err != nil {
			return false, err
		}
	}
	// Damage to an index may have hidden a row.
	after, err := tx.count(s.base)
	if err != nil {
		return false, err
	}
	if listed := s.unchanged.len() + moved; after.count != listed {
		return false, tx.wrapErr("check snapshot", fmt.Errorf("%w: %d rows of a list of %d objects", ErrCorrupt, after.count, listed))
	}
	return changed || moved > 0, nil
}

// mergeBatch bounds the rows of base that are in memory at once.
const mergeBatch = 500

// dropUnlisted deletes the objects of base that are neither unchanged nor in fill: the list lacks
// them. If they may exist all the same, that they did stays a fact.
func (s *Snapshot) dropUnlisted(tx *Tx, base Collection) (changed bool, err error) {
	var after Key
	for more := true; more; {
		rows, err := s.baseObjects(tx, after, mergeBatch)
		if err != nil {
			return false, err
		}
		more = len(rows) == mergeBatch
		for _, o := range rows {
			if after = o.Key(); o.refilled {
				s.unchanged.remove(o.id) // a bad list may have an object twice
				continue
			}
			if s.unchanged.has(o.id) {
				continue
			}
			changed = true
			if err := tx.removeRow(o.id); err != nil {
				return false, err
			}
			if e := base.evidenceOf(&o.Object); s.scope.Hides(o.Name) {
				e.Says = Exists
				if err := tx.Observe(s.scope.Of(), after, e); err != nil {
					return false, err
				}
			}
		}
	}
	return changed, nil
}

// baseObject is an object of base, without its payload. refilled means that fill has it, too.
type baseObject struct {
	id       int64
	refilled bool
	Object
}

// baseObjects returns the next objects of base after a key.
func (s *Snapshot) baseObjects(tx *Tx, after Key, most int) ([]baseObject, error) {
	out, err := collect(func(scan func(...any) error) (o baseObject, err error) {
		err = scan(&o.id, &o.Namespace, &o.Name, &o.UID, &o.ResourceVersion, &o.Asked, &o.Told, &o.Read, &o.refilled)
		return o, err
	})(tx.tx.Query(`SELECT id, namespace, name, uid, resource_version, asked, told, read, EXISTS (SELECT 1 FROM object f WHERE f.collection_id = ?1 AND f.namespace = o.namespace AND f.name = o.name)
		FROM object o WHERE collection_id = ?2 AND (namespace, name) > (?3, ?4) ORDER BY namespace, name LIMIT ?5`, s.fill, s.base, after.Namespace, after.Name, most))
	return out, tx.wrapErr("compare snapshot", err)
}

// Confirm records that a list, which events have overtaken while it came in, was asked for later
// than the list that the collection comes from. The collection includes it.
func (tx *Tx) Confirm(c Collection, list Evidence) error {
	_, err := tx.tx.Exec(`UPDATE collection SET asked = ?, told = ?, read = ?, list_version = ?, revision = revision + 1 WHERE id = ?`, list.Asked, list.Told, list.Read, list.Version, c.ID)
	if err != nil {
		return tx.wrapErr("confirm collection", err)
	}
	return tx.settleList(c.Scope)
}

// Abort deletes the rows recorded so far.
func (s *Snapshot) Abort(tx *Tx) error {
	if s.fill == 0 || s.file != tx.file {
		return nil
	}
	return tx.dropCollection(s.fill)
}
