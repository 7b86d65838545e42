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

// Evict deletes the least recently used collections, and then the oldest responses, until at
// most target bytes are used. It skips filling collections, and scopes for which keep is
// true. It returns the number of collections and responses that it deleted.
func (db *DB) Evict(ctx context.Context, target int64, keep func(Scope) bool) (evicted int, err error) {
	candidates, err := db.leastRecentlyUsed(ctx)
	if err != nil {
		return 0, err
	}
	for _, c := range candidates {
		if used, _, err := db.Usage(ctx); err != nil || used <= target {
			return evicted, err
		}
		if keep(c.Scope) {
			continue
		}
		if err := db.Update(ctx, func(tx *Tx) error { return tx.dropCollection(c.ID) }); err != nil {
			return evicted, err
		}
		evicted++
	}
	for {
		if used, _, err := db.Usage(ctx); err != nil || used <= target {
			return evicted, err
		}
		dropped, err := db.dropOldestResponse(ctx)
		if err != nil || !dropped {
			return evicted, err
		}
		evicted++
	}
}

// leastRecentlyUsed returns all collections that can be read, the least recently used first.
func (db *DB) leastRecentlyUsed(ctx context.Context) ([]Collection, error) {
	file, release, err := db.acquire()
	if err != nil {
		return nil, err
	}
	defer release()
	return file.findCollections(ctx, "list least recently used collections", `WHERE state <> 'filling' ORDER BY used_at, id`)
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

func (db *DB) dropOldestResponse(ctx context.Context) (dropped bool, err error) {
	err = db.Update(ctx, func(tx *Tx) error {
		res, err := tx.tx.Exec(`DELETE FROM response WHERE rowid = (SELECT rowid FROM response ORDER BY stored_at LIMIT 1)`)
		if err != nil {
			return tx.wrapErr("drop response", err)
		}
		n, err := res.RowsAffected()
		dropped = n > 0
		return tx.wrapErr("drop response", err)
	})
	return dropped, err
}

// Use records that a collection was replayed.
func (tx *Tx) Use(id int64) error {
	_, err := tx.tx.Exec(`UPDATE collection SET used_at = ? WHERE id = ?`, tx.nowMilli(), id)
	return tx.wrapErr("mark collection used", err)
}
