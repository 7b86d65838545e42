package store

import (
	"context"
	"database/sql"
	"time"
)

// Response is a whole answer, for the identical request.
type Response struct {
	Principal string
	Path      string // with the query
	Accept    string
	Status    int
	MediaType string
	ETag      string
	StoredAt  time.Time
	Body      []byte
}

// PutResponse adds or replaces an answer. An answer with the body that is
// already there costs no write of the body.
func (tx *Tx) PutResponse(r Response) error {
	now := tx.nowMilli()
	res, err := tx.tx.Exec(`UPDATE response SET stored_at = ?, status = ?, media_type = ?, etag = ?
		WHERE principal = ? AND path = ? AND accept = ? AND CAST(body AS BLOB) = ?`, now, r.Status, r.MediaType, r.ETag, r.Principal, r.Path, r.Accept, r.Body)
	if err != nil {
		return tx.note("put response", err)
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return tx.note("put response", err)
	}
	_, err = tx.tx.Exec(`INSERT OR REPLACE INTO response (principal, path, accept, status, media_type, etag, stored_at, size, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, r.Principal, r.Path, r.Accept, r.Status, r.MediaType, r.ETag, now, len(r.Body), r.Body)
	return tx.note("put response", err)
}

// RemoveResponse forgets an answer, in every form that was accepted.
func (tx *Tx) RemoveResponse(principal, path string) error {
	_, err := tx.tx.Exec(`DELETE FROM response WHERE principal = ? AND path = ?`, principal, path)
	return tx.note("remove response", err)
}

// Response finds an answer.
func (db *DB) Response(ctx context.Context, principal, path, accept string) (Response, error) {
	r := Response{Principal: principal, Path: path, Accept: accept}
	var stored int64
	err := db.look("read response", func(read *sql.DB) error {
		return read.QueryRowContext(ctx, `SELECT status, media_type, etag, stored_at, CAST(body AS BLOB) FROM response
			WHERE principal = ? AND path = ? AND accept = ?`, principal, path, accept).Scan(&r.Status, &r.MediaType, &r.ETag, &stored, &r.Body)
	})
	r.StoredAt = time.UnixMilli(stored)
	return r, err
}
