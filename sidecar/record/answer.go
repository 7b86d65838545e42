package record

import (
	"io"
	"net/http"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
)

// listener records a response while its body is read, and returns the body that the client reads.
// The format is nil if the response cannot be split into objects.
type listener func(*Recorder, Source, wire.Format, *http.Response) io.ReadCloser

// withoutBody makes a listener of a function that does not need the body.
func withoutBody(record func(*Recorder, Source)) listener {
	return func(r *Recorder, source Source, _ wire.Format, resp *http.Response) io.ReadCloser {
		record(r, source)
		return resp.Body
	}
}

// listeners says how each response is recorded, by the class of its request and by its status. A
// response that is not in the table changes nothing in the cache, unless it says that a write was
// successful. Watch records watches.
var listeners = map[request.Class]map[int]listener{
	request.ClassDiscovery: documents,
	request.ClassVerbatim:  documents,
	request.ClassGet: { // and http.StatusOK, see teeObject
		http.StatusNotModified: (*Recorder).notModified,
		http.StatusNotFound:    (*Recorder).teeStatus,
		http.StatusGone:        withoutBody((*Recorder).invalidate),
		http.StatusForbidden:   withoutBody((*Recorder).forbidden),
	},
	request.ClassList: {
		http.StatusOK:          (*Recorder).teeList,
		http.StatusNotModified: (*Recorder).notModified,
		http.StatusNotFound:    (*Recorder).teeAbsence,
		http.StatusForbidden:   withoutBody((*Recorder).forbidden),
	},
	request.ClassWatch: {
		http.StatusNotFound:  (*Recorder).teeAbsence,
		http.StatusForbidden: withoutBody((*Recorder).forbidden),
	},
	request.ClassWrite: {
		http.StatusOK:       (*Recorder).teeWrite,
		http.StatusCreated:  (*Recorder).teeWrite,
		http.StatusAccepted: (*Recorder).teeWrite, // a DELETE that finalizers or a grace period hold up
		http.StatusNotFound: (*Recorder).teeStatus,
		http.StatusConflict: (*Recorder).teeStatus,
	},
	request.ClassIndirect: {
		http.StatusOK:       (*Recorder).teeIndirect,
		http.StatusCreated:  (*Recorder).teeIndirect,
		http.StatusAccepted: (*Recorder).teeIndirect,
		http.StatusNotFound: (*Recorder).teeStatus,
	},
}

// Record records the response to a request while its body is read. source.Principal is the caller;
// without one the response is not recorded. The source must not be changed afterwards.
func (r *Recorder) Record(source *Source, resp *http.Response) {
	if source.Principal == "" || !source.Info.Tells(resp.StatusCode) || resp.Header.Get("Content-Encoding") != "" {
		return
	}
	source.told = r.db.Next()
	record := listeners[source.Info.Class][resp.StatusCode]
	switch success := resp.StatusCode/100 == 2; source.Info.Class {
	case request.ClassReview:
		record = (*Recorder).teeReview
	case request.ClassDeleteMany:
		if success {
			record = withoutBody((*Recorder).deletedMany)
		}
	case request.ClassWrite, request.ClassIndirect:
		if success && (record == nil || source.MayBeTried) {
			record = withoutBody((*Recorder).changed)
		}
	}
	switch format := wire.FormatOf(resp.Header.Get("Content-Type")); {
	case source.Info.Class == request.ClassGet && resp.StatusCode == http.StatusOK:
		resp.Body = r.teeObject(source, format, resp)
	case record != nil:
		resp.Body = record(r, *source, format, resp)
	}
}

// documents is the part of the table for responses that are recorded verbatim.
var documents = map[int]listener{
	http.StatusOK:          (*Recorder).teeDocument,
	http.StatusNotModified: (*Recorder).notModified,
	http.StatusNotFound:    (*Recorder).teeAbsence,
	http.StatusGone:        withoutBody((*Recorder).invalidate),
	http.StatusForbidden:   withoutBody((*Recorder).forbidden),
}
