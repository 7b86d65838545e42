package store

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

//go:embed schema.sql
var schema string

const (
	// FileName is the database's name in its directory.
	FileName = "rockpool.db"
	// applicationID marks the file as ours, "Rpol".
	applicationID = 0x52706f6c
	// schemaVersion counts incompatible schemas. A new file replaces a file of another
	// version, which is only a cache. The outbox is not, and is carried over.
	schemaVersion = 5

	pageSize   = 4096
	maxReaders = 3
	// readerIdleTime is when a reader that is not used is closed. Most pods read offline only.
	readerIdleTime = time.Minute
	// DefaultMaxSize bounds the file, in bytes.
	DefaultMaxSize = 256 << 20
)

// Options of Open. The zero value is ready to use.
type Options struct {
	// MaxSize is the size, in bytes, above which Evict is needed; 0 means DefaultMaxSize. The
	// database file never has more than twice as much: a list that comes in needs room beside
	// the one that it replaces. The write-ahead log takes a few MiB more,
	// and a sixteenth of MaxSize while checkpoints are held.
	MaxSize int64
	// Now returns the time; nil means time.Now.
	Now func() time.Time
	// Notice gets a sentence about a file that Open cannot use. Nil means none.
	Notice func(string)
	// Replaced gets a sentence about a file that Open replaces by an empty one. Nil means Notice.
	Replaced func(string)
}

