package store

import (
	"context"
	"errors"
)

// Unfinished is a list that a process was recording for a client when it ended.
type Unfinished struct {
	Scope Scope
	Told  int64 // DB.Next when its answer came
}

// Unfinished returns the lists of which Open could not record what their clients were told, because
// the disk is full. Nothing older of their scopes counts.
func (db *DB) Unfinished() []Unfinished { return db.unfinished }

// giveUpUnfinished gives up the lists that a process was recording when it ended: their snapshots
// can never be committed. What a client was told of them stays known.
func (db *DB) giveUpUnfinished(ctx context.Context) error {
	var told []Unfinished
	err := db.Update(ctx, func(tx *Tx) error {
		all, err := collect(scanCollection)(tx.tx.Query(`SELECT ` + collectionColumns + ` FROM collection WHERE state = 'filling' ORDER BY id`))
		if err != nil {
			return tx.wrapErr("find unfinished lists", err)
		}
		snapshots := make([]*Snapshot, len(all))
		for i := range all {
			s, err := tx.unfinished(&all[i])
			if err != nil {
				return err
			}
			if snapshots[i] = s; s.kind != "" {
				told = append(told, Unfinished{s.scope, s.when.Told})
				db.Skip(s.when.Told)
			}
		}
		for _, s := range snapshots {
			if s.kind == "" { // no client was told of it
				err = s.Abort(tx)
			} else {
				err = s.GiveUp(tx, s.scope.singles(), s.kind, s.apiVersion)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, ErrFull) {
		db.unfinished, err = told, nil
	}
	return err
}

// unfinished is the snapshot of a filling collection. All of its objects came with one list.
func (tx *Tx) unfinished(c *Collection) (*Snapshot, error) {
	s := &Snapshot{scope: c.Scope, file: tx.file, fill: c.ID, kind: c.Kind, apiVersion: c.APIVersion}
	err := tx.tx.QueryRow(`SELECT asked, told, read FROM object WHERE collection_id = ? LIMIT 1`, c.ID).Scan(&s.when.Asked, &s.when.Told, &s.when.Read)
	return s, ignoreNotFound(tx.wrapErr("find unfinished list", err))
}
