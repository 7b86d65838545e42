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
	// Asked is store.DB.Next at that time. It orders what is known; Started only counts for the
	// client's own deadlines.
	Asked int64
	// Background is set for requests of the sidecar's own, whose answers no client is told.
	Background bool
	// MayBeTried is set for a DELETE whose options cannot be read: perhaps it was only tried.
	MayBeTried bool
	// Review says how the response to a review is recorded. If nil, it is not.
	Review *Review

	told int64 // store.DB.Next when the answer came
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

// evidence is what the answer says about its object or scope.
func (s *Source) evidence(says store.Says, version string) store.Evidence {
	e := store.Evidence{Says: says, Version: version, Asked: s.Asked, Told: s.told, Read: store.Latest}
	if s.Info.ResourceVersion != "" { // any state that the API server has at hand will do
		e.Read = store.Lagging
	}
	return e
}

// latest is evidence that counts from now on, whatever version was asked for.
func (s *Source) latest(says store.Says) store.Evidence {
	e := s.evidence(says, "")
	e.Read = store.Latest
	return e
}

// resource is what the evidence is about.
func (s *Source) resource() store.Resource {
	return store.Resource{Principal: s.Principal, Group: s.Info.Group, Resource: s.Info.Resource}
}

// key names the object of the request; without a name, all objects of its namespace.
func (s *Source) key() store.Key { return store.Key{Namespace: s.Info.Namespace, Name: s.Info.Name} }
