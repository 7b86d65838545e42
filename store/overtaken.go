package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
)

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

// overtakenIn finds an object in one other collection that is newer. What is the same in both is
// not read from SQLite, see Evidence.Agrees: that is most of it, and each row costs a call of C a
// column.
func overtakenIn(ctx context.Context, tx *sql.Tx, c, other Collection, s Selection) (string, error) {
	where, args := s.conditions("t")
	rows, err := tx.QueryContext(ctx, `SELECT t.id, t.namespace, t.name, t.uid, t.resource_version, t.labels, t.encoding, t.asked, t.told, t.read,
			o.uid, o.resource_version, o.asked, o.told, o.read, coalesce(o.labels, '')
		FROM object t LEFT JOIN object o ON o.collection_id = ? AND o.namespace = t.namespace AND o.name = t.name
		WHERE t.collection_id = ? AND (o.uid IS NOT t.uid OR o.resource_version IS NOT t.resource_version OR t.resource_version = '')`+where,
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
