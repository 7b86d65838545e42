package store

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/mattn/go-sqlite3"
)

// Kinds of errors, for errors.Is.
var (
	// ErrNotFound: there is no such row.
	ErrNotFound = errors.New("not recorded")
	// ErrChanged: the collection changed between two pages of a List.
	ErrChanged = errors.New("the collection changed while it was read")
	// ErrCorrupt: the file is damaged or is not an SQLite database.
	ErrCorrupt = errors.New("database is corrupt")
	// ErrDamaged: the checksum of a payload is wrong. The rest of the file is good.
	ErrDamaged = errors.New("a payload is damaged")
	// ErrForeign: the file is the database of another program.
	ErrForeign = errors.New("database belongs to another program")
	// ErrFull: the disk, or the quota, is full.
	ErrFull = errors.New("no space for the database")
	// ErrReadOnly: the directory or the file cannot be written.
	ErrReadOnly = errors.New("database cannot be written")
	// ErrDisk: reading or writing failed below the file system.
	ErrDisk = errors.New("disk error")
	// ErrGone: the file was removed or replaced while it was open and has not been
	// recreated, or the DB is closed.
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
	if kind := kindOf(err); kind != nil && !errors.Is(err, kind) {
		return fmt.Errorf("%s: %w: %w", op, kind, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

func kindOf(err error) error {
	var e sqlite3.Error
	cause := err
	if errors.As(err, &e) {
		switch e.Code {
		case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
			return ErrCorrupt
		case sqlite3.ErrFull:
			return ErrFull
		case sqlite3.ErrError: // no such table, or no such column: somebody has changed the schema
			if strings.HasPrefix(e.Error(), "no such ") {
				return ErrCorrupt
			}
		case sqlite3.ErrReadonly, sqlite3.ErrPerm:
			return ErrReadOnly
		}
		switch e.ExtendedCode {
		case sqlite3.ErrIoErrShortRead, ioerrCorruptFS: // the file is shorter than its header says
			return ErrCorrupt
		}
		cause = e.SystemErrno
	}
	// CANTOPEN and IOERR have many causes; the error of the system call tells them apart.
	switch {
	case errors.Is(cause, syscall.ENOSPC), errors.Is(cause, syscall.EDQUOT):
		return ErrFull
	case errors.Is(cause, syscall.EROFS), errors.Is(cause, syscall.EACCES),
		errors.Is(cause, syscall.EPERM):
		return ErrReadOnly
	case e.Code == sqlite3.ErrCantOpen:
		return ErrReadOnly
	case e.Code == sqlite3.ErrIoErr:
		return ErrDisk
	}
	return nil
}

// ioerrCorruptFS is SQLITE_IOERR_CORRUPTFS, for which the driver has no name.
var ioerrCorruptFS = sqlite3.ErrIoErr.Extend(33)

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

func ignoreNotFound(err error) error {
	if isNotFound(err) {
		return nil
	}
	return err
}
