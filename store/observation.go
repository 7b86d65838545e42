package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
)

const (
	// maxObservations bounds the observations; the latest stay. Each has some hundred bytes.
	maxObservations = 4096
	// pruneEvery is after how many observations their number is looked at.
	pruneEvery = 64
	// maxUIDs bounds the UIDs of one observation; the latest stay.
	maxUIDs = 16
	// renewObservation is the age at which an observation is rewritten only to renew it. A
	// program that keeps asking for an absent object must not wear out the disk.
	renewObservation = time.Minute
)

// Observation is evidence about an object that is not shown, or about all objects of a scope.
type Observation struct {
	Key // without a name: all objects of the namespace; without a namespace, too: of the resource
	Evidence
	At time.Time // when the answer came, for Age
}

const observationColumns = `namespace, name, says, version, floor, asked, told, read, uids, at`

func scanObservation(scan func(...any) error) (o Observation, err error) {
	var uids string
	var at int64
	if err := scan(&o.Namespace, &o.Name, &o.Says, &o.Version, &o.Floor, &o.Asked, &o.Told, &o.Read, &uids, &at); err != nil {
		return o, err
	}
	return observationOf(o.Key, o.Evidence, uids, at)
}

// observationOf is an observation with its columns uids and at.
func observationOf(key Key, e Evidence, uids string, at int64) (Observation, error) {
	err := json.Unmarshal([]byte(uids), &e.UIDs)
	return Observation{Key: key, Evidence: e, At: time.UnixMilli(at)}, err
}

// row is a recorded state of an object.
type row struct {
	id       int64
	state    State
	form     string // API version, representation and media type
	evidence Evidence
}

// rowsOf selects the recorded states of one object of a resource. CROSS JOIN makes SQLite begin with
// the index of the objects: of the resource there may be a thousand collections.
const rowsOf = `SELECT o.id, o.uid, o.resource_version, o.asked, o.told, o.read, c.state, c.version, c.representation, c.media_type, c.resource_version, c.asked, c.told, c.read
	FROM object o CROSS JOIN collection c ON c.id = o.collection_id
	WHERE o.namespace = ? AND o.name = ? AND c.principal = ? AND c.api_group = ? AND c.resource = ? AND c.state <> 'filling'`

func scanRow(scan func(...any) error) (r row, err error) {
	var o Object
	var c Collection
	if err := scan(&r.id, &o.UID, &o.ResourceVersion, &o.Asked, &o.Told, &o.Read, &c.State, &c.Version, &c.Representation, &c.MediaType, &c.ResourceVersion, &c.Asked, &c.Told, &c.Read); err != nil {
		return r, err
	}
	r.state, r.form = c.State, c.form()
	r.evidence = c.evidenceOf(&o)
	return r, nil
}

// evidenceOf is what an object in the collection says. The list that confirmed it counts, unless
// the object came later.
func (c *Collection) evidenceOf(o *Object) Evidence {
	e := o.Evidence()
	if c.State == Complete {
		e.Floor = c.ResourceVersion
	}
	if c.State == Complete && o.Told <= c.Told {
		e.Asked, e.Told, e.Read = c.Asked, c.Told, c.Read
	}
	return e
}

func (tx *Tx) singleRows(res Resource, key Key) ([]row, error) {
	out, err := collect(scanRow)(tx.stmt(tx.file.stmts.singles).Query(key.Namespace, key.Name, res.Principal, res.Group, res.Resource))
	return out, tx.wrapErr("find single objects", err)
}

func (tx *Tx) allRows(res Resource, key Key) ([]row, error) {
	out, err := collect(scanRow)(tx.tx.Query(rowsOf, key.Namespace, key.Name, res.Principal, res.Group, res.Resource))
	return out, tx.wrapErr("find objects", err)
}

// observation returns the observation of a key, if there is one.
func (tx *Tx) observation(res Resource, key Key) (o Observation, ok bool, err error) {
	o, err = scanObservation(tx.stmt(tx.file.stmts.observation).QueryRow(res.Principal, res.Group, res.Resource, key.Namespace, key.Name).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return o, false, nil
	}
	tx.db.renewals.apply(res, &o)
	return o, err == nil, tx.wrapErr("find observation", err)
}

