package store

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"
)

// Kinds of errors, to be asked for with errors.Is.
var (
	// ErrNotFound: there is no such row.
	ErrNotFound = errors.New("not recorded")
	// ErrChanged: the collection changed between two pages of one reading.
	ErrChanged = errors.New("the collection changed while it was read")
	// ErrCorrupt: the file is damaged or is no SQLite database.
	ErrCorrupt = errors.New("database is corrupt")
	// ErrForeign: the file is a database of another program.
	ErrForeign = errors.New("database belongs to another program")
	// ErrFull: the disk, or the quota, is full.
	ErrFull = errors.New("no space for the database")
	// ErrReadOnly: the directory or the file cannot be written.
	ErrReadOnly = errors.New("database cannot be written")
	// ErrGone: the file was removed or replaced while it was open.
	ErrGone = errors.New("database file was removed while it was open")
)

// translate adds a kind to the driver's errors. It is the one place that knows
// SQLite's result codes, https://www.sqlite.org/rescode.html.
func translate(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s: %w", op, ErrNotFound)
	}
	var e sqlite3.Error
	if errors.As(err, &e) {
		switch e.Code {
		case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
			return fmt.Errorf("%s: %w: %w", op, ErrCorrupt, err)
		case sqlite3.ErrFull:
			return fmt.Errorf("%s: %w: %w", op, ErrFull, err)
		case sqlite3.ErrReadonly, sqlite3.ErrCantOpen, sqlite3.ErrPerm:
			return fmt.Errorf("%s: %w: %w", op, ErrReadOnly, err)
		}
	}
	return fmt.Errorf("%s: %w", op, err)
}

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }
