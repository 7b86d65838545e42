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
	"rockpool.dev/store"
)

// maxStatus bounds a Status, in bytes.
const maxStatus = 64 << 10

// teeWrite records the body of the response to a write while it is read: the new object, or its
// deletion. Offline, the pod then reads its own last write, even if its watch has not delivered it.
func (r *Recorder) teeWrite(source Source, format wire.Format, resp *http.Response) io.ReadCloser {
	if format == nil { // CBOR, YAML: it cannot be parsed
		r.invalidateResponses(&source)
		r.doubtOf(&source)
		return resp.Body
	}
	return newTee(resp, r.answerBody(wire.MaxValue, &source, func(raw []byte) {
		r.invalidateResponses(&source)
		m, err := format.ParseMeta(raw)
		if err != nil {
			r.doubtOf(&source)
			return
		}
		switch uid, says := outcome(&source.Info, resp.StatusCode, format, raw, m); {
		case says == store.Gone:
			gone := source.evidence(store.Gone, "")
			gone.UIDs = []string{uid}
			r.observe(&source, source.key(), gone)
		case says == store.Unknown, !r.recordSingle(&source, format, raw, m):
			doubt := source.latest(store.Unknown)
			doubt.Floor = m.ResourceVersion // it may be gone since, but it is not older
			r.observe(&source, source.key(), doubt)
		}
	}))
}

// teeIndirect records the response to a write that changes an object without showing it. A scale
// has the new version of its object, and its uid.
func (r *Recorder) teeIndirect(source Source, format wire.Format, resp *http.Response) io.ReadCloser {
	r.invalidateResponses(&source)
	if format == nil {
		r.doubtOf(&source)
		return resp.Body
	}
	return newTee(resp, r.answerBody(maxStatus, &source, func(raw []byte) {
		m, err := format.ParseMeta(raw)
		if err != nil || m.Kind != "Scale" || m.ResourceVersion == "" || m.Name != source.Info.Name {
			r.doubtOf(&source)
			return
		}
		e := source.evidence(store.Exists, m.ResourceVersion)
		if m.UID != "" {
			e.UIDs = []string{m.UID}
		}
		r.observe(&source, source.key(), e)
	}))
}

// changed records that a write was successful whose response does not say what has become of the
// object.
func (r *Recorder) changed(source Source) {
	r.invalidateResponses(&source)
	r.doubtOf(&source)
}

// deletedMany records that one request has deleted objects. Its response lists them as they were
// before. It does not say which are gone: a finalizer may hold an object, and a pod takes time to
// stop. So nothing from before counts, until the next list.
func (r *Recorder) deletedMany(source Source) {
	r.enqueue(dropResponsesBelow(&source))
	r.enqueue(dropResponses(source.Principal, source.barePath()))
	r.doubtOf(&source)
	r.enqueue(relistAll{resource: source.resource()})
}

// doubtOf records that nothing from before counts of the object of the request, or of all objects
// of its scope if it names none.
func (r *Recorder) doubtOf(source *Source) {
	r.observe(source, source.key(), source.latest(store.Unknown))
}

func (r *Recorder) observe(source *Source, key store.Key, e store.Evidence) {
	op := observe{recorder: r, resource: source.resource(), key: key, evidence: e}
	if !r.enqueue(op) {
		op.lost()
	}
}

// invalidateResponses drops the verbatim responses that the write of an object has made outdated.
func (r *Recorder) invalidateResponses(source *Source) {
	path := source.barePath()
	if source.Info.Verb == request.Create && source.Info.Subresource == "" {
		return // it had no path before
	}
	if source.Info.Subresource != "" {
		path = strings.TrimSuffix(path, "/"+source.Info.Subresource)
	}
	for _, sub := range []string{"", "/scale", "/status"} {
		r.enqueue(dropResponses(source.Principal, path+sub))
	}
}