// Observe records evidence about an object that is not shown, or about all objects of a scope: its
// key has no name then. It deletes singles that the evidence supersedes.
func (tx *Tx) Observe(res Resource, key Key, e Evidence) error {
	if err := tx.observe(res, key, e); err != nil {
		return err
	}
	return tx.pruneObservations()
}

func (tx *Tx) observe(res Resource, key Key, e Evidence) error {
	now := tx.nowMilli()
	floor, err := tx.floor(res)
	if err != nil {
		return err
	}
	tx.db.known.raise(res, later(e.Version, e.Floor))
	if e.Floor = later(floor, e.Floor); e.Version != "" {
		e.Floor = ""
	}
	var rows []row
	if key.Name != "" {
		if rows, err = tx.allRows(res, key); err != nil {
			return err
		}
		if err := tx.compare(res, key, e, rows); err != nil {
			return err
		}
	}
	if e.Says == Gone && e.Read == Latest {
		for _, r := range rows {
			if r.evidence.Told < e.Asked {
				e.UIDs = append(e.UIDs, r.evidence.UIDs...)
			}
		}
	}
	old, found, err := tx.observation(res, key)
	if err != nil {
		return err
	}
	fresh := e
	if found {
		e = combine(old.Evidence, fresh)
		same := e.Says == old.Says && e.Version == old.Version && e.Read == old.Read && slices.Equal(e.UIDs, old.UIDs)
		recent := e.Says == Gone && len(rows) == 0 && (time.Duration(now-old.At.UnixMilli())*time.Millisecond).Abs() < renewObservation
		if same && (e.Told == old.Told && e.Floor == old.Floor || recent && tx.db.renewals.put(res, key, e)) {
			return nil
		}
	}
	for _, r := range rows {
		// A version of an older answer says nothing about what the object was later.
		supersedes := e.Newer(r.evidence) && !e.Agrees(r.evidence) && (e.Says != Exists || !fresh.Agrees(r.evidence))
		if r.state == Single && supersedes {
			e = e.over(r.evidence)
			if err := tx.removeRow(r.id); err != nil {
				return err
			}
		}
	}
	slices.Sort(e.UIDs)
	e.UIDs = slices.DeleteFunc(slices.Compact(e.UIDs), func(uid string) bool { return uid == "" })
	uids, err := json.Marshal(append([]string{}, e.UIDs[max(0, len(e.UIDs)-maxUIDs):]...))
	if err != nil {
		return err
	}
	_, err = tx.tx.Exec(`INSERT OR REPLACE INTO observation (principal, api_group, resource, `+observationColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		res.Principal, res.Group, res.Resource, key.Namespace, key.Name, e.Says, e.Version, e.Floor, e.Asked, e.Told, e.Read, string(uids), now)
	if err != nil {
		return tx.wrapErr("put observation", err)
	}
	tx.db.renewals.remove(res, key)
	listed := slices.ContainsFunc(rows, func(r row) bool { return r.state == Complete })
	if e.Says != Refused && (e.Says != Gone || listed) {
		tx.said = append(tx.said, Said{res, key, e.Version})
	}
	return nil
}

