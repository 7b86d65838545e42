package store

import (
	"context"
	"errors"
	"os"
)

// Recreate replaces a file that was found corrupt, or that was removed or replaced while it
// was open. It renames any file at the path instead of deleting it. The new file has the
// owner, the facts and the outbox of the old one, and nothing else. It does not reuse the
// ids of collections, so an id from the old file leads to nothing.
//
// Reads and writes wait until Recreate returns. It fails if the directory cannot be written
// or the new file is corrupt again. Then there is no file, and every operation returns that
// error until another Recreate succeeds.
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
			return nil // another call has replaced it
		}
		db.file = nil
		db.carryOver.salvage(ctx, f.write)
		_ = f.close() // the file is lost anyway
	}
	db.fileErr = db.recreate(ctx)
	return db.fileErr
}

func (db *DB) recreate(ctx context.Context) error {
	// A file at the path is the old one, another program's, or an unfinished new one.
	aside := db.path + ".corrupt"
	if err := setAside(db.path, aside); err != nil {
		return translate("recreate "+db.path, err)
	}
	err := db.openAndRestore(ctx)
	// A working cache is worth more than the corrupt file.
	if errors.Is(err, ErrFull) && os.Remove(aside) == nil {
		_ = removeDatabase(db.path)
		err = db.openAndRestore(ctx)
	}
	if err != nil {
		_ = removeDatabase(db.path) // the next attempt would rename it over the old file
	}
	return err
}

// openAndRestore creates the new file and writes the carried-over rows into it.
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
	db.carryOver.queued = nil // the file has them now
	return nil
}
