package store

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"time"
)

// Resource identifies the objects that evidence is about, in every form and API version.
type Resource struct{ Principal, Group, Resource string }

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

// Of is the resource of the scope.
func (s Scope) Of() Resource { return Resource{s.Principal, s.Group, s.Resource} }

// APIPath is the path of the scope's API: /api/VERSION or /apis/GROUP/VERSION.
func (s Scope) APIPath() string {
	if s.Group == "" {
		return "/api/" + s.Version
	}
	return "/apis/" + s.Group + "/" + s.Version
}

// Path is the path of the scope's list.
func (s Scope) Path() string {
	path := s.APIPath()
	if s.Namespace != "" {
		path += "/namespaces/" + s.Namespace
	}
	return path + "/" + s.Resource
}

// Selects reports whether the scope has a selector, so that an object may be missing from its
// collection although it exists.
func (s Scope) Selects() bool { return s.LabelSelector != "" || s.FieldSelector != "" }

// singles is the scope of the resource's singles, of the same form.
func (s Scope) singles() Scope {
	s.Namespace, s.LabelSelector, s.FieldSelector = "", "", ""
	return s
}

// form is what objects of the scope are recorded as: those of one form can stand for each other.
func (s Scope) form() string { return s.Version + " " + s.Representation + " " + s.MediaType }

// State of a collection.
type State string

// The states, as in schema.sql.
const (
	Complete State = "complete"
	Filling  State = "filling"
	Single   State = "seen" // of singles: objects that were read, written or told by an event alone
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
	State State
	// ListVersion, Asked, Told and Read are of the list that the collection comes from; see
	// Evidence.
	ListVersion string
	Asked, Told int64
	Read        Read
	Moved       int64     // DB.Next when the last event was applied; 0: none since the list
	Changed     string    // version of the last change; later versions only move the collection on
	Revision    int64     // counts the changes to this collection, apart from UsedAt
	SyncedAt    time.Time // when it last equalled the server's state
	UsedAt      time.Time // when it was last recorded or replayed
}

const collectionColumns = `id, principal, api_group, version, resource, representation, namespace, label_selector, field_selector, media_type,
	state, kind, api_version, envelope, resource_version, list_version, asked, told, read, moved, changed_version, revision, synced_at, used_at`

func fromMilli(ms int64) time.Time { return time.UnixMilli(ms) }

func scanCollection(scan func(...any) error) (c Collection, err error) {
	var synced, used int64
	err = scan(&c.ID, &c.Principal, &c.Group, &c.Version, &c.Resource, &c.Representation, &c.Namespace, &c.LabelSelector, &c.FieldSelector, &c.MediaType,
		&c.State, &c.Kind, &c.APIVersion, &c.Envelope, &c.ResourceVersion, &c.ListVersion, &c.Asked, &c.Told, &c.Read, &c.Moved, &c.Changed, &c.Revision, &synced, &used)
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
	find := func() ([]Collection, error) {
		return file.findCollections(ctx, "list collections", `WHERE principal = ? AND api_group = ? AND version = ? AND resource = ? AND state <> 'filling' ORDER BY id`,
			principal, group, version, resource)
	}
	if file.attached {
		return find()
	}
	return file.collections.get([4]string{principal, group, version, resource}, find)
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
		out, err = collect(scanCollection)(read.QueryContext(ctx, `SELECT `+collectionColumns+` FROM collection `+where, args...))
		return err
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

// Move is a step of a collection to a later version.
type Move struct {
	ResourceVersion string
	Changed         string // version of the last change of an object; empty: none has changed
	Told            int64  // DB.Next when the last event came
}

// Advance records that the collection, with the changes of this transaction, equals the
// server's state at the version of the move.
func (tx *Tx) Advance(id int64, m Move) error {
	now := tx.nowMilli()
	_, err := tx.stmt(tx.file.stmts.advance).Exec(m.ResourceVersion, m.Told, m.Changed, m.Changed, now, now, id)
	return tx.wrapErr("advance collection", err)
}

// Position is the evidence that a complete collection gives of an object that it lacks.
func (c *Collection) Position() Evidence {
	return Evidence{
		Says: Gone, Version: c.ResourceVersion, Asked: c.Asked, Told: max(c.Told, c.Moved), Read: c.Read, Moved: c.Moved > c.Told,
	}
}

// UnchangedSince is the version since which the objects are surely the same. A list does not show
// what came and went before it.
func (c *Collection) UnchangedSince() string {
	if NewerVersion(c.ListVersion, c.Changed) {
		return c.ListVersion
	}
	return c.Changed
}

// Listed is the evidence of the list that the collection comes from.
func (c *Collection) Listed() Evidence {
	return Evidence{Says: Present, Version: c.ListVersion, Asked: c.Asked, Told: c.Told, Read: c.Read}
}

// touch counts a change that leaves the resourceVersion as it is.
func (tx *Tx) touch(id int64) error {
	_, err := tx.tx.Exec(`UPDATE collection SET revision = revision + 1, moved = ?, used_at = ? WHERE id = ?`, tx.db.next.Load(), tx.nowMilli(), id)
	return tx.wrapErr("touch collection", err)
}

// dropCollection deletes a collection with its objects.
func (tx *Tx) dropCollection(id int64) error {
	gone := func(in scopedOutline) bool { return in.Outline != nil && in.collection == id }
	tx.file.outlines.drop(gone)
	tx.dropOutlines(gone)
	_, err := tx.tx.Exec(`DELETE FROM collection WHERE id = ?`, id)
	return tx.wrapErr("drop collection", err)
}

// Complete returns the complete collections of a resource that have objects of a namespace; empty:
// all of them.
func (tx *Tx) Complete(res Resource, namespace string) ([]Collection, error) {
	out, err := collect(scanCollection)(tx.tx.Query(`SELECT `+collectionColumns+` FROM collection WHERE principal = ?1 AND api_group = ?2 AND resource = ?3 AND state = 'complete'
		AND (?4 = '' OR namespace IN ('', ?4))`, res.Principal, res.Group, res.Resource, namespace))
	return out, tx.wrapErr("list collections", err)
}
