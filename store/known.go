package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
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
	// One statement sees one state of the database. A transaction is only needed where collections
	// have changed, which are then read by a second one.
	err = db.read("find object", func(read *sql.DB) error {
		k, err = db.knownBy(ctx, read, false, res, key, path, accept)
		return err
	})
	if !errors.Is(err, errOutdated) {
		return k, err
	}
	err = db.view(ctx, "find object", func(tx *sql.Tx) error {
		k, err = db.knownBy(ctx, tx, true, res, key, path, accept)
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

// knownQuery finds all about an object by one statement, whose parts stand one after the other. Each
// step to a row, and each column, costs calls to C: so the collections are one row of text. The
// payload comes with a state if the states are few, as nearly always. Columns mean something else in
// each part; see knownRow.
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

// knownBy is Known. Outdated copies are read again, or errOutdated is returned.
func (db *DB) knownBy(ctx context.Context, q querier, refresh bool, res Resource, key Key, path, accept string) (k Known, err error) {
	rows, err := q.QueryContext(ctx, knownQuery, res.Principal, res.Group, res.Resource, key.Namespace, key.Name, path, accept)
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
				db.renewals.apply(res, &o)
				k.Observations = append(k.Observations, o)
			}
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return k, err
	}
	all, err := db.file.copies.of(ctx, q, refresh, pairs)
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

// Selection says which objects of a resource a list is of.
type Selection struct {
	Range
	// Labels reports whether labels, a JSON object, are selected.
	Labels func(labels string) (bool, error)
	// Matches reports whether labels, a JSON object, match a label selector.
	Matches func(selector, labels string) (bool, error)
	// Fields reports whether the object is selected by its fields, as recorded in a collection.
	Fields func(Collection, Object) (bool, error)
}

// Overtaken reports whether something newer than the collection is known about any object of a
// selection, which is a part of the collection. Then the collection is an older state than its
// client has seen. by says what is newer.
func (db *DB) Overtaken(ctx context.Context, c Collection, s Selection) (by string, err error) {
	if s.Namespace == "" {
		s.Namespace = c.Namespace
	}
	if c.Namespace != "" && s.Namespace != c.Namespace {
		return "", nil // the selection is empty
	}
	err = db.view(ctx, "compare collection", func(tx *sql.Tx) error {
		if err := checkRevision(ctx, tx, c.ID, c.Revision); err != nil {
			return err
		}
		for _, find := range []func(context.Context, *sql.Tx, Collection, Selection) (string, error){db.overtakenByScope, db.overtakenByObservation, overtakenByObject, overtakenByAbsence} {
			if by, err = find(ctx, tx, c, s); by != "" || err != nil {
				return err
			}
		}
		return nil
	})
	return by, err
}

// overtakenByScope finds an observation of the scope that is newer than the collection's list.
func (db *DB) overtakenByScope(ctx context.Context, tx *sql.Tx, c Collection, s Selection) (string, error) {
	doubts, err := db.observations(ctx, tx, ` AND name = ''`, c.Of())
	for _, o := range doubts {
		if c.Doubted(o, s.Namespace) {
			return fmt.Sprintf("since then the server has said of it: %s", o.Says), nil
		}
	}
	return "", err
}

// overtakenByObservation finds an observation of an object that contradicts the collection.
func (db *DB) overtakenByObservation(ctx context.Context, tx *sql.Tx, c Collection, s Selection) (string, error) {
	where, args := s.conditions("t")
	rows, err := tx.QueryContext(ctx, `SELECT t.namespace, t.name, t.says, t.version, t.floor, t.asked, t.told, t.read, t.uids, t.at,
			o.uid, o.resource_version, o.asked, o.told, o.read, coalesce(o.labels, '')
		FROM observation t LEFT JOIN object o ON o.collection_id = ? AND o.namespace = t.namespace AND o.name = t.name
		WHERE t.name <> '' AND t.principal = ? AND t.api_group = ? AND t.resource = ?`+where,
		append([]any{c.ID, c.Principal, c.Group, c.Resource}, args...)...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	for rows.Next() {
		var item nullObject
		var labels string
		o, err := scanObservation(func(into ...any) error {
			return rows.Scan(append(into, &item.uid, &item.version, &item.asked, &item.told, &item.read, &labels)...)
		})
		if err != nil {
			return "", err
		}
		db.renewals.apply(c.Of(), &o)
		mine, ok := c.about(o.Key, item)
		if !ok {
			mine = c.Position() // for a selection, an object that is not selected is as good as gone
			if c.knew(o.Version) {
				continue
			}
		}
		if mine.Agrees(o.Evidence) || mine.Newer(o.Evidence) {
			continue
		}
		if item.uid.Valid && o.Says == Gone {
			if selected, err := s.Labels(labels); err != nil {
				return "", callbackError{err}
			} else if !selected {
				continue
			}
		}
		return fmt.Sprintf("since then the server has said of %s/%s: %s", o.Namespace, o.Name, o.Says), nil
	}
	return "", rows.Err()
}

// overtakenByObject finds an object in another collection that is newer than in this one.
func overtakenByObject(ctx context.Context, tx *sql.Tx, c Collection, s Selection) (string, error) {
	others, err := otherCollections(ctx, tx, c, s)
	if err != nil {
		return "", err
	}
	for _, other := range others {
		if by, err := overtakenIn(ctx, tx, c, other, s); by != "" || err != nil {
			return by, err
		}
	}
	return "", nil
}

// otherCollections returns the collections that may have anything newer about the selection.
func otherCollections(ctx context.Context, tx *sql.Tx, c Collection, s Selection) ([]Collection, error) {
	all, err := collect(scanCollection)(tx.QueryContext(ctx, `SELECT `+collectionColumns+` FROM collection
		WHERE principal = ? AND api_group = ? AND resource = ? AND state <> 'filling' AND id <> ?`, c.Principal, c.Group, c.Resource, c.ID))
	return slices.DeleteFunc(all, func(other Collection) bool {
		return other.Namespace != "" && s.Namespace != "" && other.Namespace != s.Namespace || other.State == Complete && c.includes(other)
	}), err
}

// knew reports whether the collection is of a state in which an object had a version already.
func (c *Collection) knew(version string) bool {
	order, ok := CompareVersions(version, c.ResourceVersion)
	return ok && order <= 0 && version != ""
}

// includes reports whether all that another list has said is older than the collection.
func (c *Collection) includes(other Collection) bool {
	mine, theirs := c.Position(), other.Position()
	if theirs.Read == Latest && theirs.Asked > mine.Told {
		return false // the cluster may have been restored since
	}
	order, ok := CompareVersions(other.UnchangedSince(), c.ResourceVersion)
	return ok && (order < 0 || order == 0 && theirs.Told <= mine.Told)
}

func overtakenIn(ctx context.Context, tx *sql.Tx, c, other Collection, s Selection) (string, error) {
	where, args := s.conditions("t")
	rows, err := tx.QueryContext(ctx, `SELECT t.id, t.namespace, t.name, t.uid, t.resource_version, t.labels, t.encoding, t.asked, t.told, t.read,
			o.uid, o.resource_version, o.asked, o.told, o.read, coalesce(o.labels, '')
		FROM object t LEFT JOIN object o ON o.collection_id = ? AND o.namespace = t.namespace AND o.name = t.name WHERE t.collection_id = ?`+where,
		append([]any{c.ID, other.ID}, args...)...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var t Object
		var item nullObject
		var labels string
		if err := rows.Scan(&id, &t.Namespace, &t.Name, &t.UID, &t.ResourceVersion, &t.Labels, &t.Encoding, &t.Asked, &t.Told, &t.Read,
			&item.uid, &item.version, &item.asked, &item.told, &item.read, &labels); err != nil {
			return "", err
		}
		theirs := other.evidenceOf(&t)
		mine, ok := c.about(Key{t.Namespace, t.Name}, item)
		if !ok {
			mine = c.Position()
			if c.FieldSelector != "" && c.knew(t.ResourceVersion) {
				continue
			}
		}
		if mine.Agrees(theirs) || mine.Newer(theirs) {
			continue
		}
		selected := false
		if item.uid.Valid {
			if selected, err = s.Labels(labels); err != nil {
				return "", callbackError{err}
			}
		}
		if !selected {
			if selected, err = s.selects(ctx, tx, other, t, id); err != nil {
				return "", err
			}
		}
		if selected {
			return fmt.Sprintf("%s/%s is newer than the list", t.Namespace, t.Name), nil
		}
	}
	return "", rows.Err()
}

// selects reports whether an object that is not in the collection would be selected.
func (s *Selection) selects(ctx context.Context, tx *sql.Tx, in Collection, o Object, id int64) (bool, error) {
	if ok, err := s.Labels(o.Labels); !ok || err != nil || s.Fields == nil {
		return ok, wrapCallback(err)
	}
	if err := tx.QueryRowContext(ctx, `SELECT CAST(payload AS BLOB) FROM object WHERE id = ?`, id).Scan(&o.Payload); err != nil {
		return false, err
	}
	ok, err := s.Fields(in, o)
	return ok, wrapCallback(err)
}

func wrapCallback(err error) error {
	if err == nil {
		return nil
	}
	return callbackError{err}
}

// overtakenByAbsence finds an object of the collection that a newer list lacks.
func overtakenByAbsence(ctx context.Context, tx *sql.Tx, c Collection, s Selection) (string, error) {
	others, err := otherCollections(ctx, tx, c, s)
	if err != nil {
		return "", err
	}
	var where string
	var args []any
	for _, other := range others {
		if other.State != Complete {
			continue
		}
		if other.Namespace != "" && s.Namespace == "" {
			where, args = Range{Namespace: other.Namespace, Name: s.Name}.conditions("t")
		} else {
			where, args = s.conditions("t")
		}
		rows, err := tx.QueryContext(ctx, `SELECT t.namespace, t.name, t.uid, t.resource_version, t.asked, t.told, t.read, t.labels FROM object t WHERE t.collection_id = ? AND ? IN ('', t.namespace)`+where+`
			AND NOT EXISTS (SELECT 1 FROM object o WHERE o.collection_id = ? AND o.namespace = t.namespace AND o.name = t.name)`,
			append(append([]any{c.ID, other.Namespace}, args...), other.ID)...)
		if err != nil {
			return "", err
		}
		for rows.Next() {
			var t Object
			if err := rows.Scan(&t.Namespace, &t.Name, &t.UID, &t.ResourceVersion, &t.Asked, &t.Told, &t.Read, &t.Labels); err != nil {
				return "", errors.Join(err, rows.Close())
			}
			if other.FieldSelector != "" && other.FieldSelector != c.FieldSelector && other.FieldSelector != "metadata.name="+t.Name {
				continue // it may be there, without the field
			}
			selected, err := s.Labels(t.Labels)
			if err == nil && selected && other.LabelSelector != "" {
				selected, err = s.Matches(other.LabelSelector, t.Labels)
			}
			if err != nil {
				return "", errors.Join(callbackError{err}, rows.Close())
			}
			if selected && !c.evidenceOf(&t).Newer(other.Position()) && !c.Position().Newer(other.Position()) {
				return fmt.Sprintf("%s/%s is missing in a newer list", t.Namespace, t.Name), rows.Close()
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return "", err
		}
	}
	return "", nil
}
