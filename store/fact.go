package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"time"
)

// Fact reads something known about the cluster, and when it was learned. What is
// not known is nil, without an error.
func (db *DB) Fact(ctx context.Context, key string) (value []byte, at time.Time, err error) {
	var milli int64
	err = db.read.QueryRowContext(ctx, `SELECT value, updated_at FROM fact WHERE key = ?`, key).Scan(&value, &milli)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, time.Time{}, nil
	}
	return value, time.UnixMilli(milli), db.note("read fact "+key, err)
}

// PutFact records something known about the cluster. It is on the disk when
// PutFact returns: facts are few and other things rest on them.
func (db *DB) PutFact(ctx context.Context, key string, value []byte) error {
	// synchronous cannot be changed inside a transaction.
	conn, err := db.write.Conn(ctx)
	if err != nil {
		return db.note("put fact "+key, err)
	}
	defer conn.Close()
	ctx = context.WithoutCancel(ctx)
	if _, err := conn.ExecContext(ctx, `PRAGMA synchronous = FULL`); err != nil {
		return db.note("put fact "+key, err)
	}
	defer conn.ExecContext(ctx, `PRAGMA synchronous = NORMAL`) //nolint:errcheck // FULL is only slower
	_, err = conn.ExecContext(ctx, `INSERT OR REPLACE INTO fact (key, updated_at, value) VALUES (?, ?, ?)`, key, db.now().UnixMilli(), value)
	return db.note("put fact "+key, err)
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
		if err := ignoreNotFound(db.note("read cluster", err)); err != nil {
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
			for _, table := range []string{"collection", "tombstone", "response", "fact"} {
				if _, err := tx.tx.Exec(`DELETE FROM ` + table); err != nil {
					return db.note("empty "+table, err)
				}
			}
		}
		_, err = tx.tx.Exec(`INSERT OR REPLACE INTO meta (key, value) VALUES ('cluster', ?)`, string(value))
		return db.note("write cluster", err)
	})
	return emptied && err == nil, err
}

// keepLinks is how many changes of the link are remembered.
const keepLinks = 1000

// PutLink adds a change of the link to its history.
func (tx *Tx) PutLink(state, reason string) error {
	res, err := tx.tx.Exec(`INSERT INTO link (at, state, reason) VALUES (?, ?, ?)`, tx.nowMilli(), state, reason)
	if err != nil {
		return tx.db.note("put link", err)
	}
	id, err := res.LastInsertId()
	if err != nil {
		return tx.db.note("put link", err)
	}
	_, err = tx.tx.Exec(`DELETE FROM link WHERE id <= ?`, id-keepLinks)
	return tx.db.note("put link", err)
}
