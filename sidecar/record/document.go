package record

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

const (
	// maxDocument bounds a verbatim response, in bytes. The largest of Kubernetes 1.36 is OpenAPI
	// v2 in JSON, with 2.2 MB; the largest part of OpenAPI v3 has 1.6 MB. With hundreds of custom
	// resources OpenAPI v2 exceeds the bound. The bound exists because the whole body stays in
	// memory until it is written.
	maxDocument = 4 << 20
	// maxReviewSize bounds the response to a review, in bytes: a subject may have many rules.
	maxReviewSize = 256 << 10
	// maxReviews bounds the number of recorded reviews.
	maxReviews = 512
)

// response is the row of a verbatim response to the request, without its body.
func (s *Source) response(mediaType string) store.Response {
	return store.Response{
		Principal: s.Principal, Path: s.Path, Accept: s.Info.RawAccept,
		Status: http.StatusOK, MediaType: mediaType, Asked: s.Asked, Told: s.told, Read: s.evidence(store.Exists, "").Read,
	}
}

// teeDocument records a response verbatim, for the identical request.
func (r *Recorder) teeDocument(source Source, _ wire.Format, resp *http.Response) io.ReadCloser {
	answer := source.response(resp.Header.Get("Content-Type"))
	answer.ETag, answer.Headers = resp.Header.Get("ETag"), describingHeaders(resp.Header)
	return newTee(resp, r.documentBuffer(source, answer))
}

// describingHeaders returns the headers that describe a body, without Content-Type and ETag.
func describingHeaders(h http.Header) string {
	kept := http.Header{}
	for _, name := range []string{"Cache-Control", "Expires", "Last-Modified", "Vary"} {
		if values := h.Values(name); len(values) > 0 {
			kept[name] = values
		}
	}
	raw, err := json.Marshal(kept)
	if err != nil { // strings always marshal
		return "{}"
	}
	return string(raw)
}

// documentBuffer records a verbatim response when its body is complete.
func (r *Recorder) documentBuffer(source Source, answer store.Response) *bodyBuffer {
	return r.bodyBuffer(maxDocument, nil, func(raw []byte) { r.recordDocument(&source, answer, raw) })
}

// teeAbsence records the 404 for a document, or for the list of a resource that is not served.
// Programs look for optional APIs at their start, and go on without them.
func (r *Recorder) teeAbsence(source Source, format wire.Format, resp *http.Response) io.ReadCloser {
	r.invalidatePath(&source)
	if source.Info.Name != "" { // a scale or status: its object may be missing
		return r.teeStatus(source, format, resp)
	}
	if source.Info.IsResource { // it is not served
		op := observeUnserved{observe{recorder: r, resource: source.resource(), evidence: source.latest(store.Unknown)}, source.Info.Version}
		if !r.enqueue(op) {
			op.lost()
		}
	}
	if source.Info.Class == request.ClassWatch {
		return resp.Body
	}
	answer := source.response(resp.Header.Get("Content-Type"))
	answer.Status = resp.StatusCode
	return newTee(resp, r.bodyBuffer(maxStatus, nil, func(raw []byte) {
		answer.Body = raw
		r.enqueue(putResponse{response: answer})
	}))
}

// invalidate drops what is recorded of the object or document of the request.
func (r *Recorder) invalidate(source Source) {
	r.invalidatePath(&source)
	if source.Info.IsResource {
		r.doubtOf(&source)
	}
}

// recordDocument records a verbatim response.
func (r *Recorder) recordDocument(source *Source, answer store.Response, raw []byte) {
	if len(raw) > maxDocument {
		return
	}
	answer.Body = raw
	whole := true
	if source.Info.IsResource {
		answer.Version, whole = source.versionOf(answer.MediaType, raw)
	}
	switch {
	case !source.Info.IsResource:
		r.enqueue(dropNotFound(source, strings.TrimSuffix(source.barePath(), "/")))
	case source.Info.Name == "":
		r.observeList(source, answer, raw, whole)
	case isTable(raw), source.Info.Class == request.ClassVerbatim:
		e := source.evidence(store.Exists, answer.Version)
		if rows, err := wire.Objects(wire.FormatOf(answer.MediaType), raw); err == nil && len(rows) == 1 {
			e.UIDs = []string{rows[0].UID}
		}
		r.observe(source, source.key(), e)
	default: // it was shown in a form that cannot be parsed
		r.doubtOf(source)
	}
	if !whole {
		return
	}
	r.enqueue(putResponse{response: answer})
	// The document at a hash never changes (KEP-2896). A new hash means that the server has a new
	// document, and nobody asks for the old one any more.
	path, query, _ := strings.Cut(source.Path, "?")
	if strings.HasPrefix(path, "/openapi/v3/") && strings.HasPrefix(query, "hash=") {
		r.enqueue(dropOtherQueries(source))
	}
}

// versionOf reads the version of an object or a list, empty if that is unknown, and reports whether
// the body is complete. If that is unknown, it is not.
func (s *Source) versionOf(mediaType string, raw []byte) (version string, whole bool) {
	format := wire.FormatOf(mediaType)
	if format == nil {
		// CBOR and YAML both contain the name of the field in plain letters.
		return "", s.Info.Continue == "" && (s.Info.Limit == 0 || !bytes.Contains(raw, []byte("continue")))
	}
	if s.Info.Name != "" {
		m, err := format.ParseMeta(raw)
		return m.ResourceVersion, err == nil
	}
	l := format.NewList(func([]byte) error { return nil })
	if _, err := l.Write(raw); err != nil {
		return "", false
	}
	head, err := l.ListMeta()
	return head.ResourceVersion, err == nil && head.Continue == "" && s.Info.Continue == ""
}

// notModified records a 304 to a conditional request of the client.
func (r *Recorder) notModified(source Source, _ wire.Format, resp *http.Response) io.ReadCloser {
	r.Renewed(source, resp.Header.Get("ETag"))
	return resp.Body
}

// Renewed records that the API server still has the document with this ETag, as the response to the
// identical request.
func (r *Recorder) Renewed(source Source, etag string) {
	if etag != "" {
		source.told = r.db.Next()
		r.enqueue(renewResponse(&source, etag))
	}
}

// Review says how the response to a review is recorded.
type Review struct {
	Question string // a keyed digest of the review, so that the cache does not show its content
	// Seal makes a response unreadable for everybody but the caller who asked.
	Seal func([]byte) []byte
	// Lifetime is how long a response stays usable.
	Lifetime time.Duration
}

// teeReview records the response to a review. A 401 says nothing, because the caller is unknown.
// Any other status but 201 invalidates the earlier responses at this path.
func (r *Recorder) teeReview(source Source, _ wire.Format, resp *http.Response) io.ReadCloser {
	switch {
	case source.Review == nil || resp.StatusCode == http.StatusUnauthorized:
		return resp.Body
	case resp.StatusCode != http.StatusCreated:
		r.invalidatePath(&source)
		return resp.Body
	}
	answer := source.response(resp.Header.Get("Content-Type"))
	answer.Status, answer.Question = resp.StatusCode, source.Review.Question
	return newTee(resp, r.bodyBuffer(maxReviewSize, nil, func(raw []byte) {
		answer.Body = source.Review.Seal(raw)
		r.enqueue(putResponse{response: answer})
		r.enqueue(dropReviews(r.clock.Now().Add(-source.Review.Lifetime)))
	}))
}

// invalidatePath drops the verbatim responses at the request's path, in every form.
func (r *Recorder) invalidatePath(source *Source) {
	r.enqueue(dropResponses(source.Principal, source.barePath()))
}
