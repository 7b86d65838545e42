package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"github.com/mattn/go-sqlite3"
)

// DB is an open cache. Its methods may be called from several goroutines.
type DB struct {
	path       string
	opts       Options
	lastID     atomic.Int64 // of collections, in this file and in those before it
	lastQueued atomic.Int64 // of queued writes, likewise
	carryOver  carryOver
	fileErr    error // why there is no file: Recreate has failed

	// mu is held for reading while the file is used, for writing while it is
	// replaced: SQLite finds the companions of a file by its name, so nobody may
	// have the old one open when there is a new one.
	mu   sync.RWMutex
	file *file // nil: see scratch
}

// file is an open database file.
type file struct {
	write   *sql.DB
	read    *sql.DB
	stmts   *statements
	inode   fs.FileInfo
	corrupt atomic.Bool // an operation has found the file corrupt

	collections collectionCache
}

// Path is the database file's.
func (db *DB) Path() string { return db.path }

// Check tells whether the file is still the one that was opened: writes to an
// unlinked file succeed into nothing.
func (db *DB) Check() error {
	f, release, err := db.acquire()
	if err != nil {
		return err
	}
	defer release()
	info, err := os.Stat(db.path)
	if err != nil || !os.SameFile(info, f.inode) {
		return fmt.Errorf("%s: %w", db.path, ErrGone)
	}
	return nil
}

// use gives the file, which stays the same until done is called.
func (db *DB) acquire() (f *file, release func(), err error) {
	db.mu.RLock()
	if db.file == nil {
		defer db.mu.RUnlock()
		return nil, nil, fmt.Errorf("%w: %w", ErrGone, db.fileErr)
	}
	return db.file, db.mu.RUnlock, nil
}

// Close closes the database; the log is merged into the file. In place of a file that was
// found corrupt it leaves a new one, as Recreate does: the next Open must not take the old
// one again, and what was promised of the outbox is in no other place.
func (db *DB) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	f := db.file
	if f == nil {
		return nil
	}
	db.file, db.fileErr = nil, errClosed
	if !f.corrupt.Load() {
		return f.close()
	}
	ctx := context.Background() // it must not end here
	db.carryOver.salvage(ctx, f.write)
	_ = f.close() // it is lost, whatever that says
	if err := db.recreate(ctx); err != nil {
		return err
	}
	f, db.file = db.file, nil
	return f.close()
}

var errClosed = errors.New("database is closed")

func (f *file) close() error {
	return errors.Join(f.read.Close(), f.stmts.close(), f.write.Close())
}

// note adds a kind to an error of an operation on the open file, and remembers
// that it is corrupt.
func (f *file) wrapErr(op string, err error) error {
	err = translate(op, err)
	if errors.Is(err, ErrCorrupt) {
		f.corrupt.Store(true)
	}
	return err
}

// connector opens connections and runs pragmas on each before its first use.
type connector struct {
	dsn     string
	pragmas []string
	reader  bool
}

var _ driver.Connector = connector{}

func (c connector) Driver() driver.Driver { return &sqlite3.SQLiteDriver{} }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	// SQLite makes its files with the umask's leave; the directory is 0700.
	conn, err := (&sqlite3.SQLiteDriver{}).Open(c.dsn)
	if err != nil {
		return nil, err
	}
	if c.reader {
		// The last connection that closes would delete the log, by its name. The writer
		// does that; a reader that is late must not, the name may be another file's.
		if err := conn.(*sqlite3.SQLiteConn).SetFileControlInt("main", sqlite3.SQLITE_FCNTL_PERSIST_WAL, 1); err != nil {
			return nil, errors.Join(fmt.Errorf("keep the log: %w", err), conn.Close())
		}
	}
	for _, pragma := range c.pragmas {
		if _, err := conn.(driver.ExecerContext).ExecContext(ctx, pragma, nil); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", pragma, err), conn.Close())
		}
	}
	return conn, nil
}
