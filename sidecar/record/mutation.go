package record

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
)

// maxStatus bounds a Status, in bytes.
const maxStatus = 64 << 10

// teeWrite records the body of the answer to a write while it is read: the object
// as it is now, or that it is gone. So the pod's own last write is what it reads
// offline, also when its watch had not brought it back yet.
func (r *Recorder) teeWrite(source Source, format wire.Format, resp *http.Response) io.ReadCloser {
	if format == nil { // CBOR, YAML: it cannot be read
		if source.Info.Name != "" {
			r.invalidate(source)
		}
		return resp.Body
	}
	return newTee(resp, r.bodyBuffer(wire.MaxValue, func(raw []byte) {
		m, err := format.ParseMeta(raw)
		if err != nil {
			return
		}
		if uid, ok := deletion(source.Info.Verb, format, raw, m); ok {
			r.invalidateResponses(&source)
			r.enqueue(putTombstone(&source, uid, r.clock.Now()))
			return
		}
		if r.recordSingle(source, format, raw, m) {
			r.invalidateResponses(&source)
		}
	}))
}

// scaled records that a write has changed the scale of an object: what was recorded of
// that is not true any more.
func (r *Recorder) scaled(source Source) { r.invalidatePath(&source) }

// deletedMany records that objects have been deleted by one request. Its answer lists
// them as they were before, which does not say which of them are gone: a finalizer may
// hold them, a pod takes its time. The watch tells, or the next list; until then
// lists stay what they are, and what was read alone, in whatever form, is not known any
// more.
func (r *Recorder) deletedMany(source Source) {
	path, _, _ := strings.Cut(source.Path, "?")
	r.enqueue(dropSingles(source.scope(request.Form{Format: wire.JSON}), strings.TrimSuffix(path, "/")))
}

// invalidateResponses forgets the whole answers that a write of an object has made untrue.
func (r *Recorder) invalidateResponses(source *Source) {
	if source.Info.Verb == request.Create {
		return // it had no path before
	}
	path, _, _ := strings.Cut(source.Path, "?")
	path = strings.TrimSuffix(path, "/"+source.Info.Subresource)
	for _, sub := range []string{"", "/scale", "/status"} {
		r.enqueue(dropResponses(source.Principal, path+sub))
	}
}

// teeNotFound records the body of a 404 while it is read. When it is the server's word
// about the very object that was asked for, at the time of asking, then there is none.
// Other answers with this code, such as of a kind of resource that is not there (yet),
// only say that nobody can know.
func (r *Recorder) teeNotFound(source Source, format wire.Format, resp *http.Response) io.ReadCloser {
	if source.Info.Name == "" { // of a POST: its namespace or its kind of resource
		return resp.Body
	}
	if format == nil {
		r.invalidate(source)
		return resp.Body
	}
	return newTee(resp, r.bodyBuffer(maxStatus, func(raw []byte) {
		info := &source.Info
		var status metav1.Status
		m, err := format.ParseMeta(raw)
		if err == nil && m.Kind == "Status" {
			err = decode(format, raw, &status)
		}
		proof := err == nil && info.Name != "" && info.Subresource == "" && source.wantsLatest() &&
			status.Reason == metav1.StatusReasonNotFound && status.Details != nil &&
			status.Details.Name == info.Name && status.Details.Kind == info.Resource && status.Details.Group == info.Group
		if !proof {
			r.invalidate(source)
			return
		}
		r.invalidateResponses(&source)
		r.enqueue(putTombstone(&source, "", source.Started))
	}))
}

// invalidate records that what was known of one object by reading it is in doubt.
func (r *Recorder) invalidate(source Source) {
	r.invalidatePath(&source)
	r.enqueue(dropSingle(source.singleScope(request.Form{Format: wire.JSON}), source.Info.Namespace, source.Info.Name))
}

// forbidden records that the server does not allow the request any more: what it
// allowed before is not answered from the cache, not even that there was nothing.
func (r *Recorder) forbidden(source Source) {
	switch source.Info.Verb {
	case request.List, request.Watch:
		r.enqueue(forbid(source.scope(request.Form{Format: wire.JSON, Representation: request.Object})))
	case request.Get:
		r.invalidateObject(&source, source.Info.Namespace, source.Info.Name)
	}
	r.invalidatePath(&source)
}

// invalidateObject records that neither what was read alone of an object, nor that it was gone, is
// known to be true any more.
func (r *Recorder) invalidateObject(source *Source, namespace, name string) {
	scope := source.singleScope(request.Form{Format: wire.JSON})
	r.enqueue(dropSingle(scope, namespace, name))
	r.enqueue(dropTombstone(scope, namespace, name, source.Started))
}

// deletion reads the answer to a successful write. To a DELETE, either a Status says that
// the object is gone, and which it was, or the answer is the object: as it last was, or
// as it still is, because finalizers or its grace period hold it
// (https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/). Another
// write deletes an object when it takes away the last finalizer that has held it.
func deletion(verb string, format wire.Format, raw []byte, m wire.Meta) (uid string, ok bool) {
	if verb == request.Create || (verb != request.Delete && m.Kind == "Status") {
		return "", false
	}
	if m.Kind == "Status" {
		var status metav1.Status
		if err := decode(format, raw, &status); err == nil && status.Details != nil {
			uid = string(status.Details.UID)
		}
		return uid, status.Status == metav1.StatusSuccess
	}
	// In protobuf every object has its metadata where this one has it.
	var o metav1.PartialObjectMetadata
	if err := decode(format, raw, &o); err != nil || o.Name == "" || len(o.Finalizers) > 0 {
		return "", false
	}
	terminating, grace := o.DeletionTimestamp != nil, o.DeletionGracePeriodSeconds
	if verb == request.Delete {
		return string(o.UID), !terminating || (grace != nil && *grace == 0)
	}
	return string(o.UID), terminating && (grace == nil || *grace == 0)
}

func decode(format wire.Format, raw []byte, into interface{ Unmarshal([]byte) error }) error {
	if format == wire.JSON {
		return json.Unmarshal(raw, into)
	}
	var envelope runtime.Unknown
	if err := envelope.Unmarshal(raw[len(protobufMagic):]); err != nil {
		return err
	}
	return into.Unmarshal(envelope.Raw)
}

// protobufMagic stands before the envelope; ParseMeta has seen it.
const protobufMagic = "k8s\x00"
