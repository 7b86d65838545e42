package record

import (
	"bytes"
	"time"

	"rockpool.dev/store"
)

// operation is one change of the store.
type operation interface {
	// size is what the operation keeps in memory.
	size() int
	// apply makes the change. An error is the store's and ends the group; what
	// else goes wrong concerns the operation alone.
	apply(*group) error
	// lost is called when the operation was not recorded.
	lost()
}

type see struct {
	scope            store.Scope
	kind, apiVersion string
	object           store.Object
	source           *Source
}

func (s see) size() int { return len(s.object.Payload) + len(s.object.Labels) + overhead }
func (s see) lost()     {}

func (s see) apply(g *group) error {
	// From a cache of the server that lags it would be an old story.
	if s.source.latest() {
		if err := g.tx.DropTombstone(s.scope, s.object.Namespace, s.object.Name, s.source.Started); err != nil {
			return err
		}
	}
	return g.tx.PutSingle(s.scope, s.kind, s.apiVersion, s.object)
}

func (s see) key() seeKey { return seeKey{s.scope, s.object.Namespace, s.object.Name} }

// repeats tells that an operation says no more than one that waits in the queue with
// nothing but such operations behind it: programs poll.
func (s see) repeats(waiting see) bool {
	a, b := s.object, waiting.object
	return a.UID == b.UID && a.ResourceVersion == b.ResourceVersion && a.Encoding == b.Encoding && bytes.Equal(a.Payload, b.Payload)
}

// seeKey is the object that an operation see is about.
type seeKey struct {
	scope           store.Scope
	namespace, name string
}

type unsee struct {
	scope           store.Scope
	namespace, name string
}

func (unsee) size() int              { return overhead }
func (unsee) lost()                  {}
func (u unsee) apply(g *group) error { return g.tx.DropSingle(u.scope, u.namespace, u.name) }

// forgetSeen forgets all objects of a scope's namespace that were read alone; the whole
// answers stand below path.
type forgetSeen struct {
	scope store.Scope
	path  string
}

func (forgetSeen) size() int { return overhead }
func (forgetSeen) lost()     {}

func (f forgetSeen) apply(g *group) error {
	if err := g.tx.RemoveResponsesBelow(f.scope.Principal, f.path); err != nil {
		return err
	}
	return g.tx.DropSingles(f.scope)
}

type bury struct{ store.Deletion }

func (bury) size() int              { return overhead }
func (bury) lost()                  {}
func (b bury) apply(g *group) error { return g.tx.PutTombstone(b.Deletion) }

type unbury struct {
	scope           store.Scope
	namespace, name string
	before          time.Time
}

func (unbury) size() int { return overhead }
func (unbury) lost()     {}

func (u unbury) apply(g *group) error {
	return g.tx.DropTombstone(u.scope, u.namespace, u.name, u.before)
}

type forbid struct{ scope store.Scope }

func (forbid) size() int { return overhead }
func (forbid) lost()     {}

func (f forbid) apply(g *group) error {
	// The heads of what is deleted are not known by their scopes.
	if err := g.settle(); err != nil {
		return err
	}
	return g.tx.Forbid(f.scope)
}

type document struct{ store.Response }

func (d document) size() int            { return len(d.Body) + overhead }
func (document) lost()                  {}
func (d document) apply(g *group) error { return g.tx.PutResponse(d.Response) }

type renew struct {
	source *Source
	etag   string
}

func (renew) size() int { return overhead }
func (renew) lost()     {}

func (n renew) apply(g *group) error {
	return g.tx.RenewResponse(n.source.Principal, n.source.Path, n.source.Info.RawAccept, n.etag)
}

type supersede struct{ principal, path, keep string }

func (supersede) size() int              { return overhead }
func (supersede) lost()                  {}
func (s supersede) apply(g *group) error { return g.tx.ReplaceResponses(s.principal, s.path, s.keep) }

// undocument forgets the answers for a path, with whatever query.
type undocument struct{ principal, path string }

func (undocument) size() int              { return overhead }
func (undocument) lost()                  {}
func (u undocument) apply(g *group) error { return g.tx.RemoveResponse(u.principal, u.path) }

type forgetReviews struct{ before time.Time }

func (forgetReviews) size() int              { return overhead }
func (forgetReviews) lost()                  {}
func (f forgetReviews) apply(g *group) error { return g.tx.ForgetReviews(f.before, keepReviews) }

type use int64

func (use) size() int { return overhead }
func (use) lost()     {}

func (u use) apply(g *group) error {
	g.used[int64(u)] = struct{}{}
	return nil
}

type link struct{ state, reason string }

func (link) size() int              { return overhead }
func (link) lost()                  {}
func (l link) apply(g *group) error { return g.tx.PutLink(l.state, l.reason) }

// flush is the operation that Flush waits for.
type flush struct{ done chan struct{} }

func (flush) size() int          { return 0 }
func (flush) apply(*group) error { return nil }
func (flush) lost()              {}