// teeStatus records a Status that says whether an object exists: 404, or 409.
func (r *Recorder) teeStatus(source Source, format wire.Format, resp *http.Response) io.ReadCloser {
	if format == nil {
		r.invalidatePath(&source)
		r.doubtOf(&source)
		return resp.Body
	}
	return newTee(resp, r.answerBody(maxStatus, &source, func(raw []byte) {
		var status metav1.Status
		m, err := format.ParseMeta(raw)
		if err == nil && m.Kind == "Status" {
			err = decode(format, raw, &status)
		}
		details := metav1.StatusDetails{}
		if err == nil && status.Details != nil {
			details = *status.Details
		}
		conflict := resp.StatusCode == http.StatusConflict
		info := &source.Info
		same := details.Group == info.Group && (details.Kind == info.Resource || details.Kind == info.Resource+"/"+info.Subresource)
		switch key := (store.Key{Namespace: info.Namespace, Name: details.Name}); {
		case conflict && same && status.Reason == metav1.StatusReasonAlreadyExists && key.Name != "":
			r.observe(&source, key, source.evidence(store.Exists, ""))
		case conflict: // somebody else has changed the object; it is not said how
		// A custom resource has the same answer for an object that is there, without the subresource.
		case same && status.Reason == metav1.StatusReasonNotFound && info.Name != "" && key.Name == info.Name && (info.Subresource == "" || info.IsBuiltin()):
			r.invalidateResponses(&source)
			r.observe(&source, key, source.evidence(store.Gone, ""))
		case info.Verb == request.Create && info.Subresource == "", details.Kind == "namespaces":
			// The namespace or the resource is missing, which says nothing about one object.
		default: // the resource, or its subresource, is not served (yet)
			r.invalidatePath(&source)
			r.doubtOf(&source)
		}
	}))
}

// forbidden records that the API server does not allow the request any more. The cache then answers
// from nothing that was allowed before, not even with a 404.
func (r *Recorder) forbidden(source Source) {
	r.invalidatePath(&source)
	switch {
	case !source.Info.IsResource:
	case source.Info.Verb == request.Get:
		r.doubtOf(&source)
	default: // RBAC allows a list whatever it selects, except by names
		r.observe(&source, source.key(), source.latest(store.Refused))
	}
}

// relistAll asks for a relist of all collections of a resource.
type relistAll struct {
	base
	resource store.Resource
}

func (o relistAll) apply(g *group) error {
	_, err := g.restored(o.resource)
	return err
}

// outcome parses the response to a successful write and returns what it says about the object. It
// is store.Gone, with the uid if that is known, if the object is deleted. The response to a DELETE
// is either a Status with the uid of the deleted object, or the object: in its last state, or in
// its current one while finalizers or its grace period hold it
// (https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/). Another write
// deletes an object when it removes its last finalizer. It is store.Unknown if that is unknown: a
// Status with 202 Accepted says that the object will be deleted, not that it is.
func outcome(info *request.Info, code int, format wire.Format, raw []byte, m wire.Meta) (uid string, says store.Says) {
	if m.Kind == "Status" {
		var status metav1.Status
		if err := decode(format, raw, &status); err != nil || status.Status != metav1.StatusSuccess || info.Verb != request.Delete || code == http.StatusAccepted {
			return "", store.Unknown
		}
		if status.Details != nil {
			uid = string(status.Details.UID)
		}
		return uid, store.Gone
	}
	// In protobuf every object has its metadata in the same field as this type.
	var o metav1.PartialObjectMetadata
	if err := decode(format, raw, &o); err != nil || o.Name == "" {
		return "", store.Unknown
	}
	gone := len(o.Finalizers) == 0
	terminating, grace := o.DeletionTimestamp != nil, o.DeletionGracePeriodSeconds
	switch info.Verb {
	case request.Create:
		return "", store.Present
	case request.Delete:
		gone = gone && (!terminating || (grace != nil && *grace == 0))
	default:
		gone = gone && terminating && (grace == nil || *grace == 0)
	}
	switch {
	case !gone:
		return "", store.Present
	case info.Group == "" && info.Resource == "namespaces":
		// A namespace has finalizers in its spec as well. A request to finalize it may remove the
		// last of them.
		if info.Verb == request.Delete || info.Subresource == "finalize" {
			return "", store.Unknown
		}
		return "", store.Present
	}
	return string(o.UID), store.Gone
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
