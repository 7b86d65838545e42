package store

import (
	"context"
	"errors"
	"os"
)

// Recreate begins a new file in place of one that was found corrupt, or that was
// removed or replaced by another while it was open. What stands at the path is
// renamed, not deleted. The new file has the cluster, the facts and the outbox of the
// old one, and nothing else; the ids of its collections have not been used before, so
// whoever has read some from the old file finds nothing under them.
//
// Reading and writing wait until it is done. When it fails, because the directory
// cannot be written or the new file is corrupt again, there is no file: every
// operation gives that error until another Recreate succeeds.
func (db *DB) Recreate(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	db.mu.Lock()
	defer db.mu.Unlock()
	if errors.Is(db.fileErr, errClosed) {
		return db.fileErr
	}
	if f := db.file; f != nil {
		info, err := os.Stat(db.path)
		same := err == nil && os.SameFile(info, f.inode)
		if same && !f.corrupt.Load() {
			return nil // somebody was faster
		}
		db.file = nil
		db.carryOver.salvage(ctx, f.write)
		_ = f.close() // it is lost, whatever that says
	}
	db.fileErr = db.recreate(ctx)
	return db.fileErr
}

func (db *DB) recreate(ctx context.Context) error {
	// Anything here is the old file, somebody else's, or a new one that could not be
	// finished.
	aside := db.path + ".corrupt"
	if err := setAside(db.path, aside); err != nil {
		return translate("recreate "+db.path, err)
	}
	err := db.openAndRestore(ctx)
	if errors.Is(err, ErrFull) && os.Remove(aside) == nil { // a cache is worth more than the evidence
		_ = removeDatabase(db.path)
		err = db.openAndRestore(ctx)
	}
	if err != nil {
		_ = removeDatabase(db.path) // it must not be kept in place of the old one
	}
	return err
}

// openAndRestore opens the new file with what is kept of the old one in it.
func (db *DB) openAndRestore(ctx context.Context) error {
	if err := db.open(ctx); err != nil {
		return err
	}
	err := db.restore(ctx)
	if err != nil {
		err = errors.Join(translate("recreate "+db.path, err), db.file.close())
		db.file = nil
	}
	return err
}

func (db *DB) restore(ctx context.Context) error {
	tx, err := db.file.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := db.carryOver.restore(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	for _, q := range db.carryOver.queued {
		db.lastQueued.Store(max(db.lastQueued.Load(), q.ID))
	}
	db.carryOver.queued = nil // it is in the file
	return nil
}
