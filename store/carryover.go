package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

// carryOver holds the first rows of a new file, which replaces a lost one: the owner, all
// facts that were read or put, and the queued writes. Facts are few and small. Other parts
// depend on them, and would not put them again soon.
type carryOver struct {
	mu     sync.Mutex
	owner  string // as in the table meta; empty: unknown
	facts  map[string]fact
	queued []Queued // salvaged, and in no file
}

// put stores a new fact.
func (c *carryOver) put(key string, f fact) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(key, f)
}

// putIfNewer stores a fact that was read, unless a newer one was put meanwhile.
func (c *carryOver) putIfNewer(key string, f fact) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.facts[key]; !ok || f.at > old.at {
		c.set(key, f)
	}
}

// set must be called with the lock held.
func (c *carryOver) set(key string, f fact) {
	if c.facts == nil {
		c.facts = map[string]fact{}
	}
	c.facts[key] = f
}

// bind stores the owner, and drops the facts of the previous one if the cache was emptied.
func (c *carryOver) bind(owner string, emptied bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owner = owner; emptied {
		clear(c.facts)
	}
}

// restore writes the rows into a new file.
func (c *carryOver) restore(tx *sql.Tx) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, f := range c.facts {
		if _, err := tx.Exec(putFact, key, f.at, f.value); err != nil {
			return err
		}
	}
	if err := c.restoreQueued(tx); err != nil {
		return err
	}
	if c.owner == "" {
		return nil
	}
	_, err := tx.Exec(putOwner, c.owner)
	return err
}

// salvage reads the outbox and the owner from a file that is given up. An application was
// promised the queued writes, and the server has no copy. Rows that cannot be read are lost.
func (c *carryOver) salvage(ctx context.Context, from *sql.DB) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owner == "" {
		_ = from.QueryRowContext(ctx, `SELECT value FROM meta WHERE key = 'cluster'`).Scan(&c.owner)
	}
	rows, err := from.QueryContext(ctx, selectQueued+` ORDER BY id`)
	if err != nil {
		return
	}
	defer rows.Close()
	for rows.Next() {
		q, err := scanQueued(rows.Scan)
		if errors.Is(err, ErrCorrupt) {
			continue
		}
		if err != nil {
			break
		}
		c.queued = append(c.queued, q)
	}
	_ = rows.Err() // the rows read so far are good
}

// salvageFile salvages a file that cannot be opened as a cache.
func (c *carryOver) salvageFile(ctx context.Context, path string) {
	from := sql.OpenDB(connector{dsn: dsn(path, "mode=rw&_busy_timeout=5000"), reader: true, pragmas: []string{
		"PRAGMA query_only = ON",
		"PRAGMA temp_store = MEMORY",
		"PRAGMA trusted_schema = OFF",
	}})
	defer from.Close() //nolint:errcheck // the file is given up
	c.salvage(ctx, from)
}

// restoreQueued writes the salvaged rows, under their old ids.
func (c *carryOver) restoreQueued(tx *sql.Tx) error {
	for _, q := range c.queued {
		if _, err := putQueued(tx, q.ID, q); err != nil {
			return err
		}
	}
	return nil
}
