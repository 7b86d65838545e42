package replay

import (
	"context"
	"fmt"
	"slices"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/store"
)

// StateAt is the state of a collection at a resourceVersion, for as long as nothing newer
// is recorded of it.
type StateAt struct {
	pages pages
	typed []byte
}

// StateAt finds what is recorded of a state that q asks for, in a form. It gives
// ErrNotRecorded unless there is a complete collection that was so, and that has
// everything asked for.
func (r *Replayer) StateAt(ctx context.Context, q Request, form request.Form, was func(store.Collection) bool) (*StateAt, error) {
	all, err := r.db.Collections(ctx, q.Principal, q.Info.Group, q.Info.Version, q.Info.Resource)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(slices.Clone(all), func(c store.Collection) bool { return !was(c) }) // all is not ours to change
	info := q.Info
	info.Accept = request.ParseAccept(form.AcceptList())
	s, ok := choose(all, info)
	if !ok {
		return nil, fmt.Errorf("%w: no complete list of %s as it was then covers this request", ErrNotRecorded, info.Resource)
	}
	r.used(s.collection.ID)
	return &StateAt{pages: pages{ctx: ctx, db: r.db, selection: s}}, nil
}

// Each calls f with each object. It gives store.ErrChanged when something newer has been
// recorded. The payload is only valid during the call.
func (p *StateAt) Each(f func(store.Object) error) error {
	ahead := p.pages
	for !ahead.done {
		if err := ahead.next(f); err != nil {
			return err
		}
	}
	return nil
}

// Typed gives an object that Each gave with its kind and apiVersion. The bytes are only
// valid until the next call.
func (p *StateAt) Typed(o store.Object) []byte {
	p.typed = p.pages.typed(p.typed[:0], o)
	return p.typed
}

// Kind is the kind and the apiVersion of the objects.
func (p *StateAt) Kind() (kind, apiVersion string) {
	return p.pages.kind.Kind, p.pages.kind.APIVersion
}
