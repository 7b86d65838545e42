package store

import (
	"context"
	"database/sql"
	"errors"
)

// unfinished is a list that a process has recorded a part of before it was killed.
type unfinished struct {
	Resource
	Key
	asked, told int64
}

// findUnfinished finds the lists that were not finished. Their objects were told, so that older lists
// of their scope do not count any more. One that is as the list before has no objects of its own.
func (db *DB) findUnfinished(ctx context.Context, write *sql.DB) (err error) {
	db.unfinished, err = collect(func(scan func(...any) error) (u unfinished, err error) {
		err = scan(&u.Principal, &u.Group, &u.Resource.Resource, &u.Namespace, &u.asked, &u.told)
		return u, err
	})(write.QueryContext(ctx, `SELECT c.principal, c.api_group, c.resource, c.namespace, max(o.asked), max(o.told)
		FROM collection c JOIN object o ON o.collection_id = c.id WHERE c.state = 'filling' GROUP BY c.id`))
	return err
}

// doubtUnfinished records that nothing older than the unfinished lists counts of their scopes. A full
// disk does not keep the cache from being opened.
func (db *DB) doubtUnfinished(ctx context.Context) error {
	if len(db.unfinished) == 0 {
		return nil
	}
	err := db.Update(ctx, func(tx *Tx) error {
		for _, u := range db.unfinished {
			db.Skip(u.told)
			if err := tx.Observe(u.Resource, u.Key, Evidence{Says: Unknown, Asked: u.asked, Told: u.told, Read: Latest}); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, ErrFull) {
		return nil
	}
	return err
}
