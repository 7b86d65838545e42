package replay

import (
	"context"
	"net/http"
	"slices"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// State is a recorded collection as the initial state of a watch.
type State struct {
	// ResourceVersion is where the watch continues.
	ResourceVersion string
	// Form is the form of the objects.
	Form request.Form
	// Header is the header of the response.
	Header http.Header

	pages    pages
	bookmark bool
}

// State finds the initial state of a watch: a complete collection that covers it. For a
// sendInitialEvents request it ends with the bookmark that marks its end (KEP-3157).
func (r *Replayer) State(ctx context.Context, q Request) (*State, error) {
	s, err := unchanged(func() (selection, error) { return r.cover(ctx, q) })
	if err != nil {
		return nil, err
	}
	return r.stateOf(s, r.pages(ctx, s), q.Info.SendInitialEvents), nil
}

// stateOf is a selection, which pages read, as the initial state of a watch, with a bookmark at its
// end or without.
func (r *Replayer) stateOf(s selection, from pages, bookmark bool) *State {
	header := http.Header{"Content-Type": {s.to.Format.WatchMediaType()}}
	return &State{
		ResourceVersion: s.collection.ResourceVersion,
		Form:            s.to,
		Header:          r.response(http.StatusOK, header, s.collection.SyncedAt, nil).Header,
		pages:           from,
		bookmark:        bookmark,
	}
}

// Form finds the form of a watch that continues from a list. It is the form of the recorded list,
// if the client accepts that, so that the events are recorded with the list; with several lists,
// the form of the newest. Otherwise it is the form in which the list would be answered.
func (r *Replayer) Form(ctx context.Context, q Request) (form request.Form, ok bool) {
	all, err := r.db.Collections(ctx, q.Principal, q.Info.Group, q.Info.Version, q.Info.Resource)
	if err != nil {
		return form, false // the caller has a default
	}
	var best store.Collection
	forms := q.Info.Forms()
	for _, c := range all {
		if c.State == store.Complete && exact(c, q.Info) && slices.Contains(forms, formOf(c)) &&
			(!ok || c.SyncedAt.After(best.SyncedAt)) {
			best, form, ok = c, formOf(c), true
		}
	}
	if ok {
		return form, true
	}
	s, ok := choose(all, q.Info)
	return s.to, ok
}

// AppendEvents appends the frames of the next page to dst and reports whether it was the last page.
func (s *State) AppendEvents(dst []byte) (out []byte, last bool, err error) {
	p, format := &s.pages, s.Form.Format
	var object []byte
	err = p.next(func(o store.Object) error {
		object = p.typed(object[:0], o)
		dst = format.AppendEvent(dst, wire.Added, object)
		return nil
	})
	if err != nil || !p.done {
		return dst, false, err
	}
	s.Close()
	if s.bookmark {
		bookmark := format.Bookmark(p.kind.Kind, p.kind.APIVersion, p.collection.ResourceVersion, true)
		dst = format.AppendEvent(dst, wire.Bookmark, bookmark)
	}
	return dst, true, nil
}

// Close frees what the State holds. It may be called twice.
func (s *State) Close() { s.pages.close() }
