package replay

import (
	"context"
	"net/http"
	"slices"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// State is a recorded collection as the beginning of a watch.
type State struct {
	// ResourceVersion is where the watch goes on.
	ResourceVersion string
	// Form is that of the objects.
	Form request.Form
	// Header is that of the answer.
	Header http.Header

	pages    pages
	bookmark bool
}

// State finds the state that a watch for q begins with: a complete collection
// that covers it. With a sendInitialEvents request it ends with the bookmark
// that says so (KEP-3157).
func (r *Replayer) State(ctx context.Context, q Request) (*State, error) {
	s, err := r.cover(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := r.response(http.StatusOK, http.Header{"Content-Type": {s.to.Format.WatchMediaType()}}, s.collection.SyncedAt, http.NoBody, -1)
	return &State{
		ResourceVersion: s.collection.ResourceVersion,
		Form:            s.to,
		Header:          resp.Header,
		pages:           pages{ctx: ctx, db: r.db, selection: s},
		bookmark:        q.Info.SendInitialEvents,
	}, nil
}

// Form finds the form in which a client goes on that watches behind a list: that of
// the recorded list, if the client takes it, the newest if there are several, so that
// what comes next is recorded with it; else the form in which the list is answered.
func (r *Replayer) Form(ctx context.Context, q Request) (form request.Form, ok bool) {
	all, err := r.db.Collections(ctx, q.Principal, q.Info.Group, q.Info.Version, q.Info.Resource)
	if err != nil {
		return form, false // a form will be found without
	}
	var best store.Collection
	forms := q.Info.Forms()
	for _, c := range all {
		if c.State == store.Complete && exact(c, q.Info) && slices.Contains(forms, formOf(c)) && (!ok || c.SyncedAt.After(best.SyncedAt)) {
			best, form, ok = c, formOf(c), true
		}
	}
	if ok {
		return form, true
	}
	s, ok := choose(all, q.Info)
	return s.to, ok
}

// AppendEvents adds the frames of the next page to dst and tells whether that
// was the last one.
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
	if s.bookmark {
		dst = format.AppendEvent(dst, wire.Bookmark, format.Bookmark(p.kind.Kind, p.kind.APIVersion, p.collection.ResourceVersion, true))
	}
	return dst, true, nil
}
