package store

import (
	"context"
	"errors"
	"fmt"
)

// Usage returns the bytes of the file that hold data, and the bound, Options.MaxSize.
func (db *DB) Usage(ctx context.Context) (used, bound int64, err error) {
	pages, free, err := db.pages(ctx)
	return (pages - free) * pageSize, db.opts.MaxSize, err
}

// pages counts the pages of the file, and the free ones among them.
func (db *DB) pages(ctx context.Context) (all, free int64, err error) {
	file, release, err := db.acquire()
	if err != nil {
		return 0, 0, err
	}
	defer release()
	err = file.write.QueryRowContext(ctx, `SELECT (SELECT page_count FROM pragma_page_count), (SELECT freelist_count FROM pragma_freelist_count)`).Scan(&all, &free)
	return all, free, file.wrapErr("count pages", err)
}

const (
	// singleShare is the part of the target that singles may take before complete collections
	// are evicted: a program may write many objects that it never reads.
	singleShare = 4
	// evictRows is how many singles or responses are evicted at once.
	evictRows = 200
	// smallDocuments is the part of the quota that the smallest responses always keep. Discovery
	// documents are small, and programs need them to start.
	smallDocuments = 8
)

// Evict deletes rows until at most target bytes are used: first the oldest singles, as far as
// they take more than their share; then the least recently used collections, without the filling
// ones and those for which keep is true; then the other singles; then the largest responses. It
// returns the number of collections, singles and responses that it deleted.
func (db *DB) Evict(ctx context.Context, target int64, keep func(Collection) bool) (evicted int, err error) {
	excess := func() int64 {
		var used int64
		if err == nil {
			used, _, err = db.Usage(ctx)
		}
		if err != nil {
			return 0
		}
		return used - target
	}
	evict := func(f func(*Tx) (int, error)) (n int) {
		err = db.Update(ctx, func(tx *Tx) (err error) {
			n, err = f(tx)
			return err
		})
		evicted += n
		return n
	}
	repeat := func(f func(tx *Tx, most, free int64) (int, error), most int64) {
		for n, free := 1, excess(); n > 0 && free > 0; free = excess() {
			n = evict(func(tx *Tx) (int, error) { return f(tx, most, free) })
		}
	}
	repeat((*Tx).evictSingles, target/singleShare)
	candidates, errFind := db.leastRecentlyUsed(ctx)
	err = errors.Join(err, errFind)
	for _, c := range candidates {
		if excess() <= 0 {
			break
		}
		if !keep(c) {
			evict(func(tx *Tx) (int, error) { return 1, tx.Forget(c) })
		}
	}
	repeat((*Tx).evictSingles, 0)
	repeat((*Tx).evictResponses, db.opts.MaxSize/smallDocuments)
	return evicted, err
}

// leastRecentlyUsed returns the complete collections, the least recently used first.
func (db *DB) leastRecentlyUsed(ctx context.Context) ([]Collection, error) {
	file, release, err := db.acquire()
	if err != nil {
		return nil, err
	}
	defer release()
	return file.findCollections(ctx, "list least recently used collections", `WHERE state = 'complete' ORDER BY used_at, id`)
}

