package store

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
)

// Offsets of two integers in the header of a database, big-endian.
// https://www.sqlite.org/fileformat2.html#the_database_header
const (
	userVersionOffset   = 60
	applicationIDOffset = 68
	headerSize          = 100
)

// OtherVersion reports whether directory dir has a cache of another schema version, which Open would
// replace by an empty one. Another process may be using it. It is false if nobody can tell.
func OtherVersion(ctx context.Context, dir string) bool {
	path := filepath.Join(dir, FileName)
	header, err := readHeader(path)
	if err != nil {
		return false
	}
	app, version := integer(header, applicationIDOffset), integer(header, userVersionOffset)
	if app == 0 { // of a new file, they may still be in the log only
		from := openOther(path, "mode=rw")
		defer from.Close() //nolint:errcheck // it was only read
		row := from.QueryRowContext(ctx, "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version)")
		if err := row.Scan(&app, &version); err != nil {
			return false
		}
	}
	return app == applicationID && version != schemaVersion
}

func readHeader(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	header := make([]byte, headerSize)
	_, err = io.ReadFull(file, header)
	return header, err
}

func integer(header []byte, offset int) int {
	return int(int32(binary.BigEndian.Uint32(header[offset:]))) // SQLite has signed ones
}
