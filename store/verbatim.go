package store

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
)

// VerbatimList is a list that is recorded only as a whole, such as a Table.
type VerbatimList struct {
	Namespace string // empty: all
	Evidence
	// Absent means that it says that there is no such resource.
	Absent bool
	// Objects parses the list and returns its objects, or false if they are unknown. It is called
	// only if something newer is known.
	Objects func() ([]Object, bool)
}

// Superseded reports whether anything newer is known of the objects of a resource in the namespace
// of the list. A newer collection that has the same objects does not supersede it. Doubts do not
// contradict the absence of a resource.
func (db *DB) Superseded(ctx context.Context, res Resource, list VerbatimList) (newer bool, err error) {
	err = db.view(ctx, "compare response", func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT id, namespace, '', 'unknown', changed_version, list_version, asked, max(told, moved), read FROM collection
				WHERE principal = ?1 AND api_group = ?2 AND resource = ?3 AND state = 'complete' AND (namespace = '' OR ?4 IN ('', namespace))
			UNION ALL SELECT 0, o.namespace, o.name, 'present', o.resource_version, '', o.asked, o.told, o.read FROM collection c JOIN object o ON o.collection_id = c.id
				WHERE c.principal = ?1 AND c.api_group = ?2 AND c.resource = ?3 AND c.state = 'seen' AND ?4 IN ('', o.namespace)
			UNION ALL SELECT 0, namespace, name, says, version, floor, asked, told, read FROM observation
				WHERE NOT ?5 AND principal = ?1 AND api_group = ?2 AND resource = ?3 AND (namespace = '' OR ?4 IN ('', namespace))`,
			res.Principal, res.Group, res.Resource, list.Namespace, list.Absent)
		if err != nil {
			return err
		}
		var changed []Collection
		var gone []Key
		for rows.Next() && !newer {
			var c Collection
			var name string
			var e Evidence
			if err := rows.Scan(&c.ID, &c.Namespace, &name, &e.Says, &e.Version, &e.Floor, &e.Asked, &e.Told, &e.Read); err != nil {
				return errors.Join(err, rows.Close())
			}
			if c.ID != 0 {
				c.Changed, c.ListVersion = e.Version, e.Floor
				e.Version, e.Floor = c.UnchangedSince(), ""
			}
			absent := e.Says == Gone && name != ""
			e.Says = Unknown
			switch {
			case list.includes(e.Version) || list.Newer(e) || e.Asked == list.Asked && e.Told == list.Told:
			case c.ID != 0:
				changed = append(changed, c)
			case absent:
				gone = append(gone, Key{Namespace: c.Namespace, Name: name})
			default:
				newer = true
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		if newer || len(changed)+len(gone) == 0 {
			return nil
		}
		newer, err = list.contradicted(ctx, tx, changed, gone)
		return err
	})
	return newer, err
}

// contradicted reports whether the list may have other objects than the newer collections, or has
// one of the keys that are gone since. If its objects are unknown, it may.
func (l *VerbatimList) contradicted(ctx context.Context, tx *sql.Tx, changed []Collection, gone []Key) (bool, error) {
	objects, ok := l.Objects()
	if !ok {
		return true, nil
	}
	listed := make(map[Key]*Object, len(objects))
	for i := range objects {
		listed[objects[i].Key()] = &objects[i]
	}
	if slices.ContainsFunc(gone, func(key Key) bool { return listed[key] != nil }) {
		return true, nil
	}
	for i := range changed {
		if differs, err := l.differs(ctx, tx, &changed[i], listed); differs || err != nil {
			return differs, err
		}
	}
	return false, nil
}

// includes reports whether a change at a version is known to be in the list.
func (l *VerbatimList) includes(version string) bool {
	order, ok := CompareVersions(version, l.Version)
	return ok && order <= 0 && version != ""
}

// differs reports whether a newer collection may have changed an object of the list, or may have
// one that the list should have: an object that is older than the list was not selected by it.
func (l *VerbatimList) differs(ctx context.Context, tx *sql.Tx, c *Collection, listed map[Key]*Object) (bool, error) {
	missing := maps.Clone(listed)
	maps.DeleteFunc(missing, func(key Key, _ *Object) bool { return c.Namespace != "" && c.Namespace != key.Namespace })
	rows, err := tx.QueryContext(ctx, `SELECT namespace, name, uid, resource_version FROM object WHERE collection_id = ? AND ? IN ('', namespace)`, c.ID, l.Namespace)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	for rows.Next() {
		var o Object
		if err := rows.Scan(&o.Namespace, &o.Name, &o.UID, &o.ResourceVersion); err != nil {
			return false, err
		}
		same := missing[o.Key()]
		if same == nil && !l.includes(o.ResourceVersion) || same != nil && (same.UID != o.UID || same.ResourceVersion != o.ResourceVersion) {
			return true, nil
		}
		delete(missing, o.Key())
	}
	return len(missing) > 0, rows.Err()
}
