package store

import (
	"context"
	"encoding/json"
	"slices"
)

const putOwner = `INSERT OR REPLACE INTO meta (key, value) VALUES ('cluster', ?)`

// Owner identifies the service account that the cache belongs to. A name is not enough: two
// clusters have accounts of the same name. So do a deleted account and its successor, which
// another user may have created.
type Owner struct {
	// Authorities are digests of the CA certificates that verify the API server.
	Authorities []string `json:"authorities"`
	// Account is the UID of the service account; empty: unknown.
	Account string `json:"account,omitempty"`
}

// differs reports whether the cache of one owner is unusable for the other. The CA bundles
// before and after a CA rotation overlap; those of two clusters share nothing.
func (o Owner) differs(to Owner) bool {
	return !slices.ContainsFunc(o.Authorities, func(d string) bool { return slices.Contains(to.Authorities, d) }) ||
		(o.Account != "" && to.Account != "" && o.Account != to.Account)
}

// Bind sets the owner of the cache, and empties the cache if its owner was another.
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
			for _, table := range []string{"collection", "observation", "response", "fact", "outbox"} {
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
