package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Response is a complete response, replayed for the identical request.
type Response struct {
	Principal string
	Path      string // with the query
	Accept    string
	// Question identifies the body of a review request; empty: the request was a GET.
	Question  string
	Status    int
	MediaType string
	ETag      string
	Headers   string // JSON object of other headers of the body; empty means {}
	StoredAt  time.Time
	// Version is the resourceVersion of the object or list; empty: unknown. Asked, Told and Read
	// say how the response came; see Evidence.
	Version     string
	Asked, Told int64
	Read        Read
	Body        []byte
}

// Evidence is what the response says about an object, or about all objects of a list.
func (r *Response) Evidence() Evidence {
	e := Evidence{Says: Exists, Version: r.Version, Asked: r.Asked, Told: r.Told, Read: r.Read}
	if r.Version == "" {
		e.Says = Unknown
	}
	return e
}

// PutResponse adds or replaces a response. It does not write a body that has not changed.
func (tx *Tx) PutResponse(r Response) error {
	if r.Headers == "" {
		r.Headers = "{}"
	}
	r.Read = cmp.Or(r.Read, Lagging)
	now := tx.nowMilli()
	res, err := tx.tx.Exec(`UPDATE response SET stored_at = ?, version = ?, asked = ?, told = ?, read = ?, status = ?, media_type = ?, etag = ?, headers = ?
		WHERE principal = ? AND path = ? AND accept = ? AND question = ? AND CAST(body AS BLOB) = ?`,
		now, r.Version, r.Asked, r.Told, r.Read, r.Status, r.MediaType, r.ETag, r.Headers, r.Principal, r.Path, r.Accept, r.Question, r.Body)
	if err != nil {
		return tx.wrapErr("put response", err)
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return tx.wrapErr("put response", err)
	}
	_, err = tx.tx.Exec(`INSERT OR REPLACE INTO response (principal, path, accept, question, status, media_type, etag, headers, stored_at, version, asked, told, read, size, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, r.Principal, r.Path, r.Accept, r.Question, r.Status, r.MediaType, r.ETag, r.Headers, now, r.Version, r.Asked, r.Told, r.Read, len(r.Body), r.Body)
	return tx.wrapErr("put response", err)
}

// RenewResponse records that the server has confirmed the response to a GET, if the stored
// one has this etag. told is DB.Next when it did.
func (tx *Tx) RenewResponse(principal, path, accept, etag string, told int64) error {
	_, err := tx.tx.Exec(`UPDATE response SET stored_at = ?, told = ? WHERE principal = ? AND path = ? AND accept = ? AND question = '' AND etag = ?`,
		tx.nowMilli(), told, principal, path, accept, etag)
	return tx.wrapErr("renew response", err)
}

// The queries below give paths as ranges, for the index: '@' follows '?', and '0' follows '/'.

// RemoveResponse deletes the responses for a path, which is given without a query: for every
// Accept header and every query.
func (tx *Tx) RemoveResponse(principal, path string) error {
	_, err := tx.tx.Exec(`DELETE FROM response WHERE principal = ?1 AND (path = ?2 OR path >= ?2 || '?' AND path < ?2 || '@')`, principal, path)
	return tx.wrapErr("remove response", err)
}

// RemoveResponsesBelow deletes the responses for all paths below a path.
func (tx *Tx) RemoveResponsesBelow(principal, path string) error {
	_, err := tx.tx.Exec(`DELETE FROM response WHERE principal = ?1 AND path >= ?2 || '/' AND path < ?2 || '0'`, principal, path)
	return tx.wrapErr("remove responses", err)
}

// RemoveNotFound deletes the responses with the status 404 for a path and all paths below it: the
// API is served again.
func (tx *Tx) RemoveNotFound(principal, path string) error {
	_, err := tx.tx.Exec(`DELETE FROM response WHERE principal = ?1 AND status = 404 AND (path = ?2 OR path >= ?2 || '/' AND path < ?2 || '0' OR path >= ?2 || '?' AND path < ?2 || '@')`, principal, path)
	return tx.wrapErr("remove responses", err)
}

// ReplaceResponses deletes the responses for a path whose query differs from the query of
// keep, which is a path with its query.
func (tx *Tx) ReplaceResponses(principal, path, keep string) error {
	_, err := tx.tx.Exec(`DELETE FROM response WHERE principal = ?1 AND path >= ?2 || '?' AND path < ?2 || '@' AND path <> ?3`, principal, path, keep)
	return tx.wrapErr("replace responses", err)
}

// ForgetReviews deletes the reviews that were recorded before a time, and the oldest ones if
// there are more than most.
func (tx *Tx) ForgetReviews(before time.Time, most int) error {
	_, err := tx.tx.Exec(`DELETE FROM response WHERE question <> '' AND (stored_at < ? OR rowid IN (
		SELECT rowid FROM response WHERE question <> '' ORDER BY stored_at DESC LIMIT -1 OFFSET ?))`, before.UnixMilli(), most)
	return tx.wrapErr("delete reviews", err)
}

// Response returns the response to a GET.
func (db *DB) Response(ctx context.Context, principal, path, accept string) (Response, error) {
	return db.Review(ctx, principal, path, accept, "")
}

// Review returns the response to a review.
func (db *DB) Review(ctx context.Context, principal, path, accept, question string) (Response, error) {
	r := Response{Principal: principal, Path: path, Accept: accept, Question: question}
	var stored int64
	var size int
	err := db.read("read response", func(read *sql.DB) error {
		err := read.QueryRowContext(ctx, `SELECT status, media_type, etag, headers, stored_at, version, asked, told, read, size, CAST(body AS BLOB) FROM response
			WHERE principal = ? AND path = ? AND accept = ? AND question = ?`, principal, path, accept, question).
			Scan(&r.Status, &r.MediaType, &r.ETag, &r.Headers, &stored, &r.Version, &r.Asked, &r.Told, &r.Read, &size, &r.Body)
		if err == nil && size != len(r.Body) {
			err = fmt.Errorf("%w: response of %d bytes has %d", ErrCorrupt, size, len(r.Body))
		}
		return err
	})
	r.StoredAt = time.UnixMilli(stored)
	return r, err
}

// ETag returns the etag of the response to a GET, without reading the body. It is empty if
// the response has none.
func (db *DB) ETag(ctx context.Context, principal, path, accept string) (etag string, err error) {
	err = db.read("read etag", func(read *sql.DB) error {
		return read.QueryRowContext(ctx, `SELECT etag FROM response WHERE principal = ? AND path = ? AND accept = ? AND question = ''`, principal, path, accept).Scan(&etag)
	})
	return etag, err
}
