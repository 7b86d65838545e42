package store

import "errors"

// Exclusion says what must not be in the file.
type Exclusion interface {
	// Scope: a collection, of a namespace or, if that is empty, of all.
	Scope(group, resource, namespace string) bool
	// Object: one object. The namespace of a cluster-scoped one is empty.
	Object(group, resource, namespace string) bool
	// Path: the response to a request with this path and query.
	Path(path string) bool
}

// Exclude deletes what is excluded: collections, single objects, observations and, if responses is
// true, responses. It overwrites their bytes in the file with zeros. What stays is that nothing from
// before counts any more, by resource and namespace.
func (tx *Tx) Exclude(x Exclusion, responses bool) error {
	if _, err := tx.tx.Exec(`PRAGMA secure_delete = ON`); err != nil {
		return tx.wrapErr("exclude", err)
	}
	err := errors.Join(tx.excludeCollections(x), tx.excludeObservations(x))
	if err == nil && responses {
		err = tx.excludeResponses(x)
	}
	if _, off := tx.tx.Exec(`PRAGMA secure_delete = OFF`); off != nil {
		err = errors.Join(err, tx.wrapErr("exclude", off))
	}
	return err
}

func (tx *Tx) excludeCollections(x Exclusion) error {
	type row struct {
		id                                           int64
		principal, group, resource, namespace, state string
	}
	collections, err := queryAll(tx, `SELECT id, principal, api_group, resource, namespace, state FROM collection`, func(scan func(...any) error) (r row, err error) {
		return r, scan(&r.id, &r.principal, &r.group, &r.resource, &r.namespace, &r.state)
	})
	if err != nil {
		return err
	}
	for _, c := range collections {
		if State(c.state) != Single {
			if x.Scope(c.group, c.resource, c.namespace) {
				if err := tx.forgetBefore(Resource{c.principal, c.group, c.resource}, c.namespace); err != nil {
					return err
				}
				if err := tx.dropCollection(c.id); err != nil {
					return err
				}
			}
			continue
		}
		namespaces, err := queryAll(tx, `SELECT DISTINCT namespace FROM object WHERE collection_id = ?`, scanString, c.id)
		if err != nil {
			return err
		}
		for _, namespace := range namespaces {
			if !x.Object(c.group, c.resource, namespace) {
				continue
			}
			if err := tx.forgetBefore(Resource{c.principal, c.group, c.resource}, namespace); err != nil {
				return err
			}
			ids, err := queryAll(tx, `SELECT id FROM object WHERE collection_id = ? AND namespace = ?`, scanInt, c.id, namespace)
			if err != nil {
				return err
			}
			for _, id := range ids {
				if err := tx.removeRow(id); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// forgetBefore notes that nothing that was known of the objects counts any more.
func (tx *Tx) forgetBefore(res Resource, namespace string) error {
	now := tx.db.next.Load()
	return tx.Observe(res, Key{Namespace: namespace}, Evidence{Says: Unknown, Asked: now, Told: now, Read: Latest})
}

func (tx *Tx) excludeObservations(x Exclusion) error {
	type kind struct{ group, resource, namespace string }
	kinds, err := queryAll(tx, `SELECT DISTINCT api_group, resource, namespace FROM observation WHERE name <> ''`, func(scan func(...any) error) (k kind, err error) {
		return k, scan(&k.group, &k.resource, &k.namespace)
	})
	if err != nil {
		return err
	}
	for _, k := range kinds {
		if !x.Object(k.group, k.resource, k.namespace) {
			continue
		}
		if _, err := tx.tx.Exec(`DELETE FROM observation WHERE api_group = ? AND resource = ? AND namespace = ? AND name <> ''`, k.group, k.resource, k.namespace); err != nil {
			return tx.wrapErr("exclude observations", err)
		}
	}
	return nil
}

func (tx *Tx) excludeResponses(x Exclusion) error {
	paths, err := queryAll(tx, `SELECT DISTINCT path FROM response WHERE question = ''`, scanString)
	if err != nil {
		return err
	}
	for _, path := range paths {
		if x.Path(path) {
			if _, err := tx.tx.Exec(`DELETE FROM response WHERE path = ? AND question = ''`, path); err != nil {
				return tx.wrapErr("exclude response", err)
			}
		}
	}
	return nil
}

func scanString(scan func(...any) error) (s string, err error) { return s, scan(&s) }

func scanInt(scan func(...any) error) (n int64, err error) { return n, scan(&n) }

// queryAll returns all rows of a query.
func queryAll[T any](tx *Tx, query string, scan func(func(...any) error) (T, error), args ...any) ([]T, error) {
	rows, err := tx.tx.Query(query, args...)
	if err != nil {
		return nil, tx.wrapErr("exclude", err)
	}
	var all []T
	for rows.Next() {
		row, err := scan(rows.Scan)
		if err != nil {
			return nil, tx.wrapErr("exclude", errors.Join(err, rows.Close()))
		}
		all = append(all, row)
	}
	return all, tx.wrapErr("exclude", errors.Join(rows.Err(), rows.Close()))
}
