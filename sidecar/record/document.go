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
	// maxDocument bounds an answer that is kept whole, in bytes. The largest that an API
	// server of Kubernetes 1.36 has of its own is OpenAPI v2 in JSON, 2.2 MB; the largest
	// part of OpenAPI v3 has 1.6 MB. With hundreds of custom resources v2 grows beyond the
	// bound, which is there because all of it is in memory until it has been written.
	maxDocument = 4 << 20
	// maxReviewSize bounds the answer to a question, in bytes: the rules of a subject may be long.
	maxReviewSize = 256 << 10
	// maxReviews is how many answers to questions are kept.
	maxReviews = 512
)

// response is the answer to the request, still without a body.
func (s *Source) response(mediaType string) store.Response {
	return store.Response{Principal: s.Principal, Path: s.Path, Accept: s.Info.RawAccept, Status: http.StatusOK, MediaType: mediaType}
}

// teeDocument records an answer whole, for the identical request.
func (r *Recorder) teeDocument(source Source, _ wire.Format, resp *http.Response) io.ReadCloser {
	answer := source.response(resp.Header.Get("Content-Type"))
	answer.ETag, answer.Headers = resp.Header.Get("ETag"), describingHeaders(resp.Header)
	return newTee(resp, r.bodyBuffer(maxDocument, func(raw []byte) { r.recordDocument(&source, answer, raw) }))
}

// describingHeaders gives the headers that belong to a body besides its type and etag, as JSON.
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

// recordDocument records a whole answer.
func (r *Recorder) recordDocument(source *Source, answer store.Response, raw []byte) {
	if len(raw) > maxDocument || (source.Info.IsResource && !isComplete(source, answer.MediaType, raw)) {
		return
	}
	answer.Body = raw
	r.enqueue(putResponse{response: answer})
	// In whatever form an object comes, or its status or scale, it is there.
	if source.Info.Verb == request.Get && source.Info.Name != "" && source.wantsLatest() {
		r.enqueue(dropTombstone(source.singleScope(request.Form{Format: wire.JSON}), source.Info.Namespace, source.Info.Name, source.Started))
	}
	// What is at a hash never changes (KEP-2896): with another hash the server has
	// another document there, and nobody will ask for this one any more.
	path, query, _ := strings.Cut(source.Path, "?")
	if strings.HasPrefix(path, "/openapi/v3/") && strings.HasPrefix(query, "hash=") {
		r.enqueue(dropOtherQueries(source))
	}
}

// isComplete tells that an answer is all of its list, or all of an object. When nobody can
// say, it is not.
func isComplete(source *Source, mediaType string, raw []byte) bool {
	if source.Info.Continue != "" {
		return false
	}
	if wire.FormatOf(mediaType) != wire.JSON {
		// In CBOR and YAML alike the name of the field is in plain letters.
		return source.Info.Limit == 0 || !bytes.Contains(raw, []byte("continue"))
	}
	l := wire.JSON.NewList(func([]byte) error { return nil })
	if _, err := l.Write(raw); err != nil {
		return false
	}
	head, err := l.ListMeta()
	return err == nil && head.Continue == ""
}

// notModified records a 304 that the client has asked for itself.
func (r *Recorder) notModified(source Source, _ wire.Format, resp *http.Response) io.ReadCloser {
	r.Renewed(source, resp.Header.Get("ETag"))
	return resp.Body
}

// Renewed records that the server says of the document with this etag, as the answer
// to the identical request, that it has not changed.
func (r *Recorder) Renewed(source Source, etag string) {
	if etag != "" {
		r.enqueue(renewResponse(&source, etag))
	}
}

// Review is a question and how its answer is kept.
type Review struct {
	Question string // names it, without telling what it is
	// Seal makes an answer unreadable for everybody who has not asked.
	Seal func([]byte) []byte
	// Lifetime is how long an answer is worth something.
	Lifetime time.Duration
}

// teeReview records the answer to a review. A 401 says nothing: nobody knows who has asked.
// Another status than 201 puts what the server has said before to such reviews in doubt.
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
	return newTee(resp, r.bodyBuffer(maxReviewSize, func(raw []byte) {
		answer.Body = source.Review.Seal(raw)
		r.enqueue(putResponse{response: answer})
		r.enqueue(dropReviews(r.clock.Now().Add(-source.Review.Lifetime)))
	}))
}

// invalidatePath forgets the whole answers to the request, in every form.
func (r *Recorder) invalidatePath(source *Source) {
	path, _, _ := strings.Cut(source.Path, "?")
	r.enqueue(dropResponses(source.Principal, path))
}
