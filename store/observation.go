package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"sync"
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
	o.At = time.UnixMilli(at)
	return o, json.Unmarshal([]byte(uids), &o.UIDs)
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
	e := o.evidence()
	if c.State == Complete {
		e.Until = c.ResourceVersion
	}
	if c.State == Complete && o.Told <= c.Told {
		e.Asked, e.Told, e.Read = c.Asked, c.Told, c.Read
	}
	return e
}

func collectRows(rows *sql.Rows, err error) (out []row, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		r, err := scanRow(rows.Scan)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

func (tx *Tx) singleRows(res Resource, key Key) ([]row, error) {
	out, err := collectRows(tx.stmt(tx.file.stmts.singles).Query(key.Namespace, key.Name, res.Principal, res.Group, res.Resource))
	return out, tx.wrapErr("find single objects", err)
}

func (tx *Tx) allRows(res Resource, key Key) ([]row, error) {
	out, err := collectRows(tx.tx.Query(rowsOf, key.Namespace, key.Name, res.Principal, res.Group, res.Resource))
	return out, tx.wrapErr("find objects", err)
}

// observation returns the observation of a key, if there is one.
func (tx *Tx) observation(res Resource, key Key) (o Observation, ok bool, err error) {
	o, err = scanObservation(tx.stmt(tx.file.stmts.observation).QueryRow(res.Principal, res.Group, res.Resource, key.Namespace, key.Name).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return o, false, nil
	}
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
	if e.Floor = floor; e.Version != "" {
		tx.db.known.raise(res, e.Version)
	}
	var rows []row
	if key.Name != "" {
		if rows, err = tx.allRows(res, key); err != nil {
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
	if found {
		fresh := e
		e = combine(old.Evidence, fresh)
		same := e.Says == old.Says && e.Version == old.Version && slices.Equal(e.UIDs, old.UIDs)
		recent := e.Says == Gone && len(rows) == 0 && (time.Duration(now-old.At.UnixMilli())*time.Millisecond).Abs() < renewObservation
		if same && (e.Told == old.Told || recent) {
			return nil
		}
	}
	for _, r := range rows {
		if r.state == Single && e.Newer(r.evidence) && !e.Agrees(r.evidence) {
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
	listed := slices.ContainsFunc(rows, func(r row) bool { return r.state == Complete })
	if e.Says != Refused && (e.Says != Gone || listed) {
		tx.said = append(tx.said, Said{res, key, e.Version})
	}
	return nil
}

// ObserveObjects records that objects exist at their versions, as a list in a namespace, empty: in
// all of them, has shown without their content. Of the whole list it also records that there are
// no others.
func (tx *Tx) ObserveObjects(res Resource, namespace string, objects []Object, whole bool, list Evidence) error {
	listed := map[Key]bool{}
	for i := range objects {
		o := &objects[i]
		listed[o.Key()] = true
		e := list
		e.Says, e.Version = Exists, o.ResourceVersion
		rows, err := tx.allRows(res, o.Key())
		if err != nil {
			return err
		}
		if slices.ContainsFunc(rows, func(r row) bool { return e.Agrees(r.evidence) && slices.Contains(r.evidence.UIDs, o.UID) }) {
			continue
		}
		if err := tx.Observe(res, o.Key(), e); err != nil {
			return err
		}
	}
	if !whole {
		return nil
	}
	recorded, err := tx.recordedKeys(res, namespace)
	if err != nil {
		return err
	}
	for _, key := range recorded {
		if listed[key] {
			continue
		}
		e := list
		e.Says = Gone
		if err := tx.Observe(res, key, e); err != nil {
			return err
		}
	}
	return nil
}

// recordedKeys returns the objects of a resource that are recorded in a namespace; empty: in all.
func (tx *Tx) recordedKeys(res Resource, namespace string) (out []Key, err error) {
	rows, err := tx.tx.Query(`SELECT DISTINCT o.namespace, o.name FROM collection c JOIN object o ON o.collection_id = c.id
		WHERE c.principal = ?1 AND c.api_group = ?2 AND c.resource = ?3 AND c.state <> 'filling' AND ?4 IN ('', o.namespace)
		UNION SELECT namespace, name FROM observation WHERE principal = ?1 AND api_group = ?2 AND resource = ?3 AND ?4 IN ('', namespace) AND name <> '' AND says <> 'gone'`,
		res.Principal, res.Group, res.Resource, namespace)
	if err != nil {
		return nil, tx.wrapErr("list recorded objects", err)
	}
	defer rows.Close()
	for rows.Next() {
		var key Key
		if err := rows.Scan(&key.Namespace, &key.Name); err != nil {
			return nil, tx.wrapErr("list recorded objects", err)
		}
		out = append(out, key)
	}
	return out, tx.wrapErr("list recorded objects", rows.Err())
}

// combine is what is known of a key by two pieces of evidence, of which fresh came later.
func combine(old, fresh Evidence) Evidence {
	switch {
	case fresh.Asked < old.Told && !fresh.Agrees(old): // they were under way together
	case old.Says == Exists && fresh.Says == Exists: // both are true, and the version says more
		if old.Newer(fresh) {
			old, fresh = fresh, old
		}
		if fresh.Version == "" {
			fresh.Version, fresh.Read = old.Version, old.Read
		}
		return fresh
	case old.Newer(fresh):
		return old
	case old.Says == Refused && fresh.Says == Refused:
		return fresh
	case fresh.Says == Gone && old.Says == Gone:
		fresh.UIDs = append(fresh.UIDs, old.UIDs...)
		if fresh.Version == "" && old.Version != "" { // both are true, and the version says more
			fresh.Floor = later(fresh.Floor, old.Version)
		}
		if fresh.Read != Latest && old.Read == Latest {
			fresh.Asked, fresh.Read = old.Asked, old.Read
		}
		return fresh
	case fresh.Newer(old) && fresh.Says == Gone:
		return fresh
	case fresh.Newer(old) && fresh.Version != "":
		return fresh
	}
	// Without a version, evidence says nothing about the states that the older one excludes.
	return Evidence{
		Says: Unknown, Floor: later(later(old.Floor, old.Version), later(fresh.Floor, fresh.Version)),
		Asked: max(old.Asked, fresh.Asked), Told: fresh.Told, Read: Latest,
	}
}

// later is the later of two versions; the second, if that is not known.
func later(a, b string) string {
	if b == "" || NewerVersion(a, b) {
		return a
	}
	return b
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
	rows, err := tx.tx.Query(`SELECT principal, api_group, resource, `+namespace+`, max(asked), max(told) FROM observation WHERE `+which+bound+`
		GROUP BY principal, api_group, resource, `+namespace, maxObservations*3/4)
	if err != nil {
		return tx.wrapErr("prune observations", err)
	}
	var doubts []Said
	var when []Evidence
	for rows.Next() {
		var d Said
		e := Evidence{Says: Unknown, Read: Latest}
		if err := rows.Scan(&d.Principal, &d.Group, &d.Resource.Resource, &d.Namespace, &e.Asked, &e.Told); err != nil {
			return tx.wrapErr("prune observations", errors.Join(err, rows.Close()))
		}
		doubts, when = append(doubts, d), append(when, e)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return tx.wrapErr("prune observations", err)
	}
	if _, err := tx.tx.Exec(`DELETE FROM observation WHERE `+which+bound, maxObservations*3/4); err != nil {
		return tx.wrapErr("prune observations", err)
	}
	for i, d := range doubts {
		if err := tx.observe(d.Resource, d.Key, when[i]); err != nil {
			return err
		}
	}
	return nil
}

// settle deletes what the state e of an object supersedes: its observation, older singles, and the
// same single in a form that a collection has now; empty: none. It reports whether e itself is
// superseded by an observation.
func (tx *Tx) settle(res Resource, key Key, e Evidence, form string) (superseded bool, err error) {
	tx.db.known.raise(res, e.Version)
	o, found, err := tx.observation(res, key)
	switch {
	case err != nil:
		return false, err
	case found && e.Newer(o.Evidence):
		if err := tx.dropObservation(res, key); err != nil {
			return false, err
		}
	case found && o.Newer(e) && !o.Agrees(e):
		superseded = true
	}
	rows, err := tx.singleRows(res, key)
	if err != nil {
		return false, err
	}
	for _, r := range rows {
		if agrees := e.Agrees(r.evidence); agrees && r.form == form || !agrees && e.Newer(r.evidence) {
			if err := tx.removeRow(r.id); err != nil {
				return false, err
			}
		}
	}
	return superseded, nil
}

// PutEvent adds or replaces an object of a collection that an event has shown.
func (tx *Tx) PutEvent(collection int64, s Scope, o Object) error {
	if _, err := tx.settle(s.Of(), o.Key(), o.evidence(), s.form()); err != nil {
		return err
	}
	return tx.Put(collection, o)
}

// RemoveEvent deletes an object from a collection, as an event has said at a version. told is
// DB.Next when it came. From a collection with a selector an object is also deleted when it is not
// selected any more: then it is unknown.
func (tx *Tx) RemoveEvent(collection int64, s Scope, key Key, e Evidence) error {
	if s.Hides(key.Name) {
		e.Says = Unknown
		if err := tx.Observe(s.Of(), key, e); err != nil {
			return err
		}
	} else if _, err := tx.settle(s.Of(), key, e, ""); err != nil {
		return err
	}
	return tx.Remove(collection, key.Namespace, key.Name)
}

// Hides reports whether an object of a name may exist although the scope's collection lacks it.
func (s Scope) Hides(name string) bool {
	return s.LabelSelector != "" || s.FieldSelector != "" && s.FieldSelector != "metadata.name="+name
}

// settleList deletes what the scope's new list supersedes: observations, and singles.
func (tx *Tx) settleList(s Scope) error {
	c, err := tx.Collection(s, Complete)
	if err != nil {
		return err
	}
	res := s.Of()
	tx.db.known.raise(res, c.ResourceVersion)
	type superseded struct {
		table string
		id    int64
	}
	var drop []superseded
	for table, query := range map[string]string{
		"observation": `SELECT t.id, '', t.namespace, t.name, t.says, t.version, t.floor, t.asked, t.told, t.read, t.uids, o.uid, o.resource_version, o.asked, o.told, o.read
			FROM observation t LEFT JOIN object o ON o.collection_id = ?1 AND o.namespace = t.namespace AND o.name = t.name
			WHERE t.principal = ?2 AND t.api_group = ?3 AND t.resource = ?4 AND ?5 IN ('', t.namespace)`,
		"object": `SELECT t.id, c.version || ' ' || c.representation || ' ' || c.media_type, t.namespace, t.name, 'present', t.resource_version, '', t.asked, t.told, t.read, json_array(t.uid),
				o.uid, o.resource_version, o.asked, o.told, o.read
			FROM collection c JOIN object t ON t.collection_id = c.id LEFT JOIN object o ON o.collection_id = ?1 AND o.namespace = t.namespace AND o.name = t.name
			WHERE c.state = 'seen' AND c.principal = ?2 AND c.api_group = ?3 AND c.resource = ?4 AND ?5 IN ('', t.namespace)`,
	} {
		rows, err := tx.tx.Query(query, c.ID, res.Principal, res.Group, res.Resource, s.Namespace)
		if err != nil {
			return tx.wrapErr("settle list", err)
		}
		for rows.Next() {
			var id int64
			var form, uids string
			var key Key
			var e Evidence
			var item nullObject
			if err := rows.Scan(&id, &form, &key.Namespace, &key.Name, &e.Says, &e.Version, &e.Floor, &e.Asked, &e.Told, &e.Read, &uids,
				&item.uid, &item.version, &item.asked, &item.told, &item.read); err != nil {
				return tx.wrapErr("settle list", errors.Join(err, rows.Close()))
			}
			if err := json.Unmarshal([]byte(uids), &e.UIDs); err != nil {
				return errors.Join(err, rows.Close())
			}
			mine, ok := c.about(key, item)
			if key.Name == "" {
				mine, ok = c.listed(), !s.Selects()
			}
			agrees := mine.Agrees(e) && (table == "observation" || form != s.form())
			if _, numeric := ParseVersion(c.ResourceVersion); e.Says == Gone && mine.Says == Gone && !numeric {
				continue // no version tells a late event of the deleted object; its uid does
			}
			if ok && mine.Newer(e) && (table != "object" || !agrees) {
				drop = append(drop, superseded{table, id})
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return tx.wrapErr("settle list", err)
		}
	}
	for _, d := range drop {
		if _, err := tx.tx.Exec(`DELETE FROM `+d.table+` WHERE id = ?`, d.id); err != nil {
			return tx.wrapErr("settle list", err)
		}
	}
	return nil
}

// nullObject is an object of a collection, or none.
type nullObject struct {
	uid, version, read sql.NullString
	asked, told        sql.NullInt64
}

// about is what the collection says of an object; ok is false if it says nothing.
func (c *Collection) about(key Key, item nullObject) (e Evidence, ok bool) {
	if item.uid.Valid {
		return c.evidenceOf(&Object{
			UID: item.uid.String, ResourceVersion: item.version.String, Asked: item.asked.Int64, Told: item.told.Int64, Read: Read(item.read.String),
		}), true
	}
	return c.Position(), c.State == Complete && !c.Hides(key.Name)
}

func (tx *Tx) removeRow(id int64) error {
	_, err := tx.tx.Exec(`DELETE FROM object WHERE id = ?`, id)
	return tx.wrapErr("remove object", err)
}

func (tx *Tx) dropObservation(res Resource, key Key) error {
	_, err := tx.tx.Exec(`DELETE FROM observation WHERE principal = ? AND api_group = ? AND resource = ? AND namespace = ? AND name = ?`,
		res.Principal, res.Group, res.Resource, key.Namespace, key.Name)
	return tx.wrapErr("drop observation", err)
}

// IsOlder reports whether a list that was allowed to lag is older than what is known of its resource.
func (tx *Tx) IsOlder(res Resource, list Evidence) (bool, error) {
	known, err := tx.floor(res)
	return list.Read == Lagging && NewerVersion(known, list.Version), err
}

// DropRolledBack deletes what is recorded of the list's resource with a version above its own, and
// was told before the list was asked for: the cluster was restored from a backup, and those
// versions never happened. The list is recorded already.
func (tx *Tx) DropRolledBack(s Scope, list Evidence) error {
	res := s.Of()
	known, err := tx.floor(res)
	if err != nil || list.Read != Latest || !NewerVersion(known, list.Version) {
		return err
	}
	own, err := tx.Collection(s, Complete)
	if err != nil {
		return err
	}
	for _, t := range []struct{ rows, drop string }{
		{`SELECT id, resource_version, max(told, moved) FROM collection WHERE principal = ? AND api_group = ? AND resource = ? AND state = 'complete' AND id <> ?`, `DELETE FROM collection WHERE id = ?`},
		{`SELECT o.id, o.resource_version, o.told FROM collection c JOIN object o ON o.collection_id = c.id
			WHERE c.principal = ? AND c.api_group = ? AND c.resource = ? AND c.state = 'seen' AND c.id <> ?`, `DELETE FROM object WHERE id = ?`},
		{`SELECT id, CASE version WHEN '' THEN floor ELSE version END, told FROM observation WHERE principal = ? AND api_group = ? AND resource = ? AND ? >= 0`, `DELETE FROM observation WHERE id = ?`},
	} {
		rows, err := tx.tx.Query(t.rows, res.Principal, res.Group, res.Resource, own.ID)
		if err != nil {
			return tx.wrapErr("drop rolled-back versions", err)
		}
		var ids []int64
		for rows.Next() {
			var id, told int64
			var version string
			if err := rows.Scan(&id, &version, &told); err != nil {
				return tx.wrapErr("drop rolled-back versions", errors.Join(err, rows.Close()))
			}
			if told < list.Asked && NewerVersion(version, list.Version) {
				ids = append(ids, id)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return tx.wrapErr("drop rolled-back versions", err)
		}
		for _, id := range ids {
			if _, err := tx.tx.Exec(t.drop, id); err != nil {
				return tx.wrapErr("drop rolled-back versions", err)
			}
		}
	}
	tx.db.known.forget(res) // it is found again in what is left
	return nil
}

// knownVersions has the highest version of each resource that is known, as far as versions are
// numbers. It only grows, except after a restore from a backup: a transaction that fails has told
// the client all the same.
type knownVersions struct {
	mu sync.Mutex
	of map[Resource]uint64
}

func (k *knownVersions) raise(res Resource, version string) {
	n, ok := ParseVersion(version)
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if old, known := k.of[res]; known { // else floor reads the rows first
		k.of[res] = max(old, n)
	}
}

func (k *knownVersions) forget(res Resource) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.of, res)
}

// floor returns the highest version of a resource that is known; empty: none.
func (tx *Tx) floor(res Resource) (string, error) {
	k := &tx.db.known
	k.mu.Lock()
	defer k.mu.Unlock()
	highest, ok := k.of[res]
	if !ok {
		rows, err := tx.tx.Query(`SELECT resource_version FROM collection WHERE principal = ?1 AND api_group = ?2 AND resource = ?3 AND state = 'complete'
			UNION ALL SELECT o.resource_version FROM collection c JOIN object o ON o.collection_id = c.id WHERE c.principal = ?1 AND c.api_group = ?2 AND c.resource = ?3 AND c.state = 'seen'
			UNION ALL SELECT version FROM observation WHERE principal = ?1 AND api_group = ?2 AND resource = ?3
			UNION ALL SELECT floor FROM observation WHERE principal = ?1 AND api_group = ?2 AND resource = ?3`, res.Principal, res.Group, res.Resource)
		if err != nil {
			return "", tx.wrapErr("find highest version", err)
		}
		defer rows.Close()
		for rows.Next() {
			var version string
			if err := rows.Scan(&version); err != nil {
				return "", tx.wrapErr("find highest version", err)
			}
			n, _ := ParseVersion(version)
			highest = max(highest, n)
		}
		if err := rows.Err(); err != nil {
			return "", tx.wrapErr("find highest version", err)
		}
		if k.of == nil {
			k.of = map[Resource]uint64{}
		}
		k.of[res] = highest
	}
	if highest == 0 {
		return "", nil
	}
	return strconv.FormatUint(highest, 10), nil
}
