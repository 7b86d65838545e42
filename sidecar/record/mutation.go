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

// teeWrite records the body of the response to a write while it is read: the new object, or its
// deletion. Offline, the pod then reads its own last write, even if its watch has not delivered it.
func (r *Recorder) teeWrite(source Source, format wire.Format, resp *http.Response) io.ReadCloser {
	if format == nil { // CBOR, YAML: it cannot be parsed
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

// scaled records that a write has changed an object's scale. The recorded scale is then outdated.
func (r *Recorder) scaled(source Source) { r.invalidatePath(&source) }

// deletedMany records that one request has deleted objects. Its response lists them as they were
// before. It does not say which are gone: a finalizer may hold an object, and a pod takes time to
// stop. The watch tells, or the next list. Until then lists stay unchanged, and single objects are
// dropped in every form.
func (r *Recorder) deletedMany(source Source) { r.enqueue(dropSingles(&source)) }

// invalidateResponses drops the verbatim responses that the write of an object has made outdated.
func (r *Recorder) invalidateResponses(source *Source) {
	if source.Info.Verb == request.Create {
		return // it had no path before
	}
	path := strings.TrimSuffix(source.barePath(), "/"+source.Info.Subresource)
	for _, sub := range []string{"", "/scale", "/status"} {
		r.enqueue(dropResponses(source.Principal, path+sub))
	}
}

// teeNotFound records the body of a 404 while it is read. If the API server says it about the very
// object of the request, at the time of the request, the object is absent. Any other 404, for
// example for a resource that is not served (yet), only invalidates what is recorded.
func (r *Recorder) teeNotFound(source Source, format wire.Format, resp *http.Response) io.ReadCloser {
	if source.Info.Name == "" { // of a POST: about its namespace or its resource
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

// invalidate drops what is recorded of one object from GETs.
func (r *Recorder) invalidate(source Source) {
	r.invalidatePath(&source)
	r.enqueue(dropSingle(&source, source.Info.Namespace, source.Info.Name))
}

// forbidden records that the API server does not allow the request any more. The cache then answers
// from nothing that was allowed before, not even with a 404.
func (r *Recorder) forbidden(source Source) {
	switch source.Info.Verb {
	case request.List, request.Watch:
		r.enqueue(forbid(&source))
	case request.Get:
		r.invalidateObject(&source, source.Info.Namespace, source.Info.Name)
	}
	r.invalidatePath(&source)
}

// invalidateObject drops both the single object and the tombstone.
func (r *Recorder) invalidateObject(source *Source, namespace, name string) {
	r.enqueue(dropSingle(source, namespace, name))
	r.enqueue(dropTombstone(source, namespace, name))
}

// deletion parses the response to a successful write and reports whether it deleted the object. The
// response to a DELETE is either a Status with the uid of the deleted object, or the object: in its
// last state, or in its current one while finalizers or its grace period hold it
// (https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/). Another write
// deletes an object when it removes its last finalizer.
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
	// In protobuf every object has its metadata in the same field as this type.
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

// protobufMagic precedes the envelope. ParseMeta has already checked it.
const protobufMagic = "k8s\x00"
