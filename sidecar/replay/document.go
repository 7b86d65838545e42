package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"rockpool.dev/store"
)

// document gives the recorded answer to the identical request.
func (r *Replayer) document(ctx context.Context, q Request) (answer, error) {
	doc, err := r.db.Response(ctx, q.Principal, q.Path, q.Info.RawAccept)
	if errors.Is(err, store.ErrNotFound) {
		return answer{}, fmt.Errorf("%w: no answer to this request", ErrNotRecorded)
	}
	if err != nil {
		return answer{}, err
	}
	header := http.Header{}
	setHeaders(header, doc)
	if doc.ETag != "" && etagMatches(q.IfNoneMatch, doc.ETag) {
		return answer{r.response(http.StatusNotModified, header, doc.StoredAt, http.NoBody, 0), doc.StoredAt}, nil
	}
	return answer{r.response(doc.Status, header, doc.StoredAt, io.NopCloser(bytes.NewReader(doc.Body)), int64(len(doc.Body))), doc.StoredAt}, nil
}

// setHeaders sets the headers that belong to a recorded body, where they are not
// set already. What the body varies by, a 304 only tells in part.
func setHeaders(h http.Header, doc store.Response) {
	var headers http.Header
	if err := json.Unmarshal([]byte(doc.Headers), &headers); err == nil {
		for name, values := range headers {
			if name == "Vary" || len(h.Values(name)) == 0 {
				h[name] = values
			}
		}
	}
	h.Set("Content-Type", doc.MediaType)
	if doc.ETag != "" {
		h.Set("ETag", doc.ETag)
	}
}

// etagMatches evaluates If-None-Match (RFC 9110 §13.1.2): weak and strong are the same.
func etagMatches(header, etag string) bool {
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}

// ETag gives that of the recorded answer to a request, empty if it has none. An error
// may be store.ErrNotFound.
func (r *Replayer) ETag(ctx context.Context, q Request) (string, error) {
	return r.db.ETag(ctx, q.Principal, q.Path, q.Info.RawAccept)
}

// Unchanged puts the recorded body in place of a 304 that the server gave to a request
// with this etag: the client gets the answer that the server has spared itself
// (RFC 9111 §4.3.4). What the 304 says of itself, such as its date, stays.
func (r *Replayer) Unchanged(ctx context.Context, q Request, etag string, notModified *http.Response) (*http.Response, error) {
	doc, err := r.db.Response(ctx, q.Principal, q.Path, q.Info.RawAccept)
	if err != nil {
		return nil, err
	}
	if doc.ETag != etag {
		return nil, fmt.Errorf("etag %s: %w", etag, store.ErrNotFound)
	}
	header := notModified.Header.Clone()
	setHeaders(header, doc)
	header.Set("Content-Length", strconv.Itoa(len(doc.Body)))
	resp := *notModified
	resp.Status, resp.StatusCode = fmt.Sprintf("%d %s", doc.Status, http.StatusText(doc.Status)), doc.Status
	resp.Header, resp.Body, resp.ContentLength, resp.Uncompressed = header, io.NopCloser(bytes.NewReader(doc.Body)), int64(len(doc.Body)), false
	return &resp, nil
}

// Review gives the recorded answer to a question, if it is not older than lifetime.
// unseal makes it readable.
func (r *Replayer) Review(ctx context.Context, q Request, question string, lifetime time.Duration, unseal func([]byte) ([]byte, error)) (*http.Response, error) {
	doc, err := r.db.Review(ctx, q.Principal, q.Path, q.Info.RawAccept, question)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: this question was not asked before", ErrNotRecorded)
	}
	if err != nil {
		return nil, err
	}
	// Also when the clock was put back: nobody knows then how old it is.
	if age := r.now().Sub(doc.StoredAt); age.Abs() > lifetime {
		return nil, fmt.Errorf("%w: this question was last answered more than %s ago", ErrNotRecorded, lifetime)
	}
	body, err := unseal(doc.Body)
	if err != nil {
		return nil, err
	}
	return r.response(doc.Status, http.Header{"Content-Type": {doc.MediaType}}, doc.StoredAt, io.NopCloser(bytes.NewReader(body)), int64(len(body))), nil
}
