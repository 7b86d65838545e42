package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mattn/go-sqlite3"
)

//go:embed schema.sql
var schema string

const (
	// FileName is the database's name in its directory.
	FileName = "rockpool.db"
	// applicationID marks the file as ours, "Rpol".
	applicationID = 0x52706f6c
	// schemaVersion counts incompatible schemas. A file of another version is
	// made anew: it is a cache, but for the outbox, which is carried over.
	schemaVersion = 3

	pageSize = 4096
	readers  = 3
	// DefaultMaxSize bounds the file, in bytes.
	DefaultMaxSize = 256 << 20
)

// Options of Open. The zero value is ready to use.
type Options struct {
	// MaxSize bounds the database file, in bytes; 0 means DefaultMaxSize. The
	// write-ahead log comes on top, a few MiB.
	MaxSize int64
	// Now tells the time; nil means time.Now.
	Now func() time.Time
	// Notice is told, in a sentence, what Open had to do to a file that it could
	// not use; nil means nobody.
	Notice func(string)
}

// DB is an open cache. Its methods may be called from several goroutines.
type DB struct {
	path       string
	opts       Options
	lastID     atomic.Int64 // of collections, in this file and in those before it
	lastQueued atomic.Int64 // of queued writes, likewise
	kept       carryOver
	scratch    error // why there is no file: Recreate has failed

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
	damaged atomic.Bool // an operation has found the file corrupt

	collections known
}