// ObserveObjects records that objects exist at their versions, as a list of a scope has shown
// without their content. Of the whole list it also records that there are no others. matches reports
// whether labels, a JSON object, are those that the scope selects.
func (tx *Tx) ObserveObjects(s Scope, objects []Object, whole bool, list Evidence, matches func(labels string) bool) error {
	res := s.Of()
	tx.db.verbatim.raise(res, list.Version)
	listed := map[Key]bool{}
	for i := range objects {
		o := &objects[i]
		listed[o.Key()] = true
		e := list
		e.Says, e.Version, e.UIDs = Exists, o.ResourceVersion, []string{o.UID}
		rows, err := tx.allRows(res, o.Key())
		if err != nil {
			return err
		}
		if slices.ContainsFunc(rows, func(r row) bool { return e.Agrees(r.evidence) }) {
			continue
		}
		if err := tx.Observe(res, o.Key(), e); err != nil {
			return err
		}
	}
	if !whole {
		return nil
	}
	recorded, err := tx.recorded(res, s.Namespace)
	if err != nil {
		return err
	}
	if name, ok := strings.CutPrefix(s.FieldSelector, "metadata.name="); ok && !s.Hides(name) && len(objects) == 0 {
		recorded = append(recorded, Object{Namespace: s.Namespace, Name: name}) // that name is absent
	}
	for _, o := range recorded {
		e := list
		switch {
		case listed[o.Key()]:
			continue
		case !s.Hides(o.Name):
			e.Says = Gone
		case s.LabelSelector != "" && s.FieldSelector == "" && o.Labels != "" && matches(o.Labels): // it has not these labels any more
			e.Says = Unknown
		default:
			continue
		}
		if err := tx.Observe(res, o.Key(), e); err != nil {
			return err
		}
	}
	return nil
}

// recorded returns the objects of a resource that are recorded in a namespace; empty: in all. Each
// has its labels in one recorded state, or none if it is only known to exist.
func (tx *Tx) recorded(res Resource, namespace string) ([]Object, error) {
	out, err := collect(func(scan func(...any) error) (o Object, err error) {
		err = scan(&o.Namespace, &o.Name, &o.Labels)
		return o, err
	})(tx.tx.Query(`SELECT DISTINCT o.namespace, o.name, o.labels FROM collection c JOIN object o ON o.collection_id = c.id
		WHERE c.principal = ?1 AND c.api_group = ?2 AND c.resource = ?3 AND c.state <> 'filling' AND ?4 IN ('', o.namespace)
		UNION SELECT namespace, name, '' FROM observation WHERE principal = ?1 AND api_group = ?2 AND resource = ?3 AND ?4 IN ('', namespace) AND name <> '' AND says <> 'gone'`,
		res.Principal, res.Group, res.Resource, namespace))
	return out, tx.wrapErr("list recorded objects", err)
}

// pruneObservations keeps their number bounded: it drops the oldest quarter. What is dropped about
// objects becomes a doubt of their namespace, and what is dropped about a namespace one of the
// resource. Counting costs, so it looks only once in a while.
func (tx *Tx) pruneObservations() error {
	if tx.db.observed.Add(1)%pruneEvery != 0 {
		return nil
	}
	for _, of := range []struct{ which, namespace string }{{`name <> ''`, `namespace`}, {`name = '' AND namespace <> ''`, `''`}} {
		var last sql.NullInt64
		err := tx.tx.QueryRow(`SELECT id FROM observation WHERE `+of.which+` ORDER BY id DESC LIMIT 1 OFFSET ?`, maxObservations).Scan(&last)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return tx.wrapErr("prune observations", err)
		}
		if err := tx.pruneOldest(of.which, of.namespace); err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) pruneOldest(which, namespace string) error {
	const oldest = ` AND id <= (SELECT id FROM observation WHERE `
	bound := oldest + which + ` ORDER BY id DESC LIMIT 1 OFFSET ?)`
	type doubt struct {
		Resource
		Key
		Evidence
	}
	doubts, err := collect(func(scan func(...any) error) (d doubt, err error) {
		d.Says, d.Read = Unknown, Latest
		err = scan(&d.Principal, &d.Group, &d.Resource.Resource, &d.Namespace, &d.Asked, &d.Told)
		return d, err
	})(tx.tx.Query(`SELECT principal, api_group, resource, `+namespace+`, max(asked), max(told) FROM observation WHERE `+which+bound+`
		GROUP BY principal, api_group, resource, `+namespace, maxObservations*3/4))
	if err != nil {
		return tx.wrapErr("prune observations", err)
	}
	if _, err := tx.tx.Exec(`DELETE FROM observation WHERE `+which+bound, maxObservations*3/4); err != nil {
		return tx.wrapErr("prune observations", err)
	}
	for _, d := range doubts {
		if err := tx.observe(d.Resource, d.Key, d.Evidence); err != nil {
			return err
		}
	}
	return nil
}
