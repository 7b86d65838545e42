package store

import (
	"context"
	"database/sql"
	"time"
)

const (
	// maxPins leaves a reader for the others.
	maxPins = maxReaders - 1
	// PinTime bounds how long a Pin holds: the log cannot shrink meanwhile.
	PinTime = 5 * time.Second
)

// Pin is one state of the database, which a reader goes through at its own pace while the writer
// goes on. It holds for PinTime, or until it is closed or its context ends, or the file is
// replaced. After that List and Measure read the present state, and return ErrChanged if the
// collection is another one by then.
type Pin struct {
	db   *DB
	file *file
	tx   *sql.Tx
	ctx  context.Context
	done context.CancelFunc
}

// Pin waits until there is room for one more, or until waiting ends, and pins the present state
// until ctx ends.
func (db *DB) Pin(waiting, ctx context.Context) (*Pin, error) {
	select {
	case db.pins <- struct{}{}:
	case <-waiting.Done():
		return nil, waiting.Err()
	}
	p := &Pin{db: db}
	p.ctx, p.done = context.WithTimeout(ctx, PinTime)
	context.AfterFunc(p.ctx, func() { <-db.pins })
	if err := p.begin(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Pin) begin() (err error) {
	var release func()
	if p.file, release, err = p.db.acquire(); err != nil {
		return err
	}
	defer release()
	return p.file.query("pin", func(read *sql.DB) (err error) {
		if p.tx, err = read.BeginTx(p.ctx, nil); err != nil {
			return err
		}
		var n int // a read transaction begins with its first read
		return p.tx.QueryRowContext(p.ctx, `SELECT count(*) FROM collection WHERE id = 0`).Scan(&n)
	})
}

// Close ends the Pin. It may be called twice.
func (p *Pin) Close() {
	if p.tx != nil {
		_ = p.tx.Rollback() // nothing was changed
	}
	p.done()
}

// Holds is DB.Holds.
func (p *Pin) Holds(ctx context.Context, collection, revision int64) error {
	return p.view(ctx, "check collection", func(tx *sql.Tx) error { return checkRevision(ctx, tx, collection, revision) })
}

// List is DB.List.
func (p *Pin) List(ctx context.Context, collection, revision int64, r Range, f func(Object) error) (next *Cursor, err error) {
	err = p.view(ctx, "list objects", func(tx *sql.Tx) error {
		next, err = list(ctx, tx, collection, revision, r, f)
		return err
	})
	return next, err
}

// Measure is DB.Measure.
func (p *Pin) Measure(ctx context.Context, collection, revision int64, r Range, f func(labels string, size, count int) error) error {
	return p.view(ctx, "measure objects", func(tx *sql.Tx) error { return measure(ctx, tx, collection, revision, r, f) })
}

func (p *Pin) view(ctx context.Context, op string, f func(*sql.Tx) error) error {
	if p.ctx.Err() != nil {
		return p.db.view(ctx, op, f)
	}
	file, release, err := p.db.acquire()
	if err != nil {
		return err
	}
	defer release()
	if file != p.file { // damage to the old one is not the new one's
		return ErrChanged
	}
	err = file.query(op, func(*sql.DB) error { return f(p.tx) })
	if err != nil && p.ctx.Err() != nil { // it has ended meanwhile
		return ErrChanged
	}
	return err
}
