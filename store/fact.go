package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// carryOver is what a new file begins with when one is lost while running: which
// cluster it is of, and the facts that were read or put. They are few and small,
// and other things rest on them that would not be put again soon.
type carryOver struct {
	mu      sync.Mutex
	cluster string // as in the table meta
	facts   map[string]fact
	queued  []Queued // that were salvaged and are in no file
}

type fact struct {
	at    int64 // ms since 1970
	value []byte
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

func (c *carryOver) bind(cluster string, emptied bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cluster = cluster; emptied {
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
	if c.cluster == "" {
		return nil
	}
	_, err := tx.Exec(putCluster, c.cluster)
	return err
}

const (
	putFact    = `INSERT OR REPLACE INTO fact (key, updated_at, value) VALUES (?, ?, ?)`
	putCluster = `INSERT OR REPLACE INTO meta (key, value) VALUES ('cluster', ?)`
)

// Fact reads something known about the cluster, and when it was learned. What is
// not known is nil, without an error.
func (db *DB) Fact(ctx context.Context, key string) (value []byte, at time.Time, err error) {
	var f fact
	err = db.read("read fact "+key, func(read *sql.DB) error {
		return read.QueryRowContext(ctx, `SELECT value, updated_at FROM fact WHERE key = ?`, key).Scan(&f.value, &f.at)
	})
	if isNotFound(err) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	db.carryOver.putIfNewer(key, f)
	return f.value, time.UnixMilli(f.at), nil
}

// PutFact records something known about the cluster. It is on the disk when
// PutFact returns: facts are few and other things rest on them.
func (db *DB) PutFact(ctx context.Context, key string, value []byte) error {
	f := fact{db.nowMilli(), value}
	db.carryOver.put(key, f)
	return db.writeSynced(ctx, "put fact "+key, func(tx *sql.Tx) error {
		_, err := tx.Exec(putFact, key, f.at, f.value)
		return err
	})
}

// Owner is whose cache it is. Names are not enough: service accounts of two clusters have the same
// ones, and so has one that was deleted and made anew, perhaps for somebody else.
type Owner struct {
	// Authorities are digests of the certificates that the API server is trusted by.
	Authorities []string `json:"authorities"`
	// Account is the UID of the service account; empty: not known.
	Account string `json:"account,omitempty"`
}

// differs tells that the cache of one owner is not for another. A rotation of the authority
// overlaps; two clusters share nothing.
func (o Owner) differs(to Owner) bool {
	return !slices.ContainsFunc(o.Authorities, func(d string) bool { return slices.Contains(to.Authorities, d) }) ||
		(o.Account != "" && to.Account != "" && o.Account != to.Account)
}

// Bind says whose cache it is. One that was somebody else's is emptied.
func (db *DB) Bind(ctx context.Context, owner Owner) (emptied bool, err error) {
	var bound string
	err = db.Update(ctx, func(tx *Tx) error {
		err := tx.tx.QueryRow(`SELECT value FROM meta WHERE key = 'cluster'`).Scan(&bound)
		if err := ignoreNotFound(tx.wrapErr("read owner", err)); err != nil {
			return err
		}
		now := owner
		if bound != "" {
			var before Owner
			if err := json.Unmarshal([]byte(bound), &before); err != nil {
				before = Owner{}
			}
			emptied = owner.differs(before)
			if now.Account == "" && !emptied {
				now.Account = before.Account
			}
		}
		value, err := json.Marshal(now)
		if err != nil || string(value) == bound {
			return err
		}
		if emptied {
			for _, table := range []string{"collection", "tombstone", "response", "fact", "outbox"} {
				if _, err := tx.tx.Exec(`DELETE FROM ` + table); err != nil {
					return tx.wrapErr("clear "+table, err)
				}
			}
		}
		bound = string(value)
		_, err = tx.tx.Exec(putCluster, bound)
		return tx.wrapErr("write owner", err)
	})
	emptied = emptied && err == nil
	if err == nil {
		db.carryOver.bind(bound, emptied)
	}
	return emptied, err
}

// maxLinkHistory is how many changes of the link are remembered.
const maxLinkHistory = 1000

// PutLink adds a change of the link to its history.
func (tx *Tx) PutLink(state, reason string) error {
	res, err := tx.tx.Exec(`INSERT INTO link (at, state, reason) VALUES (?, ?, ?)`, tx.nowMilli(), state, reason)
	if err != nil {
		return tx.wrapErr("put link state", err)
	}
	id, err := res.LastInsertId()
	if err != nil {
		return tx.wrapErr("put link state", err)
	}
	_, err = tx.tx.Exec(`DELETE FROM link WHERE id <= ?`, id-maxLinkHistory)
	return tx.wrapErr("put link state", err)
}
