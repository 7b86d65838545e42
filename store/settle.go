package store

import (
	"database/sql"
	"slices"
)

// settle deletes what the state e of an object supersedes: its observation, older singles, and the
// same single in a form that a collection has now; empty: none. It reports whether e itself is
// superseded by an observation.
func (tx *Tx) settle(res Resource, key Key, e Evidence, form string) (superseded bool, err error) {
	tx.db.known.raise(res, e.Version)
	_, numeric := ParseVersion(e.Version)
	o, found, err := tx.observation(res, key)
	switch {
	case err != nil:
		return false, err
	case found && e.Newer(o.Evidence):
		if o.Says == Gone && !numeric {
			break // no version tells a late event of the deleted object; its uid does
		}
		if err := tx.dropObservation(res, key); err != nil {
			return false, err
		}
	case found && !o.Agrees(e): // a list may tell which is right
		superseded = o.Newer(e)
		tx.said = append(tx.said, Said{Resource: res, Key: key})
		if err := tx.putRenewal(res, o); err != nil {
			return false, err
		}
		if by := o.over(e); superseded && by.Floor != o.Floor {
			o.Evidence = by
			if err := tx.rewrite(res, o); err != nil {
				return false, err
			}
		}
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
	key, e := o.Key(), o.Evidence()
	unlisted, err := tx.isUnlistedEvent(s, key, e)
	if err != nil {
		return err
	}
	if _, err := tx.settle(s.Of(), key, e, s.form()); err != nil {
		return err
	}
	if unlisted {
		if err := tx.observe(s.Of(), key, doubtOf(e, e)); err != nil {
			return err
		}
	}
	return tx.Put(collection, o)
}

// RemoveEvent deletes an object from a collection, as an event has said at a version. told is
// DB.Next when it came. From a collection with a selector an object is also deleted when it is not
// selected any more: then it is unknown.
func (tx *Tx) RemoveEvent(collection int64, s Scope, key Key, e Evidence) error {
	if s.Hides(key.Name) {
		e.Says, e.UIDs = Unknown, nil
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
	_, numeric := ParseVersion(c.ResourceVersion)
	args := []any{c.ID, res.Principal, res.Group, res.Resource, s.Namespace}
	var kept []Observation
	err = tx.dropIf("observation", `SELECT t.id, t.namespace, t.name, t.says, t.version, t.floor, t.asked, t.told, t.read, t.uids, t.at, o.uid, o.resource_version, o.asked, o.told, o.read
		FROM observation t LEFT JOIN object o ON o.collection_id = ?1 AND o.namespace = t.namespace AND o.name = t.name
		WHERE t.principal = ?2 AND t.api_group = ?3 AND t.resource = ?4 AND ?5 IN ('', t.namespace)`, args,
		func(scan func(...any) error) (id int64, drop bool, err error) {
			var item nullObject
			o, err := scanObservation(func(into ...any) error { return scan(append(append([]any{&id}, into...), item.fields()...)...) })
			tx.db.renewals.apply(res, &o)
			if o.Name == "" {
				return id, !s.Selects() && c.Listed().Newer(o.Evidence), err
			}
			mine, ok := c.about(o.Key, item)
			if ok = ok && mine.Newer(o.Evidence) && (numeric || o.Says != Gone); !ok { // as in settle
				kept = append(kept, o)
			}
			return id, ok, err
		})
	if err != nil {
		return err
	}
	for _, o := range kept {
		if err := tx.putRenewal(res, o); err != nil {
			return err
		}
	}
	return tx.dropIf("object", `SELECT t.id, c.version || ' ' || c.representation || ' ' || c.media_type, t.namespace, t.name, t.uid, t.resource_version, t.asked, t.told, t.read,
			o.uid, o.resource_version, o.asked, o.told, o.read
		FROM collection c JOIN object t ON t.collection_id = c.id LEFT JOIN object o ON o.collection_id = ?1 AND o.namespace = t.namespace AND o.name = t.name
		WHERE c.state = 'seen' AND c.principal = ?2 AND c.api_group = ?3 AND c.resource = ?4 AND ?5 IN ('', t.namespace)`, args,
		func(scan func(...any) error) (id int64, drop bool, err error) {
			var form string
			var t Object
			var item nullObject
			err = scan(append([]any{&id, &form, &t.Namespace, &t.Name, &t.UID, &t.ResourceVersion, &t.Asked, &t.Told, &t.Read}, item.fields()...)...)
			mine, ok := c.about(t.Key(), item)
			anotherForm := form != s.form() && mine.Agrees(t.Evidence())
			return id, ok && mine.Newer(t.Evidence()) && !anotherForm, err
		})
}

// Unsettled reports whether there are observations or singles of a scope's objects, which its list
// has not superseded.
func (tx *Tx) Unsettled(s Scope) (is bool, err error) {
	c, err := tx.Collection(s, Complete)
	if err != nil {
		return false, err
	}
	err = tx.tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM observation t WHERE principal = ?1 AND api_group = ?2 AND resource = ?3 AND (namespace = '' OR ?4 IN ('', namespace))
			AND (says <> 'gone' OR EXISTS (SELECT 1 FROM object o WHERE o.collection_id = ?5 AND o.namespace = t.namespace AND o.name = t.name)))
		OR EXISTS (SELECT 1 FROM collection c JOIN object o ON o.collection_id = c.id
			WHERE c.principal = ?1 AND c.api_group = ?2 AND c.resource = ?3 AND c.state = 'seen' AND ?4 IN ('', o.namespace))`,
		s.Principal, s.Group, s.Resource, s.Namespace, c.ID).Scan(&is)
	return is, tx.wrapErr("find what a list has not superseded", err)
}

// dropIf deletes the rows of a table for which which reports drop. It is called for each row of a
// query, whose first column is the row's id.
func (tx *Tx) dropIf(table, query string, args []any, which func(scan func(...any) error) (id int64, drop bool, err error)) error {
	ids, err := collect(func(scan func(...any) error) (int64, error) {
		id, drop, err := which(scan)
		if !drop {
			id = 0 // that of no row
		}
		return id, err
	})(tx.tx.Query(query, args...))
	if err != nil {
		return tx.wrapErr("find superseded rows", err)
	}
	for _, id := range ids {
		if id == 0 {
			continue
		}
		if table == "collection" {
			if err := tx.dropCollection(id); err != nil {
				return err
			}
			continue
		}
		if _, err := tx.tx.Exec(`DELETE FROM `+table+` WHERE id = ?`, id); err != nil {
			return tx.wrapErr("delete superseded rows", err)
		}
	}
	return nil
}

// nullObject is an object of a collection, or none.
type nullObject struct {
	uid, version, read sql.NullString
	asked, told        sql.NullInt64
}

func (o *nullObject) fields() []any { return []any{&o.uid, &o.version, &o.asked, &o.told, &o.read} }

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
	tx.db.renewals.remove(res, key)
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
// was told before the list was asked for: those versions never happened. The list is recorded
// already.
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
	found := false
	never := func(scan func(...any) error) (id int64, drop bool, err error) {
		var told int64
		var version string
		err = scan(&id, &version, &told)
		drop = told < list.Asked && NewerVersion(version, list.Version)
		found = found || drop
		return id, drop, err
	}
	args := []any{res.Principal, res.Group, res.Resource, own.ID}
	for _, t := range []struct{ table, rows string }{
		{"collection", `SELECT id, resource_version, max(told, moved) FROM collection WHERE principal = ?1 AND api_group = ?2 AND resource = ?3 AND state = 'complete' AND id <> ?4`},
		{"object", `SELECT o.id, o.resource_version, o.told FROM collection c JOIN object o ON o.collection_id = c.id
			WHERE c.principal = ?1 AND c.api_group = ?2 AND c.resource = ?3 AND c.state = 'seen' AND c.id <> ?4`},
		{"observation", `SELECT id, CASE version WHEN '' THEN floor ELSE version END, told FROM observation WHERE principal = ?1 AND api_group = ?2 AND resource = ?3 AND ?4 > 0`},
	} {
		if err := tx.dropIf(t.table, t.rows, args, never); err != nil {
			return err
		}
	}
	tx.db.known.forget(res) // it is found again in what is left
	if !found {
		return nil
	}
	return tx.doubtBefore(res, list)
}

// compare notes that evidence about an object is of an older version than what was told of it before
// it was asked for. If the latest state was asked for, the cluster was restored from a backup. Else
// the cache of the API server may lag: a list tells.
func (tx *Tx) compare(res Resource, key Key, e Evidence, rows []row) error {
	older := func(known Evidence) bool {
		return e.Asked < e.Told && e.Asked > known.Told && NewerVersion(known.Version, e.Version)
	}
	found := slices.ContainsFunc(rows, func(r row) bool { return older(r.evidence) })
	switch {
	case e.Read == Latest:
		o, _, err := tx.observation(res, key)
		if err == nil && (found || older(o.Evidence)) {
			err = tx.doubtBefore(res, e)
		}
		return err
	case found:
		tx.symptoms = append(tx.symptoms, Symptom{res, key, e})
	}
	return nil
}

// doubtBefore records that nothing of a resource counts that was told before an answer was asked
// for: the cluster was restored since.
func (tx *Tx) doubtBefore(res Resource, answer Evidence) error {
	before := answer.Asked - 1
	return tx.observe(res, Key{}, Evidence{Says: Unknown, Asked: before, Told: before, Read: Latest})
}
