package store

import (
	"context"
	"database/sql"
	"errors"
)

// Known is everything that is recorded about one object.
type Known struct {
	States       []ObjectState
	Lists        []*Collection // complete ones that lack the object; not to be changed
	Observations []Observation // of the object, its namespace, and its resource
	HasResponse  bool          // a response to the request is recorded
}

// ObjectState is one recorded state of an object.
type ObjectState struct {
	Collection *Collection // not to be changed
	Object     Object      // without its payload; see Payload
	row        int64
	payload    []byte // nil: it was not read yet
	checksum   int64
}

// Evidence is what the state says.
func (s *ObjectState) Evidence() Evidence { return s.Collection.evidenceOf(&s.Object) }

// Doubted reports whether an observation of a scope makes the collection's list doubtful for the
// objects in a namespace; empty: of all namespaces.
func (c *Collection) Doubted(o Observation, namespace string) bool {
	if o.Name != "" || o.Namespace != "" && namespace != "" && o.Namespace != namespace {
		return false
	}
	if o.Says == Refused && o.Namespace == "" && c.Namespace != "" {
		return false // the lists of single namespaces may still be allowed
	}
	if order, ok := CompareVersions(c.ResourceVersion, o.Version); ok && o.Version != "" && order >= 0 {
		return order > 0 && o.Newer(c.Position()) // in a restored cluster
	}
	return !c.Listed().Newer(o.Evidence)
}

// Known returns everything that is recorded about one object, in every form and API version, and
// whether there is a response to a GET for the path and the Accept header.
func (db *DB) Known(ctx context.Context, res Resource, key Key, path, accept string) (k Known, err error) {
	file, release, err := db.acquire()
	if err != nil {
		return k, err
	}
	defer release()
	asked, generation := question{res, key, path, accept}, file.collections.generation.Load()
	k, ok := file.remembered.get(asked, generation)
	if !ok {
		if k, err = db.find(ctx, file, asked); err != nil {
			return k, err
		}
		if !file.attached { // else nobody tells when the database changes
			file.remembered.put(asked, generation, k)
		}
	}
	for i := range k.Observations {
		db.renewals.apply(res, &k.Observations[i])
	}
	return k, nil
}

// find is Known as the file has it, without renewals.
func (db *DB) find(ctx context.Context, file *file, asked question) (k Known, err error) {
	// One statement sees one state of the database. A transaction is only needed where collections
	// have changed, which are then read by a second one.
	err = file.query("find object", func(read *sql.DB) error {
		k, err = file.knownBy(ctx, read, false, asked)
		return err
	})
	if !errors.Is(err, errOutdated) {
		return k, err
	}
	err = file.view(ctx, "find object", func(tx *sql.Tx) error {
		k, err = file.knownBy(ctx, tx, true, asked)
		return err
	})
	return k, err
}

// errOutdated means that a collection has changed since its copy was made.
var errOutdated = errors.New("a collection has changed")

// querier is a transaction, or a connection for single statements.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// The parts of knownQuery.
const (
	partCollections = iota
	partState
	partObservation
)

// knownQuery finds all about an object by one statement, whose parts stand one after the other.
// Each step to a row, and each column, costs calls to C: so the collections are one row of text.
// The payload comes with a state if the states are few, as nearly always. Columns mean something
// else in each part; see knownRow.
const knownQuery = `SELECT 0, EXISTS (SELECT 1 FROM response WHERE principal = ?1 AND path = ?6 AND accept = ?7 AND question = ''),
		0, 0, 0, 0, '', '', '', '', '', 0, group_concat(id || ' ' || revision, ' ')
	FROM collection WHERE principal = ?1 AND api_group = ?2 AND resource = ?3 AND namespace IN (?4, '') AND state <> 'filling'
	UNION ALL SELECT 1, id, collection_id, updated_at, asked, told, read, uid, resource_version, labels, encoding, checksum,
		CASE WHEN (SELECT count(*) FROM object WHERE namespace = ?4 AND name = ?5) <= 2 THEN CAST(payload AS BLOB) END
	FROM object WHERE namespace = ?4 AND name = ?5
	UNION ALL SELECT 2, namespace = ?4, 0, at, asked, told, read, name, version, uids, says, 0, floor
	FROM observation WHERE principal = ?1 AND api_group = ?2 AND resource = ?3 AND namespace IN (?4, '') AND name IN (?5, '')`

