package store

import (
	"context"
	"encoding/json"
	"slices"
)

const putOwner = `INSERT OR REPLACE INTO meta (key, value) VALUES ('cluster', ?)`

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
		_, err = tx.tx.Exec(putOwner, bound)
		return tx.wrapErr("write owner", err)
	})
	emptied = emptied && err == nil
	if err == nil {
		db.carryOver.bind(bound, emptied)
	}
	return emptied, err
}
