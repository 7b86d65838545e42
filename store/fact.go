package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// kept is what a new file begins with when one is lost while running: which
// cluster it is of, and the facts that were read or put. They are few and small,
// and other things rest on them that would not be put again soon.
type kept struct {
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
func (k *kept) put(key string, f fact) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.set(key, f)
}

// read keeps what was read, unless something newer was put meanwhile.
func (k *kept) read(key string, f fact) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old, ok := k.facts[key]; !ok || f.at > old.at {
		k.set(key, f)
	}
}

// set is called under the lock.
func (k *kept) set(key string, f fact) {
	if k.facts == nil {
		k.facts = map[string]fact{}
	}
	k.facts[key] = f
}

func (k *kept) bind(cluster string, emptied bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cluster = cluster; emptied {
		clear(k.facts)
	}
}

// restore writes what is kept.
func (k *kept) restore(tx *sql.Tx) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, f := range k.facts {
		if _, err := tx.Exec(putFact, key, f.at, f.value); err != nil {
			return err
		}
	}
	if err := k.restoreQueued(tx); err != nil {
		return err
	}
	if k.cluster == "" {
		return nil
	}
	_, err := tx.Exec(putCluster, k.cluster)
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
	err = db.look("read fact "+key, func(read *sql.DB) error {
		return read.QueryRowContext(ctx, `SELECT value, updated_at FROM fact WHERE key = ?`, key).Scan(&f.value, &f.at)
	})
	if isNotFound(err) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	db.kept.read(key, f)
	return f.value, time.UnixMilli(f.at), nil
}

// PutFact records something known about the cluster. It is on the disk when
// PutFact returns: facts are few and other things rest on them.
func (db *DB) PutFact(ctx context.Context, key string, value []byte) error {
	f := fact{db.nowMilli(), value}
	db.kept.put(key, f)
	return db.lasting(ctx, "put fact "+key, func(tx *sql.Tx) error {
		_, err := tx.Exec(putFact, key, f.at, f.value)
		return err
	})
}

// BindCluster says which cluster the cache is of, by the digests of the
// certificates that its API server is trusted by. When none of them is among
// those of the last time, the cache is another cluster's and is emptied: a
// rotation of the authority overlaps, two clusters share nothing.
func (db *DB) BindCluster(ctx context.Context, digests []string) (emptied bool, err error) {
	value, err := json.Marshal(digests)
	if err != nil {
		return false, err
	}
	err = db.Update(ctx, func(tx *Tx) error {
		var old string
		err := tx.tx.QueryRow(`SELECT value FROM meta WHERE key = 'cluster'`).Scan(&old)
		if err := ignoreNotFound(tx.note("read cluster", err)); err != nil {
			return err
		}
		if old == string(value) {
			return nil
		}
		var known []string
		if old != "" {
			if err := json.Unmarshal([]byte(old), &known); err != nil {
				known = nil
			}
			emptied = !slices.ContainsFunc(digests, func(d string) bool { return slices.Contains(known, d) })
		}
		if emptied {
			for _, table := range []string{"collection", "tombstone", "response", "fact", "outbox"} {
				if _, err := tx.tx.Exec(`DELETE FROM ` + table); err != nil {
					return tx.note("empty "+table, err)
				}
			}
		}
		_, err = tx.tx.Exec(putCluster, string(value))
		return tx.note("write cluster", err)
	})
	emptied = emptied && err == nil
	if err == nil {
		db.kept.bind(string(value), emptied)
	}
	return emptied, err
}

// keepLinks is how many changes of the link are remembered.
const keepLinks = 1000

// PutLink adds a change of the link to its history.
func (tx *Tx) PutLink(state, reason string) error {
	res, err := tx.tx.Exec(`INSERT INTO link (at, state, reason) VALUES (?, ?, ?)`, tx.nowMilli(), state, reason)
	if err != nil {
		return tx.note("put link", err)
	}
	id, err := res.LastInsertId()
	if err != nil {
		return tx.note("put link", err)
	}
	_, err = tx.tx.Exec(`DELETE FROM link WHERE id <= ?`, id-keepLinks)
	return tx.note("put link", err)
}
