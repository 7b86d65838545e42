package store

import (
	"context"
	"database/sql"
	"time"
)

// maxLinkHistory bounds the recorded changes of the link.
const maxLinkHistory = 1000

// PutLink adds a change of the link's state to its history.
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

// LinkChange is a change of the link.
type LinkChange struct {
	At            time.Time
	State, Reason string
}

// Links returns the changes of the link since a time, the first one first.
func (db *DB) Links(ctx context.Context, since time.Time) (all []LinkChange, err error) {
	err = db.read("read link history", func(read *sql.DB) error {
		rows, err := read.QueryContext(ctx, `SELECT at, state, reason FROM link WHERE at >= ? ORDER BY id`, since.UnixMilli())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c LinkChange
			var at int64
			if err := rows.Scan(&at, &c.State, &c.Reason); err != nil {
				return err
			}
			c.At = fromMilli(at)
			all = append(all, c)
		}
		return rows.Err()
	})
	return all, err
}
