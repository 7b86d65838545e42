package store

import (
	"database/sql"
	"errors"
	"fmt"
	"hash/maphash"
)

// Snapshot records a list in any number of transactions. The last one makes the list the
// scope's complete collection. Until then readers see the previous collection. Only objects
// that differ from the previous collection are written.
//
// A Snapshot is for one goroutine. When one of its transactions fails, call Abort.
type Snapshot struct {
	scope Scope
	file  *file // in which it was begun; nil: not begun
	base  int64 // the complete collection, where unchanged objects stay; 0: none
	fill  int64 // the filling collection, of objects that differ from base; 0: none yet
	items map[Key]itemState
}

// itemState is the state of an object in base and in the list.
type itemState struct {
	fingerprint fingerprint
	recorded    bool // in base
	listed      bool
}

// fingerprint stands for an object's content. It includes the payload: after a restore from
// a backup, the same resourceVersion can stand for other content.
type fingerprint struct {
	version  uint64 // hash of uid, resourceVersion and encoding
	checksum uint32 // of the payload
	size     uint32
}

var hashSeed = maphash.MakeSeed()

func fingerprintOf(uid, resourceVersion string, encoding Encoding, checksum int64, size int) fingerprint {
	var h maphash.Hash
	h.SetSeed(hashSeed)
	for _, s := range [...]string{uid, resourceVersion, string(encoding)} {
		_, _ = h.WriteString(s) // never fails
		_ = h.WriteByte(0)
	}
	return fingerprint{h.Sum64(), uint32(checksum), uint32(size)}
}

// NewSnapshot starts to record a list of scope. It writes nothing before Add.
func NewSnapshot(scope Scope) *Snapshot {
	return &Snapshot{scope: scope, items: map[Key]itemState{}}
}

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
	if s.base, s.file = c.ID, tx.file; s.base == 0 {
		return nil
	}
	return s.load(tx)
}

// load reads the objects of base at once: one query an object costs several times as much.
// Events may change base meanwhile. Such a change is older than the list, and is written
// twice, or it makes the list too old to be committed.
func (s *Snapshot) load(tx *Tx) error {
	rows, err := tx.tx.Query(`SELECT namespace, name, uid, resource_version, encoding, checksum, size FROM object WHERE collection_id = ?`, s.base)
	if err != nil {
		return tx.wrapErr("load collection", err)
	}
	defer rows.Close()
	var (
		key          Key
		uid, version sql.RawBytes
		encoding     Encoding
		sum          int64
		size         int
	)
	for rows.Next() {
		if err := rows.Scan(&key.Namespace, &key.Name, &uid, &version, &encoding, &sum, &size); err != nil {
			return tx.wrapErr("load collection", err)
		}
		s.items[key] = itemState{fingerprint: fingerprintOf(string(uid), string(version), encoding, sum, size), recorded: true}
	}
	return tx.wrapErr("load collection", rows.Err())
}

// Add records an item of the list.
func (s *Snapshot) Add(tx *Tx, o Object) error {
	if err := s.begin(tx); err != nil {
		return err
	}
	key := Key{o.Namespace, o.Name}
	before := s.items[key]
	s.items[key] = itemState{before.fingerprint, before.recorded, true}
	if before.recorded && before.fingerprint == fingerprintOf(o.UID, o.ResourceVersion, o.Encoding, checksum(o.Payload), len(o.Payload)) {
		return nil
	}
	if err := s.beginFill(tx); err != nil {
		return err
	}
	return tx.Put(s.fill, o)
}

func (s *Snapshot) beginFill(tx *Tx) (err error) {
	if s.fill == 0 {
		s.fill, err = tx.create(s.scope, Filling)
	}
	return err
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
	target := s.base
	if target == 0 {
		if err := s.beginFill(tx); err != nil {
			return err
		}
		target = s.fill
	} else if err := s.merge(tx); err != nil {
		return err
	}
	now := tx.nowMilli()
	_, err = tx.tx.Exec(`UPDATE collection SET state = 'complete', kind = ?, api_version = ?, envelope = ?, resource_version = ?,
		revision = revision + 1, synced_at = ?, used_at = ? WHERE id = ?`, meta.Kind, meta.APIVersion, meta.Envelope, meta.ResourceVersion, now, now, target)
	return tx.wrapErr("commit snapshot", err)
}

// merge moves the objects of fill into base, and deletes the objects that the list lacks.
func (s *Snapshot) merge(tx *Tx) error {
	deleted, err := s.unlisted(tx)
	if err != nil {
		return err
	}
	for _, key := range deleted {
		if err := tx.Remove(s.base, key.Namespace, key.Name); err != nil {
			return err
		}
	}
	if s.fill == 0 {
		return nil
	}
	if _, err := tx.tx.Exec(`UPDATE OR REPLACE object SET collection_id = ? WHERE collection_id = ?`, s.base, s.fill); err != nil {
		return tx.wrapErr("merge snapshot", err)
	}
	return tx.dropCollection(s.fill)
}

// unlisted returns the objects of base that the list lacks.
func (s *Snapshot) unlisted(tx *Tx) (deleted []Key, err error) {
	rows, err := tx.tx.Query(`SELECT namespace, name FROM object WHERE collection_id = ?`, s.base)
	if err != nil {
		return nil, tx.wrapErr("compare snapshot", err)
	}
	defer rows.Close()
	for rows.Next() {
		var key Key
		if err := rows.Scan(&key.Namespace, &key.Name); err != nil {
			return nil, tx.wrapErr("compare snapshot", err)
		}
		if !s.items[key].listed {
			deleted = append(deleted, key)
		}
	}
	return deleted, tx.wrapErr("compare snapshot", rows.Err())
}

// Abort deletes the rows recorded so far.
func (s *Snapshot) Abort(tx *Tx) error {
	if s.fill == 0 || s.file != tx.file {
		return nil
	}
	return tx.dropCollection(s.fill)
}