// knownRow is a row of knownQuery.
type knownRow struct {
	part            int
	id              int64 // of the state; whether there is a response; whether it is the object's namespace
	collection      int64 // of the state
	at, asked, told int64
	read            Read
	uid             string // of the state; name of the observation
	version         string
	labels          string // of the state; uids of the observation
	says            string // of the observation; encoding of the state
	checksum        int64
	payload         []byte // of the state, or nil; floor of the observation; the collections
}

// knownBy is find. Outdated copies are read again, or errOutdated is returned.
func (f *file) knownBy(ctx context.Context, q querier, refresh bool, asked question) (k Known, err error) {
	key := asked.Key
	rows, err := q.QueryContext(ctx, knownQuery, asked.Principal, asked.Group, asked.Resource.Resource, key.Namespace, key.Name, asked.path, asked.accept)
	if err != nil {
		return k, err
	}
	defer rows.Close()
	var r knownRow
	var pairs string    // of the collections
	var belongs []int64 // the collection of each state, which may be of another resource
	for rows.Next() {
		if err := rows.Scan(&r.part, &r.id, &r.collection, &r.at, &r.asked, &r.told, &r.read, &r.uid, &r.version, &r.labels, &r.says, &r.checksum, &r.payload); err != nil {
			return k, err
		}
		switch r.part {
		case partCollections:
			pairs, k.HasResponse = string(r.payload), r.id != 0
		case partState:
			k.States, belongs = append(k.States, r.state(key)), append(belongs, r.collection)
		case partObservation:
			o, err := r.observation(key)
			if err != nil {
				return k, err
			}
			if o.Name == "" || o.Namespace == key.Namespace {
				k.Observations = append(k.Observations, o)
			}
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return k, err
	}
	all, err := f.copies.of(ctx, q, refresh, pairs)
	if err == nil {
		k.assign(belongs, all, key)
	}
	return k, err
}

func (r *knownRow) state(key Key) ObjectState {
	return ObjectState{row: r.id, payload: r.payload, checksum: r.checksum, Object: Object{
		Namespace: key.Namespace, Name: key.Name, UID: r.uid, ResourceVersion: r.version, Labels: r.labels,
		Encoding: Encoding(r.says), UpdatedAt: fromMilli(r.at), Asked: r.asked, Told: r.told, Read: r.read,
	}}
}

func (r *knownRow) observation(key Key) (Observation, error) {
	about := Key{Name: r.uid}
	if r.id != 0 {
		about.Namespace = key.Namespace
	}
	e := Evidence{Says: Says(r.says), Version: r.version, Floor: string(r.payload), Asked: r.asked, Told: r.told, Read: r.read}
	return observationOf(about, e, r.labels, r.at)
}

// assign gives the states their collections, and keeps those of the resource. It finds the lists
// without the object.
func (k *Known) assign(belongs []int64, all []*Collection, key Key) {
	byID := make(map[int64]*Collection, len(all))
	for _, c := range all {
		byID[c.ID] = c
	}
	states := k.States[:0]
	for i, id := range belongs {
		if c := byID[id]; c != nil {
			k.States[i].Collection = c
			states = append(states, k.States[i])
			delete(byID, id)
		}
	}
	k.States = states
	for _, c := range all {
		if byID[c.ID] != nil && c.State == Complete && (c.FieldSelector == "" || c.FieldSelector == "metadata.name="+key.Name) {
			k.Lists = append(k.Lists, c)
		}
	}
}

func (db *DB) observations(ctx context.Context, tx *sql.Tx, where string, res Resource, args ...any) ([]Observation, error) {
	return collect(func(scan func(...any) error) (Observation, error) {
		o, err := scanObservation(scan)
		db.renewals.apply(res, &o)
		return o, err
	})(tx.QueryContext(ctx, `SELECT `+observationColumns+` FROM observation WHERE principal = ? AND api_group = ? AND resource = ?`+where,
		append([]any{res.Principal, res.Group, res.Resource}, args...)...))
}

// Payload returns the payload of a state, or ErrChanged if it must be read and another one has
// replaced it.
func (db *DB) Payload(ctx context.Context, s *ObjectState) (payload []byte, err error) {
	if s.payload != nil {
		return s.payload, verifyChecksum(s.payload, s.checksum)
	}
	err = db.read("read object", func(read *sql.DB) error {
		var sum int64
		err := read.QueryRowContext(ctx, `SELECT CAST(payload AS BLOB), checksum FROM object WHERE id = ? AND resource_version = ? AND told = ?`,
			s.row, s.Object.ResourceVersion, s.Object.Told).Scan(&payload, &sum)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrChanged
		}
		if err != nil {
			return err
		}
		return verifyChecksum(payload, sum)
	})
	return payload, err
}
