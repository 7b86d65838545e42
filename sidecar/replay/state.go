package replay

import (
	"context"
	"fmt"
	"net/http"

	"rockpool.dev/sidecar/request"
	"rockpool.dev/sidecar/wire"
	"rockpool.dev/store"
)

// State is a recorded collection as the beginning of a watch.
type State struct {
	// ResourceVersion is where the watch goes on.
	ResourceVersion string
	// Representation is the form of the objects.
	Representation request.Representation
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
	resp := r.response(http.StatusOK, http.Header{"Content-Type": {s.collection.MediaType}}, s.collection.SyncedAt, http.NoBody, -1)
	return &State{
		ResourceVersion: s.collection.ResourceVersion,
		Representation:  request.Representation(s.collection.Representation),
		Header:          resp.Header,
		pages:           pages{ctx: ctx, db: r.db, selection: s},
		bookmark:        q.Info.SendInitialEvents,
	}, nil
}

// AppendEvents adds the frames of the next page to dst and tells whether that
// was the last one.
func (s *State) AppendEvents(dst []byte) (out []byte, last bool, err error) {
	c := s.pages.collection
	var object []byte
	err = s.pages.next(func(o store.Object) error {
		payload := o.Payload
		if o.Encoding == store.JSONBare {
			object = wire.AppendTyped(object[:0], c.Kind, c.APIVersion, o.Payload)
			payload = object
		}
		dst = wire.AppendEvent(dst, wire.Added, payload)
		return nil
	})
	if err != nil || !s.pages.done {
		return dst, false, err
	}
	if s.bookmark {
		end := fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":%q,"creationTimestamp":null,"annotations":{%q:"true"}}}`,
			c.Kind, c.APIVersion, c.ResourceVersion, wire.InitialEventsEnd)
		dst = wire.AppendEvent(dst, wire.Bookmark, end)
	}
	return dst, true, nil
}
