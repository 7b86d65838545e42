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
	"rockpool.dev/store"
)

// Reasons why a lock is not renewed here, as results in the metric.
var (
	errUnheld   = fmt.Errorf("%w: write a leader's lock that was not held through this sidecar when the link went down", write.ErrNeedsServer)
	errExpired  = fmt.Errorf("%w: renew a leader's lock that has expired", write.ErrNeedsServer)
	errTaken    = fmt.Errorf("%w: change the holder of a leader's lock", write.ErrNeedsServer)
	errOther    = fmt.Errorf("%w: create or delete a leader's lock", write.ErrNeedsServer)
	errReleased = fmt.Errorf("%w: release a leader's lock", write.ErrNeedsServer)
	errMore     = fmt.Errorf("%w: change more of an object than the annotations of its leader's lock", write.ErrNeedsServer)
	errTooLarge = fmt.Errorf("%w: write a leader's lock of that size", write.ErrNeedsServer)
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
	case errors.Is(err, errMore):
		return "more"
	}
	return "invalid"
}

// Accept answers a request about a lock while the link is down. A read succeeds for a held lock;
// others are the cache's. A write succeeds if it renews a lock that the principal holds. A write of
// an object without a lock has no answer here.
func (k *Tracker) Accept(ctx context.Context, q write.Request) (*http.Response, error) {
	at, kind := keyOf(q.Principal, q.Info), k.of(q.Info)
	k.catchUp(ctx, at, q.Recorded)
	if q.Info.IsRead() {
		return k.held(at, q.Info), nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !kind.whole && k.known[at] == nil {
		return nil, nil
	}
	var resp *http.Response
	err := errTooLarge
	if !q.TooLarge {
		resp, err = k.renew(at, q.Info, q.ContentType, q.Body)
	}
	writesTotal.WithLabelValues(result(err)).Inc()
	return resp, err
}

// catchUp learns what watches and lists have shown of a held lock since it was last asked for or
// written. A lock that somebody else is known to have is not renewed.
func (k *Tracker) catchUp(ctx context.Context, at key, recorded func(context.Context) ([]byte, error)) {
	k.mu.Lock()
	s := k.known[at]
	held := s != nil && s.held
	k.mu.Unlock()
	if !held || recorded == nil {
		return
	}
	raw, err := recorded(ctx)
	if err != nil && !apierrors.IsNotFound(err) {
		return // it is not known any better
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if s = k.known[at]; s == nil {
		return
	}
	if err != nil {
		k.end(at, "it is gone", http.StatusNotFound)
		return
	}
	o, err := write.Read(s.kind, wire.MediaTypeJSON, raw)
	if err != nil {
		return
	}
	e := s.known
	e.Version = o.Text("metadata", "resourceVersion")
	if order, ok := store.CompareVersions(e.Version, s.known.Version); !ok || order <= 0 {
		return
	}
	k.settle(at, k.learn(at, s.lock, o, e))
}

func (k *Tracker) renew(at key, info *request.Info, contentType string, body []byte) (*http.Response, error) {
	s, now := k.known[at], k.clock.Now()
	switch {
	case info.Verb != request.Update && info.Verb != request.Patch:
		return nil, errOther
	case s == nil, !s.held:
		return nil, errUnheld
	case s.expired(now):
		k.end(at, "it has expired", 0)
		return nil, errExpired
	}
	o, err := s.change(info, contentType, body)
	if err != nil {
		return nil, err
	}
	if err := s.same(o, info); err != nil {
		return nil, err
	}
	before, after := s.read(s.object), s.read(o)
	switch {
	case !s.whole && !onlyElection(s.object, o):
		return nil, errMore
	case after.holder == "":
		// The client will not renew it again; nobody can tell the others.
		k.end(at, "it is released", 0)
		return nil, errReleased
	case after.holder != before.holder:
		return nil, errTaken
	}
	resp, err := write.Answer(info, s.kind, http.StatusOK, o, "renewed locally")
	if err != nil {
		return nil, err
	}
	if !s.local {
		k.log.Warn("a "+s.noun+" is renewed locally: to the API server it expires, and somebody else may take it there",
			zap.String("namespace", at.namespace), zap.String("name", at.name), zap.String("holder", after.holder))
	}
	if after.renewed != before.renewed {
		s.renewed = now
	}
	s.object, s.local = o, true
	return resp, nil
}

// change gives the object as the write wants it.
func (s *state) change(info *request.Info, contentType string, body []byte) (write.Object, error) {
	if info.Verb == request.Update {
		return write.Read(s.kind, contentType, body)
	}
	p, err := write.ReadPatch(contentType, body)
	if err != nil {
		return nil, err
	}
	o, err := write.Read(s.kind, wire.MediaTypeJSON, s.object.JSON()) // a copy
	if err == nil {
		p.Apply(o)
	}
	return o, err
}

// same finds out whether a write is about the very state of the object that is known. What the API
// server adds to the object of an update is added.
func (s *state) same(o write.Object, info *request.Info) error {
	if o.Text("kind") != s.kind.Kind || o.Text("apiVersion") != s.kind.APIVersion {
		return apierrors.NewBadRequest("the kind of an object cannot be changed")
	}
	names := map[string]string{"name": info.Name, "namespace": info.Namespace}
	for member, want := range names {
		if have := o.Text("metadata", member); have != want && (have != "" || member == "name") {
			return apierrors.NewBadRequest(fmt.Sprintf("the %s of the object (%s) does not match the %s on the URL (%s)", member, have, member, want))
		}
		o.Metadata()[member] = want
	}
	resource := schema.GroupResource{Group: s.group, Resource: s.resource}
	have, want := o.Text("metadata", "resourceVersion"), s.object.Text("metadata", "resourceVersion")
	switch uid := o.Text("metadata", "uid"); {
	case have == "" && s.whole: // Leases cannot be updated unconditionally
		return apierrors.NewInvalid(schema.GroupKind{Group: s.group, Kind: s.kind.Kind}, info.Name,
			field.ErrorList{field.Invalid(field.NewPath("metadata", "resourceVersion"), "", "must be specified for an update")})
	case have != want && have != "", uid != "" && uid != s.object.Text("metadata", "uid"):
		return apierrors.NewConflict(resource, info.Name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	}
	if !s.whole {
		for _, member := range serverOwned {
			if value, ok := s.object.Metadata()[member]; ok {
				o.Metadata()[member] = value
			}
		}
	}
	return nil
}

// held answers a GET of a held lock; nil for all others.
func (k *Tracker) held(at key, info *request.Info) *http.Response {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.known[at]
	if info.Verb != request.Get || s == nil || !s.held || s.expired(k.clock.Now()) {
		return nil
	}
	resp, err := write.Answer(info, s.kind, http.StatusOK, s.object, "held")
	if err != nil { // a form that only the cache may have
		return nil
	}
	return resp
}
