package store

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"time"
)

// Scope identifies a collection: who read which objects, in which form.
type Scope struct {
	Principal                string
	Group, Version, Resource string
	Representation           string
	Namespace                string // empty: cluster-scoped, or all namespaces
	LabelSelector            string // canonical
	FieldSelector            string // canonical
	MediaType                string
}

// State of a collection.
type State string

// The states, as in schema.sql.
const (
	Complete State = "complete"
	Filling  State = "filling"
	Single   State = "seen" // of singles: objects read by GET alone
)

// CollectionMeta describes a collection, apart from its objects.
type CollectionMeta struct {
	Kind, APIVersion string // of one object
	Envelope         string // JSON of the list without items and resourceVersion
	ResourceVersion  string
}

// Collection is one recorded scope.
type Collection struct {
	ID int64
	Scope
	CollectionMeta
	State    State
	Revision int64     // counts the changes to this collection
	SyncedAt time.Time // when it last equalled the server's state
	UsedAt   time.Time // when it was last recorded or replayed
}

const collectionColumns = `id, principal, api_group, version, resource, representation, namespace, label_selector, field_selector, media_type,
	state, kind, api_version, envelope, resource_version, revision, synced_at, used_at`

func scanCollection(scan func(...any) error) (c Collection, err error) {
	var synced, used int64
	err = scan(&c.ID, &c.Principal, &c.Group, &c.Version, &c.Resource, &c.Representation, &c.Namespace, &c.LabelSelector, &c.FieldSelector, &c.MediaType,
		&c.State, &c.Kind, &c.APIVersion, &c.Envelope, &c.ResourceVersion, &c.Revision, &synced, &used)
	c.SyncedAt, c.UsedAt = time.UnixMilli(synced), time.UnixMilli(used)
	return c, err
}

// Collections returns the collections of a resource that can be read, complete ones and
// singles, in every scope of the principal. The caller must not change the slice: it is
// shared until the next change of the database.
func (db *DB) Collections(ctx context.Context, principal, group, version, resource string) (all []Collection, err error) {
	file, release, err := db.acquire()
	if err != nil {
		return nil, err
	}
	defer release()
	return file.collections.get([4]string{principal, group, version, resource}, func() ([]Collection, error) {
		return file.findCollections(ctx, "list collections", `WHERE principal = ? AND api_group = ? AND version = ? AND resource = ? AND state <> 'filling' ORDER BY id`,
			principal, group, version, resource)
	})
}

// maxCachedLists bounds the cached results of Collections.
const maxCachedLists = 64

// collectionCache holds results of Collections. Every offline request needs one, and the
// query takes a third of the time of a response.
type collectionCache struct {
	generation atomic.Uint64 // counts the changes of the database

	mu       sync.Mutex
	validFor uint64 // the generation before the lists were read
	lists    map[[4]string][]Collection
}

// invalidate must be called after each commit, before Update returns.
func (c *collectionCache) invalidate() { c.generation.Add(1) }

func (c *collectionCache) get(key [4]string, read func() ([]Collection, error)) ([]Collection, error) {
	current := c.generation.Load()
	c.mu.Lock()
	all, ok := c.lists[key]
	ok = ok && c.validFor == current
	c.mu.Unlock()
	if ok {
		return all, nil
	}
	all, err := read()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lists == nil || c.validFor != current || len(c.lists) >= maxCachedLists {
		c.validFor, c.lists = current, map[[4]string][]Collection{}
	}
	c.lists[key] = all
	return all, nil
}

func (f *file) findCollections(ctx context.Context, op, where string, args ...any) (out []Collection, err error) {
	err = f.query(op, func(read *sql.DB) error {
		rows, err := read.QueryContext(ctx, `SELECT `+collectionColumns+` FROM collection `+where, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			c, err := scanCollection(rows.Scan)
			if err != nil {
				return err
			}
			out = append(out, c)
		}
		return rows.Err()
	})
	return out, err
}

// Collection finds the collection of a scope in a state other than Filling.
func (tx *Tx) Collection(s Scope, state State) (Collection, error) {
	c, err := scanCollection(tx.stmt(tx.file.stmts.findCollection).QueryRow(
		s.Principal, s.Group, s.Version, s.Resource, s.Representation, s.Namespace, s.LabelSelector, s.FieldSelector, s.MediaType, state).Scan)
	return c, tx.wrapErr("find collection", err)
}

// create adds an empty collection, with an id that was never used before: the id of a
// collection whose transaction was rolled back must not lead to another collection.
func (tx *Tx) create(s Scope, state State) (int64, error) {
	id := tx.db.lastID.Add(1)
	_, err := tx.tx.Exec(`INSERT INTO collection
		(id, principal, api_group, version, resource, representation, namespace, label_selector, field_selector, media_type, state, synced_at, used_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)`,
		id, s.Principal, s.Group, s.Version, s.Resource, s.Representation, s.Namespace, s.LabelSelector, s.FieldSelector, s.MediaType, state, tx.nowMilli())
	return id, tx.wrapErr("create collection", err)
}

// Advance records that the collection, with the changes of this transaction, equals the
// server's state at resourceVersion.
func (tx *Tx) Advance(id int64, resourceVersion string) error {
	now := tx.nowMilli()
	_, err := tx.stmt(tx.file.stmts.advance).Exec(resourceVersion, now, now, id)
	return tx.wrapErr("advance collection", err)
}

// touch counts a change that leaves the resourceVersion as it is.
func (tx *Tx) touch(id int64) error {
	_, err := tx.tx.Exec(`UPDATE collection SET revision = revision + 1, used_at = ? WHERE id = ?`, tx.nowMilli(), id)
	return tx.wrapErr("touch collection", err)
}

// dropCollection deletes a collection with its objects.
func (tx *Tx) dropCollection(id int64) error {
	_, err := tx.tx.Exec(`DELETE FROM collection WHERE id = ?`, id)
	return tx.wrapErr("drop collection", err)
}
