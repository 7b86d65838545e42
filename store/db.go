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
	lastID     atomic.Int64  // of collections, in this file and its predecessors
	lastQueued atomic.Int64  // of queued writes, likewise
	next       atomic.Int64  // the sequence number that Next gave last, likewise
	observed   atomic.Int64  // counts observations, for pruneObservations
	known      knownVersions // of anything
	verbatim   knownVersions // of lists that are recorded only as a whole
	renewals   renewals
	pins       chan struct{} // has one for each Pin
	carryOver  carryOver
	unfinished []Unfinished // of Open
	fileErr    error        // why file is nil: Recreate has failed, or the DB is closed

	// mu is held for reading while the file is used, and for writing while it is replaced.
	// SQLite finds the log of a file by name, so the old file must be closed before a new
	// one has its name.
	mu   sync.RWMutex
	file *file // nil: see fileErr
}

// file is an open database file.
type file struct {
	write   *sql.DB
	read    *sql.DB
	stmts   *statements
	inode   fs.FileInfo
	corrupt atomic.Bool // an operation has found the file corrupt

	collections collectionCache
	copies      copies
	remembered  remembered
	outlines    outlines
	attached    bool        // another process may write the file
	held        atomic.Bool // see HoldCheckpoints
}

// Next returns the next sequence number. It orders requests and answers, also across restarts:
// it is above every number in the file.
func (db *DB) Next() int64 { return db.next.Add(1) }

// Skip has Next return numbers above n.
func (db *DB) Skip(n int64) {
	for {
		at := db.next.Load()
		if at >= n || db.next.CompareAndSwap(at, n) {
			return
		}
	}
}

// MaxSize is Options.MaxSize.
func (db *DB) MaxSize() int64 { return db.opts.MaxSize }

// Path is the path of the database file.
func (db *DB) Path() string { return db.path }

// Check returns ErrGone if the path no longer leads to the file that was opened. Writes to
// an unlinked file succeed and are lost.
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

// acquire returns the open file, which nobody replaces until release is called.
func (db *DB) acquire() (f *file, release func(), err error) {
	db.mu.RLock()
	if db.file == nil {
		defer db.mu.RUnlock()
		return nil, nil, fmt.Errorf("%w: %w", ErrGone, db.fileErr)
	}
	return db.file, db.mu.RUnlock, nil
}

// Close merges the log into the file and closes it. Close replaces a file that was found
// corrupt, as Recreate does: the next Open must not use the old file, and nothing else has
// the queued writes. A file that is only attached stays as it is.
func (db *DB) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	f := db.file
	if f == nil {
		return nil
	}
	db.file, db.fileErr = nil, errClosed
	if f.attached || !f.corrupt.Load() {
		return f.close()
	}
	ctx := context.Background() // nothing may interrupt this
	db.carryOver.salvage(ctx, f.write)
	_ = f.close() // the file is lost anyway
	if err := db.recreate(ctx); err != nil {
		return err
	}
	f, db.file = db.file, nil
	return f.close()
}

var errClosed = errors.New("database is closed")

func (f *file) close() error {
	if f.attached {
		return f.read.Close()
	}
	return errors.Join(f.read.Close(), f.stmts.close(), f.write.Close())
}

// wrapErr adds a kind to the error of an operation on the file, and remembers that the
// file is corrupt.
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
	// SQLite creates its files according to the umask; the directory has mode 0700.
	conn, err := (&sqlite3.SQLiteDriver{}).Open(c.dsn)
	if err != nil {
		return nil, err
	}
	if c.reader {
		// The last connection to close deletes the log, by its name. The writer may do that.
		// A late reader must not: by then the name may belong to another file's log.
		if err := conn.(*sqlite3.SQLiteConn).SetFileControlInt("main",
			sqlite3.SQLITE_FCNTL_PERSIST_WAL, 1); err != nil {
			return nil, errors.Join(fmt.Errorf("persist the log: %w", err), conn.Close())
		}
	}
	for _, pragma := range c.pragmas {
		if _, err := conn.(driver.ExecerContext).ExecContext(ctx, pragma, nil); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", pragma, err), conn.Close())
		}
	}
	return conn, nil
}
