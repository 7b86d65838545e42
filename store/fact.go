package store

import (
	"context"
	"database/sql"
	"time"
)

type fact struct {
	at    int64 // ms since 1970
	value []byte
}

const putFact = `INSERT OR REPLACE INTO fact (key, updated_at, value) VALUES (?, ?, ?)`

// Fact returns a fact about the cluster, and when it was recorded. An unknown fact is nil,
// without an error.
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

// PutFact records a fact about the cluster. The fact is on the disk when PutFact returns:
// facts are few, and other parts depend on them.
func (db *DB) PutFact(ctx context.Context, key string, value []byte) error {
	f := fact{db.nowMilli(), value}
	db.carryOver.put(key, f)
	return db.writeSynced(ctx, "put fact "+key, func(tx *sql.Tx) error {
		_, err := tx.Exec(putFact, key, f.at, f.value)
		return err
	})
}
