package record

import (
	"strings"
	"time"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/store"
)

// Source is the request whose response is recorded.
type Source struct {
	Principal string
	Info      request.Info
	// Path is the URL's path and query, for verbatim responses.
	Path string
	// Started is when the request was sent upstream.
	Started time.Time
	// Replayed is set if a watch began with a state from the cache. That state may come from a
	// wider collection than the one of the watch's events, or from one in another form.
	Replayed bool
	// Review says how the response to a review is recorded. If nil, it is not.
	Review *Review
}

// scope is the scope of the collection that the response belongs to.
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

// barePath is the path without the query.
func (s *Source) barePath() string {
	path, _, _ := strings.Cut(s.Path, "?")
	return path
}

// singleScope is the scope of the resource's single objects, which were read by GET alone.
func (s *Source) singleScope(f request.Form) store.Scope {
	scope := s.scope(f)
	scope.Namespace, scope.LabelSelector, scope.FieldSelector = "", "", ""
	return scope
}

// wantsLatest reports whether the request asked for the state at its own time, not for any state
// that the API server had at hand.
func (s *Source) wantsLatest() bool { return s.Info.ResourceVersion == "" }

// needsRelist reports whether a watch's client begins with a state that is not recorded as a
// collection of its own. Such a collection must then be listed. Otherwise everything that the
// client reads from there on would be lost, and offline it would see an older state again.
func (s *Source) needsRelist() bool {
	rv := s.Info.ResourceVersion
	return s.Replayed || (!s.Info.SendInitialEvents && (rv == "" || rv == "0"))
}
