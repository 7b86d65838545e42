package store

import (
	"context"
	"fmt"
)

const (
	// checkpointPages is how many pages of the write-ahead log make the next commit merge it into
	// the database file, which writes each page once more and waits for the disk.
	checkpointPages = 1000
	// heldShare is the part of the quota that the log may take while checkpoints are held back.
	heldShare = 16
)

func autoCheckpoint(pages int64) string {
	return fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", pages)
}

// HoldCheckpoints has commits leave the log alone, within a bound, or merge it again. It writes
// nothing itself.
func (db *DB) HoldCheckpoints(ctx context.Context, hold bool) error {
	f, release, err := db.acquire()
	if err != nil {
		return err
	}
	defer release()
	if f.held.Swap(hold) == hold {
		return nil
	}
	pages := int64(checkpointPages)
	if hold {
		pages = max(pages, db.opts.MaxSize/heldShare/pageSize)
	}
	_, err = f.write.ExecContext(context.WithoutCancel(ctx), autoCheckpoint(pages))
	return f.wrapErr("hold checkpoints", err)
}
