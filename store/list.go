package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Range selects objects of a collection. The zero value selects all of them.
type Range struct {
	Namespace string  // empty: all
	Name      string  // empty: all
	After     *Cursor // only objects after it; nil: from the beginning
	// Payloads means that List reads nothing but the key and the payload of each object, which
	// takes half of the time.
	Payloads bool
}

// Cursor is where a page of List begins.
type Cursor struct {
	after Key
	rest  []span // the page begins in the first one
}

// span is namespaces that follow each other in the index of objects, from first to last.
type span struct{ first, last string }

// lastNamespace is after all namespaces, in the order of the index.
const lastNamespace = "~"

// spans divides namespaces, so that the spans are in the order of the API server. Namespaces must
// be in the order of the index. The API server sorts by its keys, in which a slash follows the
// namespace: "shop-a/" comes before "shop/".
func spans(namespaces []string) (out []span) {
	order := make([]int, len(namespaces))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return strings.Compare(namespaces[i]+"/", namespaces[j]+"/") })
	for i, at := range order {
		if i > 0 && at == order[i-1]+1 {
			out[len(out)-1].last = namespaces[at]
		} else {
			out = append(out, span{namespaces[at], namespaces[at]})
		}
	}
	return out
}

// pageBytes and pageRows bound one page of List. A page is large enough to make the cost of
// the query negligible, and small enough to be read while the client reads the one before.
const (
	pageBytes = 256 << 10
	pageRows  = 500
)

// List calls f for each object of one page, in the order of the API server. It returns where the
// next page begins, nil at the end. A payload is valid only during the call of f.
//
// List returns ErrChanged if the collection is no longer at the revision. So several pages
// form one snapshot, without a transaction held open for as long as a client takes.
func (db *DB) List(ctx context.Context, collection, revision int64, r Range, f func(Object) error) (next *Cursor, err error) {
	err = db.view(ctx, "list objects", func(tx *sql.Tx) error {
		next, err = list(ctx, tx, collection, revision, r, f)
		return err
	})
	return next, err
}

func list(ctx context.Context, tx *sql.Tx, collection, revision int64, r Range, f func(Object) error) (next *Cursor, err error) {
	if err := checkRevision(ctx, tx, collection, revision); err != nil {
		return nil, err
	}
	at := r.After
	if at == nil {
		all, err := r.spans(ctx, tx, collection)
		if err != nil || len(all) == 0 {
			return nil, err
		}
		at = &Cursor{Key{Namespace: all[0].first}, all}
	}
	p := page{collection: collection, of: r, f: f}
	for p.at = *at; ; p.at = (Cursor{Key{Namespace: p.at.rest[1].first}, p.at.rest[1:]}) {
		switch err := p.read(ctx, tx); {
		case err != nil:
			return nil, err
		case p.full():
			return &p.at, nil
		case len(p.at.rest) == 1:
			return nil, nil
		}
	}
}

// spans are the namespaces that the range may have objects in.
func (r Range) spans(ctx context.Context, tx *sql.Tx, collection int64) ([]span, error) {
	if r.Namespace != "" {
		return []span{{r.Namespace, lastNamespace}}, nil
	}
	rows, err := tx.QueryContext(ctx, `WITH RECURSIVE namespaces (next) AS (
			SELECT min(namespace) FROM object WHERE collection_id = ?1
			UNION ALL SELECT (SELECT min(namespace) FROM object WHERE collection_id = ?1 AND namespace > next) FROM namespaces WHERE next IS NOT NULL)
		SELECT next FROM namespaces WHERE next IS NOT NULL`, collection)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		all = append(all, name)
	}
	return spans(all), rows.Err()
}

// page is a page of List that is being read.
type page struct {
	collection  int64
	of          Range
	f           func(Object) error
	at          Cursor
	count, size int // objects, and bytes of their payloads
}

func (p *page) full() bool { return p.count == pageRows || p.size >= pageBytes }