// Open opens the cache in directory dir, and creates it if it is missing. Open renames a
// file that is corrupt or belongs to another program, and creates a new one. A file with
// another schema version it deletes and replaces. The queued writes of a database that Seed has
// replaced it adopts.
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
	if opts.Replaced == nil {
		opts.Replaced = opts.Notice
	}
	db := &DB{path: filepath.Join(dir, FileName), opts: opts, pins: make(chan struct{}, maxPins)}
	if err := checkWritable(dir); err != nil {
		return nil, err
	}
	err := db.open(ctx)
	if err == nil {
		if err = db.giveUpUnfinished(ctx); err != nil {
			_ = db.file.close() // it cannot be used anyway
			db.file = nil
		}
	}
	if errors.Is(err, ErrCorrupt) || errors.Is(err, errSchemaVersion) {
		db.carryOver.salvageFile(ctx, db.path)
	}
	switch {
	case errors.Is(err, ErrCorrupt):
		opts.Replaced(fmt.Sprintf("cannot use the database; starting with an empty cache and "+
			"keeping the file as %s.corrupt, unless the disk is full: %v", FileName, err))
		err = db.recreate(ctx)
	case errors.Is(err, ErrForeign):
		opts.Replaced(fmt.Sprintf("cannot use the database; starting with an empty cache and "+
			"keeping the file as %s.foreign: %v", FileName, err))
		if err = setAside(db.path, db.path+".foreign"); err == nil {
			err = db.openAndRestore(ctx)
		}
	case errors.Is(err, errSchemaVersion):
		opts.Replaced(fmt.Sprintf("cannot use the database; starting with an empty cache: %v", err))
		if err = removeDatabase(db.path); err == nil {
			err = db.openAndRestore(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	db.adoptPrevious(ctx)
	return db, nil
}

// checkWritable gives a clearer error for an unusable directory than SQLite's
// "unable to open database file".
func checkWritable(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("cache directory %s: %w: %w", dir, ErrFull, err)
		}
		return fmt.Errorf("cache directory %s: %w: %w", dir, ErrReadOnly, err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// removeDatabase deletes a database and its auxiliary files.
func removeDatabase(path string) error {
	return errors.Join(removeFile(path), removeAuxiliary(path))
}

// removeAuxiliary deletes the files that SQLite keeps next to a database.
func removeAuxiliary(path string) error {
	return errors.Join(removeFile(path+"-wal"), removeFile(path+"-shm"),
		removeFile(path+"-journal"))
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// setAside renames a database, and overwrites any file at the new name. It deletes the
// log, because SQLite would apply it to the next file at path and damage that one too.
func setAside(path, to string) error {
	if err := os.Rename(path, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set %s aside: %w", path, err)
	}
	return removeDatabase(path)
}

var errSchemaVersion = errors.New("another schema version")

// open opens the file at db.path, or creates it.
func (db *DB) open(ctx context.Context) error {
	// SQLite removes the log on a clean close.
	wal, statErr := os.Stat(db.path + "-wal")
	unclean := statErr == nil && wal.Size() > 0

	// Only a new file needs these, before its first table and before WAL. In an old file the
	// second would write, and the disk may be full.
	var newFilePragmas []string
	if info, err := os.Stat(db.path); err != nil || info.Size() == 0 {
		newFilePragmas = []string{"PRAGMA page_size = 4096", "PRAGMA auto_vacuum = INCREMENTAL"}
	}
	f := &file{}
	// The statements are kept: to parse them took nearly half of the time to record a watch event.
	f.write = sql.OpenDB(connector{dsn: dsn(db.path, "_txlock=immediate&_busy_timeout=5000&_stmt_cache_size=32"), pragmas: append(newFilePragmas,
		"PRAGMA journal_mode = WAL",
		"PRAGMA synchronous = NORMAL",
		"PRAGMA cache_size = -1024",
		"PRAGMA temp_store = MEMORY", // the root file system is read-only
		"PRAGMA foreign_keys = ON",
		"PRAGMA trusted_schema = OFF",
		"PRAGMA journal_size_limit = 4194304",
		autoCheckpoint(checkpointPages),
		maxPageCount(db.opts.MaxSize),
	)})
	f.write.SetMaxOpenConns(1)
	if err := db.initialize(ctx, f.write, unclean); err != nil {
		return errors.Join(err, f.write.Close())
	}
	f.read = sql.OpenDB(connector{dsn: dsn(db.path, "_busy_timeout=5000&_stmt_cache_size=16"), reader: true, pragmas: []string{
		"PRAGMA query_only = ON",
		"PRAGMA cache_size = -1024",
		"PRAGMA temp_store = MEMORY",
		"PRAGMA trusted_schema = OFF",
	}})
	f.read.SetMaxOpenConns(maxReaders)
	f.read.SetConnMaxIdleTime(readerIdleTime)
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

// maxPageCount is the pragma that bounds the file to twice a size in bytes.
func maxPageCount(size int64) string {
	return fmt.Sprintf("PRAGMA max_page_count = %d", 2*size/pageSize)
}

func dsn(path, params string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + params
}

// initialize checks that the file is a cache of this version, and fills an empty one.
func (db *DB) initialize(ctx context.Context, write *sql.DB, unclean bool) error {
	op := "open " + db.path
	var app, version, tables int
	row := write.QueryRowContext(ctx, "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)")
	if err := row.Scan(&app, &version, &tables); err != nil {
		return translate(op, err)
	}
	if tables == 0 && (app == 0 || app == applicationID) {
		// lastID and lastQueued keep the values of the previous file.
		script := fmt.Sprintf("BEGIN IMMEDIATE; %s PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT;", schema, applicationID, schemaVersion)
		_, err := write.ExecContext(ctx, script)
		return translate(op+": create schema", err)
	}
	if app != applicationID {
		return fmt.Errorf("%s: %w (application_id %#x, %d tables)", op, ErrForeign, app, tables)
	}
	if version != schemaVersion {
		return fmt.Errorf("%s: %w: %d, this program writes %d", op, errSchemaVersion, version, schemaVersion)
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
	// The key to the reviews of a process that ended is lost. Nothing reads these rows, so Open
	// succeeds even when the disk is too full to delete them.
	if _, err := write.ExecContext(ctx, "DELETE FROM response WHERE question <> ''"); err != nil {
		if err := translate(op, err); !errors.Is(err, ErrFull) {
			return err
		}
	}
	var last, queued, next int64
	// A row of an object is not newer than its collection's last change.
	err := write.QueryRowContext(ctx, `SELECT (SELECT coalesce(max(id), 0) FROM collection), (SELECT coalesce(max(id), 0) FROM outbox),
		max((SELECT coalesce(max(max(told, moved)), 0) FROM collection), (SELECT coalesce(max(told), 0) FROM observation), (SELECT coalesce(max(told), 0) FROM response))`).
		Scan(&last, &queued, &next)
	db.lastID.Store(last)
	db.lastQueued.Store(queued)
	db.next.Store(max(db.next.Load(), next))
	return translate(op, err)
}

// ReleaseMemory gives the memory in which the writer keeps pages back to the node, as much as is
// not in use. Readers are closed when they are idle.
func (db *DB) ReleaseMemory(ctx context.Context) error {
	file, release, err := db.acquire()
	if err != nil {
		return err
	}
	defer release()
	_, err = file.write.ExecContext(ctx, "PRAGMA shrink_memory")
	trim()
	return file.wrapErr("release memory", err)
}
