package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

// carryOver is what a new file begins with when one is lost while running: which
// cluster it is of, and the facts that were read or put. They are few and small,
// and other things rest on them that would not be put again soon.
type carryOver struct {
	mu     sync.Mutex
	owner  string // as in the table meta
	facts  map[string]fact
	queued []Queued // that were salvaged and are in no file
}

// put keeps what is new.
func (c *carryOver) put(key string, f fact) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(key, f)
}

// read keeps what was read, unless something newer was put meanwhile.
func (c *carryOver) putIfNewer(key string, f fact) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.facts[key]; !ok || f.at > old.at {
		c.set(key, f)
	}
}

// set is called under the lock.
func (c *carryOver) set(key string, f fact) {
	if c.facts == nil {
		c.facts = map[string]fact{}
	}
	c.facts[key] = f
}

func (c *carryOver) bind(owner string, emptied bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owner = owner; emptied {
		clear(c.facts)
	}
}

// restore writes what is kept.
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

// salvage reads the outbox of a file that is given up, and whose cluster it is for: it is
// no copy of what the server has, but was promised to an application. What cannot be read
// is lost.
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
	_ = rows.Err() // the rows before it are good
}

// salvageFile is salvage from a file that cannot be opened as a cache.
func (c *carryOver) salvageFile(ctx context.Context, path string) {
	from := sql.OpenDB(connector{dsn: dsn(path, "mode=rw&_busy_timeout=5000"), reader: true, pragmas: []string{"PRAGMA query_only = ON", "PRAGMA temp_store = MEMORY", "PRAGMA trusted_schema = OFF"}})
	defer from.Close() //nolint:errcheck // it is given up
	c.salvage(ctx, from)
}

// restoreQueued writes what was salvaged, under the ids that it had.
func (c *carryOver) restoreQueued(tx *sql.Tx) error {
	for _, q := range c.queued {
		if _, err := putQueued(tx, q.ID, q); err != nil {
			return err
		}
	}
	return nil
}
