package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Stock is a collection and how much is in it.
type Stock struct {
	Collection
	Objects int
	Bytes   int64 // of payloads
}

// Inventory returns all collections, also those that are being filled, by resource.
func (db *DB) Inventory(ctx context.Context) (all []Stock, err error) {
	err = db.read("list collections", func(read *sql.DB) error {
		all, err = collect(func(scan func(...any) error) (s Stock, err error) {
			s.Collection, err = scanCollection(func(into ...any) error { return scan(append([]any{&s.Objects, &s.Bytes}, into...)...) })
			return s, err
		})(read.QueryContext(ctx, `SELECT (SELECT count(*) FROM object o WHERE o.collection_id = c.id), (SELECT coalesce(sum(size), 0) FROM object o WHERE o.collection_id = c.id), `+
			collectionColumns+` FROM collection c ORDER BY principal, api_group, resource, version, namespace, id`))
		return err
	})
	return all, err
}

// Lists returns the complete collections.
func (db *DB) Lists(ctx context.Context) ([]Collection, error) { return db.leastRecentlyUsed(ctx) }

// Document is a recorded response, without its body.
type Document struct {
	Principal, Path string // the path with its query
	Size            int64
	StoredAt        time.Time
}

// Documents returns the recorded responses, without those to reviews.
func (db *DB) Documents(ctx context.Context) (all []Document, err error) {
	err = db.read("list responses", func(read *sql.DB) error {
		rows, err := read.QueryContext(ctx, `SELECT principal, path, size, stored_at FROM response WHERE question = '' ORDER BY principal, path`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var d Document
			var at int64
			if err := rows.Scan(&d.Principal, &d.Path, &d.Size, &at); err != nil {
				return err
			}
			d.StoredAt = fromMilli(at)
			all = append(all, d)
		}
		return rows.Err()
	})
	return all, err
}

// Versioned names an object in one of the API versions in which it is recorded.
type Versioned struct {
	Resource
	Version string // of the API
	Key
}

// Names returns the objects of which a row is recorded, by resource, namespace and name. Something
// newer may be known of an object: that it is gone, for example.
func (db *DB) Names(ctx context.Context) (all []Versioned, err error) {
	err = db.read("list objects", func(read *sql.DB) error {
		rows, err := read.QueryContext(ctx, `SELECT DISTINCT c.principal, c.api_group, c.resource, c.version, o.namespace, o.name
			FROM collection c JOIN object o ON o.collection_id = c.id WHERE c.state <> 'filling' ORDER BY 1, 2, 3, 5, 6, 4`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var n Versioned
			if err := rows.Scan(&n.Principal, &n.Group, &n.Resource.Resource, &n.Version, &n.Namespace, &n.Name); err != nil {
				return err
			}
			all = append(all, n)
		}
		return rows.Err()
	})
	return all, err
}

// Verify reads the whole file. It calls bad for each thing that is wrong, and returns the number of
// objects that it has read.
func (db *DB) Verify(ctx context.Context, bad func(string)) (objects int, err error) {
	err = db.view(ctx, "verify", func(tx *sql.Tx) error {
		for _, check := range []string{"PRAGMA integrity_check", "PRAGMA foreign_key_check"} {
			if err := verdicts(ctx, tx, check, bad); err != nil {
				return err
			}
		}
		rows, err := tx.QueryContext(ctx, `SELECT coalesce(c.resource, ''), o.namespace, o.name, CAST(o.payload AS BLOB), o.size, o.checksum FROM object o LEFT JOIN collection c ON c.id = o.collection_id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var resource, namespace, name string
			var payload sql.RawBytes
			var size, sum int64
			if err := rows.Scan(&resource, &namespace, &name, &payload, &size, &sum); err != nil {
				return err
			}
			objects++
			if int64(len(payload)) != size || verifyChecksum(payload, sum) != nil {
				bad(fmt.Sprintf("%s %s/%s: its payload is damaged", resource, namespace, name))
			}
		}
		return rows.Err()
	})
	return objects, err
}

func verdicts(ctx context.Context, tx *sql.Tx, check string, bad func(string)) error {
	rows, err := tx.QueryContext(ctx, check)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if len(values) == 1 && values[0].String == "ok" {
			continue
		}
		bad(fmt.Sprintf("%s: %s", check, join(values)))
	}
	return rows.Err()
}

func join(values []sql.NullString) (out string) {
	for i, v := range values {
		if i > 0 {
			out += " "
		}
		out += v.String
	}
	return out
}
