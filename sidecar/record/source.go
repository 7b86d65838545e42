package record

import (
	"time"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/store"
)

// Source is the request whose answer is recorded.
type Source struct {
	Principal string
	Info      request.Info
	// Path is the URL's path and query, for answers that are kept whole.
	Path string
	// Started is when the request was sent upstream.
	Started time.Time
	// Replayed tells of a watch that it began with what the cache had, which need
	// not be the collection that its events belong to: it may be a wider one, or in
	// another form.
	Replayed bool
	// Review tells how the answer to a review is kept. Nil: it is not.
	Review *Review
}

// scope is the collection that the answer belongs to.
func (s *Source) scope(f request.Form) store.Scope {
	return store.Scope{
		Principal: s.Principal,
		Group:     s.Info.Group, Version: s.Info.Version, Resource: s.Info.Resource,
		Representation: string(f.Representation),
		Namespace:      s.Info.Namespace,
		LabelSelector:  s.Info.LabelSelector, FieldSelector: s.Info.FieldSelector,
		MediaType: f.Format.MediaType(),
	}
}

// singleScope is the collection of objects of the resource that were read alone.
func (s *Source) singleScope(f request.Form) store.Scope {
	scope := s.scope(f)
	scope.Namespace, scope.LabelSelector, scope.FieldSelector = "", "", ""
	return scope
}

// wantsLatest tells that the request asked for the state at its own time, not for
// whatever the server had at hand.
func (s *Source) wantsLatest() bool { return s.Info.ResourceVersion == "" }

// needsRelist tells of a watch that its client begins with a state that is not recorded
// as a collection of its own. If there is none it has to be listed: else what the
// client reads from here on is lost, and offline it would go back.
func (s *Source) needsRelist() bool {
	rv := s.Info.ResourceVersion
	return s.Replayed || (!s.Info.SendInitialEvents && (rv == "" || rv == "0"))
}