// Open opens the cache in directory dir, and makes it when it is not there. A
// file that is corrupt or belongs to another program is renamed, not deleted,
// and a new one is made; a file with another version's schema is made anew.
func Open(ctx context.Context, dir string, opts Options) (*DB, error) {
	if opts.MaxSize == 0 {
		opts.MaxSize = DefaultMaxSize
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Notice == nil {
		opts.Notice = func(string) {}
	}
	db := &DB{path: filepath.Join(dir, FileName), opts: opts}
	if err := writable(dir); err != nil {
		return nil, err
	}
	err := db.open(ctx)
	if errors.Is(err, ErrCorrupt) || errors.Is(err, errVersion) {
		db.kept.salvageFile(ctx, db.path)
	}
	switch {
	case errors.Is(err, ErrCorrupt):
		opts.Notice(fmt.Sprintf("%s: %v: kept as %s.corrupt unless the disk is full, starting with an empty cache", db.path, err, FileName))
		err = db.recreate(ctx)
	case errors.Is(err, ErrForeign):
		opts.Notice(fmt.Sprintf("%s: %v: kept as %s.foreign, starting with an empty cache", db.path, err, FileName))
		if err = setAside(db.path, db.path+".foreign"); err == nil {
			err = db.openKept(ctx)
		}
	case errors.Is(err, errVersion):
		opts.Notice(fmt.Sprintf("%s: %v: starting with an empty cache", db.path, err))
		if err = remove(db.path); err == nil {
			err = db.openKept(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	return db, nil
}

// writable finds out that a directory cannot be used in words better than
// SQLite's "unable to open database file".
func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("cache directory %s: %w: %w", dir, ErrFull, err)
		}
		return fmt.Errorf("cache directory %s: %w: %w", dir, ErrReadOnly, err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// remove deletes a database with its companions.
func remove(path string) error {
	return errors.Join(removeFile(path), removeCompanions(path))
}

// removeCompanions deletes what SQLite keeps beside a database.
func removeCompanions(path string) error {
	return errors.Join(removeFile(path+"-wal"), removeFile(path+"-shm"), removeFile(path+"-journal"))
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// setAside renames a database; what stood at the new name is lost. The log must
// go: applied to another file it would damage that one too.
func setAside(path, to string) error {
	if err := os.Rename(path, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set %s aside: %w", path, err)
	}
	return remove(path)
}

var errVersion = errors.New("schema of another version")

// open opens the file at the path, or makes it.
func (db *DB) open(ctx context.Context) error {
	// SQLite removes the log on a clean close.
	wal, statErr := os.Stat(db.path + "-wal")
	unclean := statErr == nil && wal.Size() > 0

	var shape []string // of a new file; in an old one the second would write, for which there may be no room
	if info, err := os.Stat(db.path); err != nil || info.Size() == 0 {
		shape = []string{"PRAGMA page_size = 4096", "PRAGMA auto_vacuum = INCREMENTAL"} // before the first table, and before WAL
	}
	f := &file{}
	f.write = sql.OpenDB(connector{dsn: dsn(db.path, "_txlock=immediate&_busy_timeout=5000"), pragmas: append(shape,
		"PRAGMA journal_mode = WAL",
		"PRAGMA synchronous = NORMAL",
		"PRAGMA cache_size = -1024",
		"PRAGMA temp_store = MEMORY", // the root file system is read-only
		"PRAGMA foreign_keys = ON",
		"PRAGMA trusted_schema = OFF",
		"PRAGMA journal_size_limit = 4194304",
		"PRAGMA wal_autocheckpoint = 1000",
		maxPageCount(db.opts.MaxSize),
	)})
	f.write.SetMaxOpenConns(1)
	if err := db.prepare(ctx, f.write, unclean); err != nil {
		return errors.Join(err, f.write.Close())
	}
	f.read = sql.OpenDB(connector{dsn: dsn(db.path, "_busy_timeout=5000&_stmt_cache_size=16"), reads: true, pragmas: []string{
		"PRAGMA query_only = ON",
		"PRAGMA cache_size = -1024",
		"PRAGMA temp_store = MEMORY",
		"PRAGMA trusted_schema = OFF",
	}})
	f.read.SetMaxOpenConns(readers)
	var err error
	if f.stmts, err = prepareStatements(ctx, f.write); err == nil {
		f.inode, err = os.Stat(db.path)
	}
	if err != nil {
		return errors.Join(translate("open "+db.path, err), f.read.Close(), f.write.Close())
	}
	db.file = f
	return nil
}

// maxPageCount keeps the file from growing beyond a size, in bytes.
func maxPageCount(size int64) string { return fmt.Sprintf("PRAGMA max_page_count = %d", size/pageSize) }

func dsn(path, params string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + params
}

// prepare checks whose file it is and makes the schema in an empty one.
func (db *DB) prepare(ctx context.Context, write *sql.DB, unclean bool) error {
	op := "open " + db.path
	var app, version, tables int
	row := write.QueryRowContext(ctx, "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)")
	if err := row.Scan(&app, &version, &tables); err != nil {
		return translate(op, err)
	}
	if tables == 0 && (app == 0 || app == applicationID) { // lastID stays what it was in the file before this one
		script := fmt.Sprintf("BEGIN IMMEDIATE; %s PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT;", schema, applicationID, schemaVersion)
		_, err := write.ExecContext(ctx, script)
		return translate(op+": make schema", err)
	}
	if app != applicationID {
		return fmt.Errorf("%s: %w (application_id %#x, %d tables)", op, ErrForeign, app, tables)
	}
	if version != schemaVersion {
		return fmt.Errorf("%s: %w: %d, this program writes %d", op, errVersion, version, schemaVersion)
	}
	if unclean {
		var verdict string
		if err := write.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
			return translate(op+": quick_check", err)
		}
		if verdict != "ok" {
			return fmt.Errorf("%s: %w: %s", op, ErrCorrupt, verdict)
		}
	}
	// What was being filled when the process ended can never become whole, and nobody has
	// the key any more to the reviews that it kept. Neither is read, so a disk without room
	// for this is no reason not to open.
	for _, left := range []string{"DELETE FROM collection WHERE state = 'filling'", "DELETE FROM response WHERE question <> ''"} {
		if _, err := write.ExecContext(ctx, left); err != nil {
			if err := translate(op, err); !errors.Is(err, ErrFull) {
				return err
			}
		}
	}
	var last, queued int64
	err := write.QueryRowContext(ctx, "SELECT (SELECT coalesce(max(id), 0) FROM collection), (SELECT coalesce(max(id), 0) FROM outbox)").Scan(&last, &queued)
	db.lastID.Store(last)
	db.lastQueued.Store(queued)
	return translate(op, err)
}

// Path is the database file's.
func (db *DB) Path() string { return db.path }

// Check tells whether the file is still the one that was opened: writes to an
// unlinked file succeed into nothing.
func (db *DB) Check() error {
	f, done, err := db.use()
	if err != nil {
		return err
	}
	defer done()
	info, err := os.Stat(db.path)
	if err != nil || !os.SameFile(info, f.inode) {
		return fmt.Errorf("%s: %w", db.path, ErrGone)
	}
	return nil
}

// use gives the file, which stays the same until done is called.
func (db *DB) use() (f *file, done func(), err error) {
	db.mu.RLock()
	if db.file == nil {
		defer db.mu.RUnlock()
		return nil, nil, fmt.Errorf("%w: %w", ErrGone, db.scratch)
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
	db.file, db.scratch = nil, errClosed
	if !f.damaged.Load() {
		return f.close()
	}
	ctx := context.Background() // it must not end here
	db.kept.salvage(ctx, f.write)
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
func (f *file) note(op string, err error) error {
	err = translate(op, err)
	if errors.Is(err, ErrCorrupt) {
		f.damaged.Store(true)
	}
	return err
}

// connector opens connections and runs pragmas on each before its first use.
type connector struct {
	dsn     string
	pragmas []string
	reads   bool
}

var _ driver.Connector = connector{}

func (c connector) Driver() driver.Driver { return &sqlite3.SQLiteDriver{} }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	// SQLite makes its files with the umask's leave; the directory is 0700.
	conn, err := (&sqlite3.SQLiteDriver{}).Open(c.dsn)
	if err != nil {
		return nil, err
	}
	if c.reads {
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
