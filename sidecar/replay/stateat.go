package replay

import (
	"context"
	"fmt"
	"slices"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/store"
)

// StateAt is a collection's state at a resourceVersion, valid until something newer is recorded.
type StateAt struct {
	pages pages
	typed []byte
}

// StateAt finds the recorded state that q asks for, in a form. equals reports whether a collection
// is in that state. StateAt returns ErrNotRecorded if no such complete collection covers the
// request.
func (r *Replayer) StateAt(ctx context.Context, q Request, form request.Form, equals func(store.Collection) bool) (*StateAt, error) {
	all, err := r.db.Collections(ctx, q.Principal, q.Info.Group, q.Info.Version, q.Info.Resource)
	if err != nil {
		return nil, err
	}
	// The store shares all, so it must not change.
	all = slices.DeleteFunc(slices.Clone(all), func(c store.Collection) bool { return !equals(c) })
	info := q.Info
	info.Accept = request.ParseAccept(form.AcceptList())
	selected, ok := choose(all, info)
	if !ok {
		return nil, fmt.Errorf("%w: no complete list of %s at that version covers this request",
			ErrNotRecorded, info.Resource)
	}
	r.rec.Used(selected.collection.ID)
	return &StateAt{pages: r.pages(ctx, selected)}, nil
}

// Each calls f with each object. It returns store.ErrChanged if something newer was recorded. The
// payload is only valid during the call.
func (s *StateAt) Each(f func(store.Object) error) error {
	pages := s.pages
	for !pages.done {
		if err := pages.next(f); err != nil {
			return err
		}
	}
	return nil
}

// Typed returns an object from Each with its kind and apiVersion, valid until the next call.
func (s *StateAt) Typed(o store.Object) []byte {
	s.typed = s.pages.typed(s.typed[:0], o)
	return s.typed
}

// Kind is the kind and the apiVersion of the objects.
func (s *StateAt) Kind() (kind, apiVersion string) {
	return s.pages.kind.Kind, s.pages.kind.APIVersion
}