// evictSingles deletes the oldest singles, at most evictRows, until it has freed a number of bytes,
// or until all that are left have at most another number. What is older of an object does not count
// after that.
func (tx *Tx) evictSingles(most, free int64) (int, error) {
	var size int64
	if err := tx.tx.QueryRow(`SELECT coalesce(sum(o.size), 0) FROM collection c JOIN object o ON o.collection_id = c.id WHERE c.state = 'seen'`).Scan(&size); err != nil || size <= most {
		return 0, tx.wrapErr("evict single objects", err)
	}
	type single struct {
		id, size int64
		resource Resource
		object   Object
	}
	oldest, err := collect(func(scan func(...any) error) (s single, err error) {
		o := &s.object
		err = scan(&s.id, &s.resource.Principal, &s.resource.Group, &s.resource.Resource, &o.Namespace, &o.Name, &o.UID, &o.ResourceVersion, &o.Asked, &o.Told, &o.Read, &s.size)
		return s, err
	})(tx.tx.Query(`SELECT o.id, c.principal, c.api_group, c.resource, o.namespace, o.name, o.uid, o.resource_version, o.asked, o.told, o.read, o.size
		FROM collection c JOIN object o ON o.collection_id = c.id WHERE c.state = 'seen' ORDER BY o.told LIMIT ?`, evictRows))
	if err != nil {
		return 0, tx.wrapErr("evict single objects", err)
	}
	for n, s := range oldest {
		if free <= 0 || size <= most {
			return n, nil
		}
		if err := tx.evictSingle(s.id, s.resource, &s.object); err != nil {
			return 0, err
		}
		size, free = size-s.size, free-s.size
	}
	return len(oldest), nil
}

func (tx *Tx) evictSingle(id int64, res Resource, o *Object) error {
	if err := tx.removeRow(id); err != nil {
		return err
	}
	e := o.Evidence()
	e.Says = Exists
	return tx.Observe(res, Key{o.Namespace, o.Name}, e)
}

// evictResponses deletes the largest responses, at most evictRows, until it has freed a number of
// bytes, or until all that are left have at most another number.
func (tx *Tx) evictResponses(most, free int64) (int, error) {
	var size int64
	if err := tx.tx.QueryRow(`SELECT coalesce(sum(size), 0) FROM response`).Scan(&size); err != nil {
		return 0, tx.wrapErr("evict responses", err)
	}
	type response struct{ id, size int64 }
	largest, err := collect(func(scan func(...any) error) (r response, err error) {
		err = scan(&r.id, &r.size)
		return r, err
	})(tx.tx.Query(`SELECT rowid, size FROM response ORDER BY size DESC, stored_at LIMIT ?`, evictRows))
	if err != nil {
		return 0, tx.wrapErr("evict responses", err)
	}
	for n, r := range largest {
		if free <= 0 || size <= most {
			return n, nil
		}
		if _, err := tx.tx.Exec(`DELETE FROM response WHERE rowid = ?`, r.id); err != nil {
			return 0, tx.wrapErr("evict responses", err)
		}
		size, free = size-r.size, free-r.size
	}
	return len(largest), nil
}

// Shrink works in steps, because each moves pages from the end of the file and writes them.
// It leaves free pages for the next recordings, up to a tenth of the quota.
const (
	shrinkStep  = 1024 // pages
	spareTenths = 1
)

// Shrink returns pages that eviction has freed to the file system, at most 4 MiB a call. The
// file becomes smaller at the next checkpoint.
func (db *DB) Shrink(ctx context.Context) error {
	_, free, err := db.pages(ctx)
	spare := db.opts.MaxSize / pageSize / 10 * spareTenths
	if err != nil || free <= spare {
		return err
	}
	file, release, err := db.acquire()
	if err != nil {
		return err
	}
	defer release()
	// Each step of the statement frees one page, so all of its rows must be read.
	rows, err := file.write.QueryContext(context.WithoutCancel(ctx), fmt.Sprintf(`PRAGMA incremental_vacuum(%d)`, min(free-spare, shrinkStep)))
	if err != nil {
		return file.wrapErr("shrink", err)
	}
	for rows.Next() {
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return file.wrapErr("shrink", err)
	}
	// SQLite does not bound a file below its size. If the file was larger than the quota when
	// it was opened, that size is still the bound.
	_, err = file.write.ExecContext(ctx, maxPageCount(db.opts.MaxSize))
	return file.wrapErr("shrink", err)
}

// Use records that a collection was replayed.
func (tx *Tx) Use(id int64) error {
	_, err := tx.tx.Exec(`UPDATE collection SET used_at = ? WHERE id = ?`, tx.nowMilli(), id)
	return tx.wrapErr("mark collection used", err)
}
