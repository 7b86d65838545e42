package outbox

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"rockpool.dev/sidecar/api/convert"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/write"
	"rockpool.dev/store"
)

const (
	// maxEvent bounds a queued Event, with its patch, in bytes. Those of the API's own
	// recorders have about one KiB.
	maxEvent = 64 << 10
	// patience is how long the disk may let a client wait.
	patience = 2 * time.Second
	// maxBase is how long a generateName may be that is not cut, as at the API server.
	maxBase = 58
)

var errTooLarge = fmt.Errorf("%w: queue an Event of more than %d KiB", write.ErrNeedsServer, maxEvent>>10)

func kindOf(info *request.Info) convert.Kind {
	return convert.Kind{APIVersion: schema.GroupVersion{Group: info.Group, Version: info.Version}.String(), Kind: "Event"}
}

// pathOf is the path of the collection.
func pathOf(info *request.Info) string {
	root := "/apis/" + info.Group
	if info.Group == "" {
		root = "/api"
	}
	return root + "/" + info.Version + "/namespaces/" + info.Namespace + "/events"
}

// nameOf finds the name of the Event that is written, empty if the server makes one.
func nameOf(info *request.Info, contentType string, body []byte) string {
	if info.Name != "" {
		return info.Name
	}
	format := wire.FormatOf(contentType)
	if format == nil {
		return ""
	}
	m, err := format.ParseMeta(body)
	if err != nil {
		return ""
	}
	return m.Name
}

// Answers tells that writes of Events do not wait for the link.
func (*Outbox) Answers(write.Request) bool { return true }

// Repeatable tells that a write has the same effect when it is sent twice. A PATCH sets the same
// fields again, and an Event with a name is not created twice.
func (*Outbox) Repeatable(q write.Request) bool {
	return nameOf(q.Info, q.ContentType, q.Body) != ""
}

// Accept queues a write that the outbox handles, and gives the answer to it: the Event as the API
// server would give it, but without the fields that only the API server can set. When Accept
// returns, the Event is on the disk. ErrNeedsServer says why the Event was not queued.
func (b *Outbox) Accept(ctx context.Context, w write.Request) (*http.Response, error) {
	if w.TooLarge {
		return nil, errTooLarge
	}
	b.accepting.Lock()
	defer b.accepting.Unlock()
	if w.Info.Verb == request.Patch {
		return b.patch(ctx, w)
	}
	return b.create(ctx, w)
}

func (b *Outbox) create(ctx context.Context, w write.Request) (*http.Response, error) {
	kind := kindOf(w.Info)
	o, err := write.Read(kind, w.ContentType, w.Body)
	if err != nil {
		return nil, err
	}
	metadata := o.Metadata()
	switch namespace := o.Text("metadata", "namespace"); namespace {
	case "":
		metadata["namespace"] = w.Info.Namespace
	case w.Info.Namespace:
	default:
		return nil, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	name := o.Text("metadata", "name")
	if base := o.Text("metadata", "generateName"); name == "" && base != "" {
		name = base[:min(len(base), maxBase)] + rand.String(5)
		metadata["name"] = name
	}
	if err := validName(w.Info, name); err != nil {
		return nil, err
	}
	resp, err := write.Answer(w.Info, kind, http.StatusCreated, o, "queued")
	if err != nil {
		return nil, err
	}
	k := key{w.Principal, pathOf(w.Info), name}
	if b.lookup(k) != nil {
		return nil, apierrors.NewAlreadyExists(schema.GroupResource{Group: w.Info.Group, Resource: w.Info.Resource}, name)
	}
	return resp, b.queue(ctx, nil, k, o, nil)
}

func validName(info *request.Info, name string) error {
	var problem *field.Error
	where := field.NewPath("metadata", "name")
	if name == "" {
		problem = field.Required(where, "name or generateName is required")
	} else if wrong := validation.IsDNS1123Subdomain(name); len(wrong) > 0 {
		problem = field.Invalid(where, name, wrong[0])
	}
	if problem == nil {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: info.Group, Kind: "Event"}, name, field.ErrorList{problem})
}

func (b *Outbox) patch(ctx context.Context, w write.Request) (*http.Response, error) {
	p, err := write.ReadPatch(w.ContentType, w.Body)
	if err != nil {
		return nil, err
	}
	if write.Object(p).Text("metadata", "resourceVersion") != "" {
		return nil, fmt.Errorf("%w: compare resourceVersions", write.ErrNeedsServer)
	}
	k := key{w.Principal, pathOf(w.Info), w.Info.Name}
	e := b.lookup(k)
	o, before, err := b.base(ctx, w, e)
	if err != nil {
		return nil, err
	}
	kind := kindOf(w.Info)
	p.Apply(o)
	if o.Text("metadata", "name") != w.Info.Name || o.Text("metadata", "namespace") != w.Info.Namespace || o.Text("kind") != kind.Kind || o.Text("apiVersion") != kind.APIVersion {
		return nil, apierrors.NewBadRequest("name, namespace and kind of an object cannot be changed")
	}
	resp, err := write.Answer(w.Info, kind, http.StatusOK, o, "queued")
	if err != nil {
		return nil, err
	}
	return resp, b.queue(ctx, e, k, o, before.Then(p))
}

// base is what a patch changes: the Event as it is queued, with what has been changed of
// it, or as it was recorded.
func (b *Outbox) base(ctx context.Context, w write.Request, e *entry) (o write.Object, before write.Patch, err error) {
	if e == nil {
		raw, err := w.Recorded(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: change an Event that is neither queued nor recorded", write.ErrNeedsServer)
		}
		o, err = write.Read(kindOf(w.Info), wire.MediaTypeJSON, raw)
		return o, nil, err
	}
	q, err := b.Store.Queued(ctx, e.id)
	if err == nil {
		o, err = write.Decode(q.Object)
	}
	if err == nil {
		before, err = write.DecodePatch(q.Patch)
	}
	if err != nil {
		b.warn("a queued Event cannot be read", e.key, err)
		return nil, nil, fmt.Errorf("%w: the queued Event cannot be read", write.ErrNeedsServer)
	}
	return o, before, nil
}

// queue writes an Event to the disk and notes that; e is its entry, nil if it is new.
func (b *Outbox) queue(ctx context.Context, e *entry, k key, o write.Object, p write.Patch) error {
	q := store.Queued{Principal: k.principal, Path: k.path, Name: k.name, At: b.Clock.Now(), Object: o.JSON()}
	if p != nil {
		q.Patch = p.JSON()
	}
	if len(q.Object)+len(q.Patch) > maxEvent {
		return fmt.Errorf("%w: keep an Event of more than %d KiB", write.ErrNeedsServer, maxEvent>>10)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	id, err := b.Store.Enqueue(ctx, q)
	if err != nil {
		b.warn("an Event cannot be queued", k, err)
		return fmt.Errorf("%w: the Event could not be written to the disk%s", write.ErrNeedsServer, because(err))
	}
	if e != nil {
		b.changed(e)
		eventsTotal.WithLabelValues("merged").Inc()
		return nil
	}
	b.add(&entry{key: k, id: id, at: q.At})
	eventsTotal.WithLabelValues("queued").Inc()
	b.bound(ctx)
	return nil
}

func because(err error) string {
	switch {
	case errors.Is(err, store.ErrFull):
		return ", which is full"
	case errors.Is(err, store.ErrReadOnly):
		return ", which is read-only"
	case errors.Is(err, context.DeadlineExceeded):
		return " in time"
	}
	return ""
}
