package store

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"
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

// maxGivenUp bounds the objects that GiveUp and Split record alone.
const maxGivenUp = 1000

// GiveUp records the objects that were added as singles, except those that are known to be as in the
// previous collection: the rest of the list will not come. The singles' scope and the kind are those
// of PutSingle. If there are too many, the scope becomes doubtful instead.
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

// baseRow is an object of base without its payload.
type baseRow struct {
	Key
	id           int64
	uid, version string
	encoding     Encoding
	checksum     int64
	size         int
	// observed means that there is an observation of it, which the list may contradict: a kill must
	// not undo that.
	observed bool
}

// equals reports whether the object is unchanged. That includes the payload: after a restore from a
// backup, the same resourceVersion can stand for other content.
func (r *baseRow) equals(o *Object) bool {
	return r.uid == o.UID && r.version == o.ResourceVersion && r.encoding == o.Encoding && r.size == len(o.Payload) && r.checksum == checksum(o.Payload)
}

// maxLookahead bounds the rows that a lookahead reads at once.
const maxLookahead = 256

// lookahead finds objects of base by their keys. The items of a list come in nearly the order of
// the index, so it reads many objects at once: one query an object costs several times as much. Out
// of order it reads few.
//
// Events may change base meanwhile. Such a change is older than the list, and is written twice, or
// it makes the list too old to be committed.
type lookahead struct {
	rows  []baseRow // in the order of the index, without gaps
	last  bool      // there are none after them
	most  int       // how many were read at once
	found int       // how many of them were found
}

// find returns the object of base with a key, nil if there is none.
func (l *lookahead) find(tx *Tx, res Resource, base int64, key Key) (*baseRow, error) {
	if base == 0 {
		return nil, nil
	}
	i, found := slices.BinarySearchFunc(l.rows, key, func(r baseRow, key Key) int { return r.compare(key) })
	before, after := i == 0 && !found, i == len(l.rows)
	if before || after && !l.last {
		if l.most = min(2*l.most, maxLookahead); 2*l.found < len(l.rows) || l.most == 0 {
			l.most = 1
		}
		if err := l.read(tx, res, base, key); err != nil {
			return nil, err
		}
		i, found = 0, len(l.rows) > 0 && l.rows[0].Key == key
	}
	if !found {
		return nil, nil
	}
	l.found++
	return &l.rows[i], nil
}

func (l *lookahead) read(tx *Tx, res Resource, base int64, from Key) error {
	l.rows, l.found = l.rows[:0], 0
	rows, err := tx.tx.Query(`SELECT id, namespace, name, uid, resource_version, encoding, checksum, size, EXISTS (SELECT 1 FROM observation t
			WHERE t.principal = ?1 AND t.api_group = ?2 AND t.resource = ?3 AND t.namespace = o.namespace AND t.name = o.name) FROM object o
		WHERE collection_id = ?4 AND (namespace, name) >= (?5, ?6) ORDER BY namespace, name LIMIT ?7`,
		res.Principal, res.Group, res.Resource, base, from.Namespace, from.Name, l.most)
	if err != nil {
		return tx.wrapErr("load collection", err)
	}
	defer rows.Close()
	for rows.Next() {
		var r baseRow
		if err := rows.Scan(&r.id, &r.Namespace, &r.Name, &r.uid, &r.version, &r.encoding, &r.checksum, &r.size, &r.observed); err != nil {
			return tx.wrapErr("load collection", err)
		}
		l.rows = append(l.rows, r)
	}
	l.last = len(l.rows) < l.most
	return tx.wrapErr("load collection", rows.Err())
}

// idSet is a set of row ids. Rows that were written together take one bit each.
type idSet map[int64]uint64 // by id / 64

func (s idSet) add(id int64)      { s[id>>6] |= 1 << (id & 63) }
func (s idSet) remove(id int64)   { s[id>>6] &^= 1 << (id & 63) }
func (s idSet) has(id int64) bool { return s[id>>6]>>(id&63)&1 == 1 }

func (s idSet) len() (n int64) {
	for _, word := range s {
		n += int64(bits.OnesCount64(word))
	}
	return n
}
