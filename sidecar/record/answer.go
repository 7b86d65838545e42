package record

import (
	"io"
	"net/http"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
)

// listener has an answer recorded while it passes, and gives the body that the client reads.
// The format is nil where the answer cannot be cut into objects.
type listener func(*Recorder, Source, wire.Format, *http.Response) io.ReadCloser

// withoutBody makes a listener of what needs no body.
func withoutBody(record func(*Recorder, Source)) listener {
	return func(r *Recorder, source Source, _ wire.Format, resp *http.Response) io.ReadCloser {
		record(r, source)
		return resp.Body
	}
}

// listeners says how each answer is recorded, by the class of its request and by its status.
// An answer that the table does not have says nothing that is kept. Watches are recorded by
// their events, see Watch.
var listeners = map[request.Class]map[int]listener{
	request.ClassDiscovery: {
		http.StatusOK:          (*Recorder).teeDocument,
		http.StatusNotModified: (*Recorder).notModified,
		http.StatusNotFound:    withoutBody((*Recorder).invalidate),
		http.StatusGone:        withoutBody((*Recorder).invalidate),
		http.StatusForbidden:   withoutBody((*Recorder).forbidden),
	},
	request.ClassVerbatim: {
		http.StatusOK:          (*Recorder).teeDocument,
		http.StatusNotModified: (*Recorder).notModified,
		http.StatusNotFound:    withoutBody((*Recorder).invalidate),
		http.StatusGone:        withoutBody((*Recorder).invalidate),
		http.StatusForbidden:   withoutBody((*Recorder).forbidden),
	},
	request.ClassGet: {
		http.StatusOK:          (*Recorder).teeObject,
		http.StatusNotModified: (*Recorder).notModified,
		http.StatusNotFound:    (*Recorder).teeNotFound,
		http.StatusGone:        withoutBody((*Recorder).invalidate),
		http.StatusForbidden:   withoutBody((*Recorder).forbidden),
	},
	request.ClassList: {
		http.StatusOK:          (*Recorder).teeList,
		http.StatusNotModified: (*Recorder).notModified,
		http.StatusForbidden:   withoutBody((*Recorder).forbidden),
	},
	request.ClassWrite: {
		http.StatusOK:       (*Recorder).teeWrite,
		http.StatusCreated:  (*Recorder).teeWrite,
		http.StatusAccepted: (*Recorder).teeWrite, // a DELETE that goes on
		http.StatusNotFound: (*Recorder).teeNotFound,
	},
	request.ClassScale: {
		http.StatusOK:      withoutBody((*Recorder).scaled),
		http.StatusCreated: withoutBody((*Recorder).scaled),
	},
	request.ClassDeleteMany: {
		http.StatusOK: withoutBody((*Recorder).deletedMany),
	},
}

// Record has the answer to a request recorded while its body is read. source.Principal is who
// has asked; the answer to an unknown principal is not recorded.
func (r *Recorder) Record(source Source, resp *http.Response) {
	if source.Principal == "" || source.Info.Unrecorded || resp.Header.Get("Content-Encoding") != "" {
		return
	}
	record := listeners[source.Info.Class][resp.StatusCode]
	if source.Info.Class == request.ClassReview {
		record = (*Recorder).teeReview
	}
	if record != nil {
		resp.Body = record(r, source, wire.FormatOf(resp.Header.Get("Content-Type")), resp)
	}
}