// read reads to the end of the page, or of the first span.
func (p *page) read(ctx context.Context, tx *sql.Tx) error {
	where, args := p.of.where(p.collection)
	columns, scan := `namespace, name, uid, resource_version, labels, encoding, checksum, CAST(payload AS BLOB)`, scanWhole
	if p.of.Payloads {
		columns, scan = `checksum || ' ' || namespace || ' ' || name, CAST(payload AS BLOB)`, scanPayload
	}
	if p.of.Namespace != "" { // SQLite would begin each page at the first name
		where, args = where+` AND name > ?`, append(args, p.at.after.Name)
	} else {
		where, args = where+` AND (namespace, name) > (?, ?)`, append(args, p.at.after.Namespace, p.at.after.Name)
	}
	query := `SELECT ` + columns + ` FROM object` + where + ` ORDER BY namespace, name LIMIT ?`
	rows, err := tx.QueryContext(ctx, query, append(args, pageRows-p.count)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for !p.full() && rows.Next() {
		o, sum, err := scan(rows.Scan)
		if err == nil && o.Namespace > p.at.rest[0].last {
			return nil
		}
		if err == nil {
			err = verifyChecksum(o.Payload, sum)
		}
		if err != nil {
			return err
		}
		if err := p.f(o); err != nil {
			return callbackError{err}
		}
		p.at.after = o.Key()
		p.count, p.size = p.count+1, p.size+len(o.Payload)
	}
	return rows.Err()
}

// scanWhole reads an object and its checksum. The payload is valid until the next row is read.
func scanWhole(scan func(...any) error) (o Object, sum int64, err error) {
	var payload sql.RawBytes
	err = scan(&o.Namespace, &o.Name, &o.UID, &o.ResourceVersion, &o.Labels, &o.Encoding, &sum, &payload)
	o.Payload = payload
	return o, sum, err
}

// scanPayload is scanWhole for the key and the payload. Each column is a value that the driver
// allocates, so there are few.
func scanPayload(scan func(...any) error) (o Object, sum int64, err error) {
	var head string
	var payload sql.RawBytes
	if err := scan(&head, &payload); err != nil {
		return o, 0, err
	}
	number, key, _ := strings.Cut(head, " ") // neither namespaces nor names have one
	o.Namespace, o.Name, _ = strings.Cut(key, " ")
	o.Payload = payload
	sum, err = strconv.ParseInt(number, 10, 64)
	return o, sum, err
}

// where returns the range as an SQL condition.
func (r Range) where(collection int64) (sql string, args []any) {
	sql, args = r.conditions("object")
	return ` WHERE collection_id = ?` + sql, append([]any{collection}, args...)
}

// conditions returns the range as further SQL conditions on a table.
func (r Range) conditions(table string) (sql string, args []any) {
	if r.Namespace != "" {
		sql, args = sql+` AND `+table+`.namespace = ?`, append(args, r.Namespace)
	}
	if r.Name != "" {
		sql, args = sql+` AND `+table+`.name = ?`, append(args, r.Name)
	}
	return sql, args
}

// checkRevision returns ErrChanged unless the collection is at the revision.
func checkRevision(ctx context.Context, tx *sql.Tx, collection, revision int64) error {
	var current int64
	err := tx.QueryRowContext(ctx, `SELECT revision FROM collection WHERE id = ?`, collection).Scan(&current)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err != nil || current != revision {
		return ErrChanged
	}
	return nil
}

// Holds returns ErrChanged if a collection is no longer at the revision.
func (db *DB) Holds(ctx context.Context, collection, revision int64) error {
	return db.view(ctx, "check collection", func(tx *sql.Tx) error { return checkRevision(ctx, tx, collection, revision) })
}

// Measure groups the objects that List would read by labels and payload size. It calls f for
// each group, with the number of objects in it, and reads no payloads. If List reads nothing but
// payloads, the labels are empty.
func (db *DB) Measure(ctx context.Context, collection, revision int64, r Range, f func(labels string, size, count int) error) error {
	return db.view(ctx, "measure objects", func(tx *sql.Tx) error {
		return measure(ctx, tx, collection, revision, r, f)
	})
}

func measure(ctx context.Context, tx *sql.Tx, collection, revision int64, r Range, f func(labels string, size, count int) error) error {
	where, args := r.where(collection)
	if err := checkRevision(ctx, tx, collection, revision); err != nil {
		return err
	}
	query := `SELECT labels, size, count(*) FROM object` + where + ` GROUP BY labels, size`
	if r.Payloads { // an index has all that
		query = `SELECT '', size, count(*) FROM object` + where + ` GROUP BY size`
	}
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var labels string
		var size, count int
		if err := rows.Scan(&labels, &size, &count); err != nil {
			return err
		}
		if err := f(labels, size, count); err != nil {
			return callbackError{err}
		}
	}
	return rows.Err()
}
