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
	// schemaVersion counts incompatible schemas. A file of another version is
	// made anew: it is a cache, but for the outbox, which is carried over.
	schemaVersion = 3

	pageSize   = 4096
	maxReaders = 3
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
	if err := checkWritable(dir); err != nil {
		return nil, err
	}
	err := db.open(ctx)
	if errors.Is(err, ErrCorrupt) || errors.Is(err, errSchemaVersion) {
		db.carryOver.salvageFile(ctx, db.path)
	}
	switch {
	case errors.Is(err, ErrCorrupt):
		opts.Notice(fmt.Sprintf("%s: %v: kept as %s.corrupt unless the disk is full, starting with an empty cache", db.path, err, FileName))
		err = db.recreate(ctx)
	case errors.Is(err, ErrForeign):
		opts.Notice(fmt.Sprintf("%s: %v: kept as %s.foreign, starting with an empty cache", db.path, err, FileName))
		if err = setAside(db.path, db.path+".foreign"); err == nil {
			err = db.openAndRestore(ctx)
		}
	case errors.Is(err, errSchemaVersion):
		opts.Notice(fmt.Sprintf("%s: %v: starting with an empty cache", db.path, err))
		if err = removeDatabase(db.path); err == nil {
			err = db.openAndRestore(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	return db, nil
}

// writable finds out that a directory cannot be used in words better than
// SQLite's "unable to open database file".
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

// remove deletes a database with its companions.
func removeDatabase(path string) error {
	return errors.Join(removeFile(path), removeAuxiliary(path))
}

// removeAuxiliary deletes what SQLite keeps beside a database.
func removeAuxiliary(path string) error {
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
	return removeDatabase(path)
}

var errSchemaVersion = errors.New("schema of another version")

// open opens the file at the path, or makes it.
func (db *DB) open(ctx context.Context) error {
	// SQLite removes the log on a clean close.
	wal, statErr := os.Stat(db.path + "-wal")
	unclean := statErr == nil && wal.Size() > 0

	var newFilePragmas []string // of a new file; in an old one the second would write, for which there may be no room
	if info, err := os.Stat(db.path); err != nil || info.Size() == 0 {
		newFilePragmas = []string{"PRAGMA page_size = 4096", "PRAGMA auto_vacuum = INCREMENTAL"} // before the first table, and before WAL
	}
	f := &file{}
	f.write = sql.OpenDB(connector{dsn: dsn(db.path, "_txlock=immediate&_busy_timeout=5000"), pragmas: append(newFilePragmas,
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
func (db *DB) initialize(ctx context.Context, write *sql.DB, unclean bool) error {
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
	// What was being filled when the process ended can never become whole, and nobody has
	// the key any more to the reviews that it kept. Neither is read, so a disk without room
	// for this is no reason not to open.
	for _, cleanup := range []string{"DELETE FROM collection WHERE state = 'filling'", "DELETE FROM response WHERE question <> ''"} {
		if _, err := write.ExecContext(ctx, cleanup); err != nil {
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
