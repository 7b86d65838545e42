package lease

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/write"
)

// Reasons why a Lease is not renewed here, as results in the metric.
var (
	errUnheld   = fmt.Errorf("%w: write a Lease that was not held through this sidecar when the link went down", write.ErrNeedsServer)
	errExpired  = fmt.Errorf("%w: renew a Lease that has expired", write.ErrNeedsServer)
	errTaken    = fmt.Errorf("%w: change the holder of a Lease", write.ErrNeedsServer)
	errOther    = fmt.Errorf("%w: create or delete a Lease", write.ErrNeedsServer)
	errReleased = fmt.Errorf("%w: release a Lease", write.ErrNeedsServer)
	errTooLarge = fmt.Errorf("%w: write a Lease of that size", write.ErrNeedsServer)
)

func result(err error) string {
	switch {
	case err == nil:
		return "renewed"
	case apierrors.IsConflict(err):
		return "conflict"
	case errors.Is(err, errExpired):
		return "expired"
	case errors.Is(err, errTaken):
		return "taken"
	case errors.Is(err, errReleased):
		return "released"
	case errors.Is(err, errUnheld):
		return "unheld"
	case errors.Is(err, errOther):
		return "other"
	}
	return "invalid"
}

// Accept answers a request about a Lease while the link is down. A read succeeds for a held Lease;
// others are the cache's. A write succeeds if it renews a Lease that the principal holds.
func (k *Tracker) Accept(_ context.Context, q write.Request) (*http.Response, error) {
	switch {
	case q.Info.IsRead():
		return k.held(q.Principal, q.Info), nil
	case q.TooLarge:
		return nil, errTooLarge
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	resp, err := k.renew(key{q.Principal, q.Info.Namespace, q.Info.Name}, q.Info, q.ContentType, q.Body)
	writesTotal.WithLabelValues(result(err)).Inc()
	return resp, err
}

func (k *Tracker) renew(at key, info *request.Info, contentType string, body []byte) (*http.Response, error) {
	l, now := k.leases[at], k.clock.Now()
	switch {
	case info.Verb != request.Update && info.Verb != request.Patch:
		return nil, errOther
	case l == nil, !l.held:
		return nil, errUnheld
	case l.expired(now):
		k.end(at, "it has expired", 0)
		return nil, errExpired
	}
	o, err := l.change(info, contentType, body)
	if err != nil {
		return nil, err
	}
	if err := l.same(o, info); err != nil {
		return nil, err
	}
	switch o.Text("spec", "holderIdentity") {
	case l.holder():
	case "":
		// The client will not renew it again; nobody can tell the others.
		k.end(at, "it is released", 0)
		return nil, errReleased
	default:
		return nil, errTaken
	}
	resp, err := write.Answer(info, kind, http.StatusOK, o, "renewed locally")
	if err != nil {
		return nil, err
	}
	if !l.local {
		k.log.Warn("a Lease is renewed locally: to the API server it expires, and somebody else may take it there",
			zap.String("namespace", at.namespace), zap.String("name", at.name), zap.String("holder", l.holder()))
	}
	l.object, l.renewed, l.local = o, now, true
	return resp, nil
}

// change gives the Lease as the write wants it.
func (l *lease) change(info *request.Info, contentType string, body []byte) (write.Object, error) {
	if info.Verb == request.Update {
		return write.Read(kind, contentType, body)
	}
	p, err := write.ReadPatch(contentType, body)
	if err != nil {
		return nil, err
	}
	o, err := write.Read(kind, wire.MediaTypeJSON, l.object.JSON()) // a copy
	if err == nil {
		p.Apply(o)
	}
	return o, err
}

// same finds out whether a write is about the very state of the Lease that is known.
func (l *lease) same(o write.Object, info *request.Info) error {
	if o.Text("kind") != kind.Kind || o.Text("apiVersion") != kind.APIVersion {
		return apierrors.NewBadRequest("the kind of an object cannot be changed")
	}
	names := map[string]string{"name": info.Name, "namespace": info.Namespace}
	for member, want := range names {
		if have := o.Text("metadata", member); have != want && (have != "" || member == "name") {
			return apierrors.NewBadRequest(fmt.Sprintf("the %s of the object (%s) does not match the %s on the URL (%s)", member, have, member, want))
		}
		o.Metadata()[member] = want
	}
	resource := schema.GroupResource{Group: group, Resource: "leases"}
	have, want := o.Text("metadata", "resourceVersion"), l.object.Text("metadata", "resourceVersion")
	switch uid := o.Text("metadata", "uid"); {
	case have == "": // Leases cannot be updated unconditionally
		return apierrors.NewInvalid(schema.GroupKind{Group: group, Kind: kind.Kind}, info.Name,
			field.ErrorList{field.Invalid(field.NewPath("metadata", "resourceVersion"), "", "must be specified for an update")})
	case have != want, uid != "" && uid != l.object.Text("metadata", "uid"):
		return apierrors.NewConflict(resource, info.Name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	}
	return nil
}
