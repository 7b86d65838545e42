package store

import (
	"context"
	"fmt"
)

// Usage gives the bytes of the file that hold data, and the bound, Options.MaxSize.
func (db *DB) Usage(ctx context.Context) (used, bound int64, err error) {
	var pages, free int64
	err = db.write.QueryRowContext(ctx, `SELECT (SELECT page_count FROM pragma_page_count), (SELECT freelist_count FROM pragma_freelist_count)`).Scan(&pages, &free)
	return (pages - free) * pageSize, db.maxSize, db.note("usage", err)
}

// Evict deletes whole collections, the least recently used first, and after them
// responses, the oldest first, until at most target bytes are used. Collections of
// which keep says true stay, and so does what is being filled. It gives the
// number of collections and responses that it has deleted.
func (db *DB) Evict(ctx context.Context, target int64, keep func(Scope) bool) (evicted int, err error) {
	candidates, err := db.leastUsed(ctx)
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
		gone, err := db.dropOldestResponse(ctx)
		if err != nil || !gone {
			return evicted, err
		}
		evicted++
	}
}

func (db *DB) leastUsed(ctx context.Context) (out []Collection, err error) {
	rows, err := db.read.QueryContext(ctx, `SELECT `+collectionColumns+` FROM collection WHERE state <> 'filling' ORDER BY used_at, id`)
	if err != nil {
		return nil, db.note("find least used", err)
	}
	defer rows.Close()
	for rows.Next() {
		c, err := scanCollection(rows.Scan)
		if err != nil {
			return nil, db.note("find least used", err)
		}
		out = append(out, c)
	}
	return out, db.note("find least used", rows.Err())
}

func (db *DB) dropOldestResponse(ctx context.Context) (gone bool, err error) {
	err = db.Update(ctx, func(tx *Tx) error {
		res, err := tx.tx.Exec(`DELETE FROM response WHERE rowid = (SELECT rowid FROM response ORDER BY stored_at LIMIT 1)`)
		if err != nil {
			return fmt.Errorf("drop response: %w", err)
		}
		n, err := res.RowsAffected()
		gone = n > 0
		return err
	})
	return gone, db.note("drop response", err)
}

// Use notes that a collection was replayed.
func (tx *Tx) Use(id int64) error {
	_, err := tx.tx.Exec(`UPDATE collection SET used_at = ? WHERE id = ?`, tx.nowMilli(), id)
	return tx.db.note("use collection", err)
}
