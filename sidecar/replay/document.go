package replay

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// document returns the verbatim response to the identical request, unless something newer is known.
func (r *Replayer) document(ctx context.Context, q Request) (*http.Response, error) {
	doc, err := r.db.Response(ctx, q.Principal, q.Path, q.Info.RawAccept)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: no response to this request", ErrNotRecorded)
	}
	if err != nil {
		return nil, err
	}
	if current, err := r.isCurrent(ctx, q, &doc); !current || err != nil {
		return nil, cmp.Or(err, fmt.Errorf("%w: the latest response to this request", ErrNotRecorded))
	}
	header := http.Header{}
	setHeaders(header, doc)
	if doc.ETag != "" && etagMatches(q.IfNoneMatch, doc.ETag) {
		return r.response(http.StatusNotModified, header, doc.StoredAt, nil), nil
	}
	return r.response(doc.Status, header, doc.StoredAt, doc.Body), nil
}

// isCurrent reports whether nothing newer is known than a response about objects.
func (r *Replayer) isCurrent(ctx context.Context, q Request, doc *store.Response) (bool, error) {
	switch {
	case !q.Info.IsResource:
		return true, nil
	case q.Info.Name == "":
		if r.rec.Doubtful(q.resource(), store.Key{Namespace: q.Info.Namespace}) {
			return false, nil
		}
		newer, err := r.db.Superseded(ctx, q.resource(), verbatimList(q, doc))
		return !newer, err
	}
	known, err := r.known(ctx, &q)
	if err != nil {
		return false, err
	}
	e := doc.Evidence()
	e.UIDs = uidsOf(doc)
	// It is as current as the object at its version. In a restored cluster another one may have that.
	for i := range known.States {
		s := &known.States[i]
		if doc.Version != "" && e.Agrees(s.Evidence()) && s.Object.ResourceVersion == doc.Version {
			if current, err := known.current(s); current || err != nil {
				return current, err
			}
		}
	}
	return known.holds(e, nil), nil
}

// uidsOf is the uid of the object in a Table of one object; none if the response is something else.
func uidsOf(doc *store.Response) []string {
	rows, err := wire.Objects(wire.FormatOf(doc.MediaType), doc.Body)
	if err != nil || len(rows) != 1 {
		return nil
	}
	return []string{rows[0].UID}
}

func verbatimList(q Request, doc *store.Response) store.VerbatimList {
	absent := doc.Status == http.StatusNotFound
	return store.VerbatimList{Namespace: q.Info.Namespace, Evidence: doc.Evidence(), Absent: absent, Objects: func() (out []store.Object, ok bool) {
		listed, err := wire.Objects(wire.FormatOf(doc.MediaType), doc.Body)
		for _, m := range listed {
			out = append(out, store.Object{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion})
		}
		return out, err == nil && !absent
	}}
}

// setHeaders sets the headers of a recorded body that are not set yet. It always sets Vary, because
// the Vary header of a 304 may be incomplete.
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

// etagMatches evaluates If-None-Match (RFC 9110 §13.1.2): weak and strong ETags match.
func etagMatches(header, etag string) bool {
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}

// ETag returns the ETag of the verbatim response to a request, empty if the response has none. An
// error may be store.ErrNotFound.
func (r *Replayer) ETag(ctx context.Context, q Request) (string, error) {
	return r.db.ETag(ctx, q.Principal, q.Path, q.Info.RawAccept)
}

// Unchanged puts the recorded body in place of a 304 that the API server sent for this ETag, so the
// client gets the full response (RFC 9111 §4.3.4). The headers of the 304, such as Date, stay.
func (r *Replayer) Unchanged(ctx context.Context, q Request, etag string, notModified *http.Response) (*http.Response, error) {
	doc, err := r.db.Response(ctx, q.Principal, q.Path, q.Info.RawAccept)
	if err != nil {
		return nil, err
	}
	if doc.ETag != etag {
		return nil, fmt.Errorf("etag %s: %w", etag, store.ErrNotFound)
	}
	resp := *notModified
	resp.StatusCode = doc.Status
	resp.Status = fmt.Sprintf("%d %s", doc.Status, http.StatusText(doc.Status))
	resp.Header = notModified.Header.Clone()
	setHeaders(resp.Header, doc)
	resp.Header.Set("Content-Length", strconv.Itoa(len(doc.Body)))
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(doc.Body)), int64(len(doc.Body))
	resp.Uncompressed = false
	return &resp, nil
}

// Review returns the recorded response to a review, if it is not older than lifetime. question is
// the digest of the review; unseal decrypts the body.
func (r *Replayer) Review(
	ctx context.Context, q Request, question string, lifetime time.Duration,
	unseal func([]byte) ([]byte, error),
) (*http.Response, error) {
	doc, err := r.db.Review(ctx, q.Principal, q.Path, q.Info.RawAccept, question)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: this review was not sent before", ErrNotRecorded)
	}
	if err != nil {
		return nil, err
	}
	// A response from the future shows that the clock was set back, so its age is unknown.
	if age := r.now().Sub(doc.StoredAt); age.Abs() > lifetime {
		return nil, fmt.Errorf("%w: this review was last answered more than %s ago", ErrNotRecorded, lifetime)
	}
	body, err := unseal(doc.Body)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {doc.MediaType}}
	return r.response(doc.Status, header, doc.StoredAt, body), nil
}
