package record

import (
	"bytes"
	"strings"
	"time"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// operation is one entry of the queue: a change of the store, or a mark that somebody waits for.
type operation interface {
	// size is how many bytes the operation keeps in memory. Size 0 always finds room.
	size() int
	// apply makes the change. It returns only errors of the store, which fail the group;
	// any other problem concerns the operation alone.
	apply(*group) error
	// lost is called when the operation is not recorded.
	lost()
	// done is called after the operation's group is written or lost.
	done()
	// opens is the snapshot that is incoming once the operation is in the queue, and closes
	// the one that then is not incoming any more. Both are nil for most operations.
	opens() *snapshot
	closes() *snapshot
	// soloSafe reports whether the operation may be written in a transaction of its own
	// when its group fails.
	soloSafe() bool
	// dequeued is called when the operation joins a group. It returns by how many the
	// operations grow that must join the same group.
	dequeued() (deferred int)
}

// base has the answers of an operation that takes no memory for a payload and depends on
// no other operation.
type base struct{}

func (base) size() int         { return overhead }
func (base) lost()             {}
func (base) done()             {}
func (base) opens() *snapshot  { return nil }
func (base) closes() *snapshot { return nil }
func (base) soloSafe() bool    { return true }
func (base) dequeued() int     { return 0 }

// change is an operation without a payload.
type change struct {
	base
	do func(*group) error
}

func (c change) apply(g *group) error { return c.do(g) }

// putTombstone records that the object of the request was absent at a time.
func putTombstone(s *Source, uid string, at time.Time) operation {
	d := store.Deletion{
		Scope: s.singleScope(request.Form{Format: wire.JSON}), Namespace: s.Info.Namespace,
		Name: s.Info.Name, UID: uid, Asked: s.Started, At: at,
	}
	return change{do: func(g *group) error { return g.tx.PutTombstone(d) }}
}

// dropTombstone is for an object that may exist again since a time.
func dropTombstone(s store.Scope, namespace, name string, before time.Time) operation {
	return change{do: func(g *group) error { return g.tx.DropTombstone(s, namespace, name, before) }}
}

// dropSingle drops an object from the single objects.
func dropSingle(s store.Scope, namespace, name string) operation {
	return change{do: func(g *group) error { return g.tx.DropSingle(s, namespace, name) }}
}

// dropSingles drops all single objects in a scope's namespace, and the verbatim responses
// for the paths below the one of the namespace's collection.
func dropSingles(s store.Scope, path string) operation {
	return change{do: func(g *group) error {
		if err := g.tx.RemoveResponsesBelow(s.Principal, path); err != nil {
			return err
		}
		return g.tx.DropSingles(s)
	}}
}

// forbid drops the collections of a scope that the principal may not list any more.
func forbid(s store.Scope) operation {
	return change{do: func(g *group) error {
		// The group cannot tell which of its positions belong to the dropped collections.
		if err := g.settle(); err != nil {
			return err
		}
		return g.tx.Forbid(s)
	}}
}

// dropResponses drops the verbatim responses for a path, with any query and Accept header.
func dropResponses(principal, path string) operation {
	return change{do: func(g *group) error { return g.tx.RemoveResponse(principal, path) }}
}

// dropOtherQueries drops the verbatim responses for the source's path that have another query.
func dropOtherQueries(s *Source) operation {
	principal, keep := s.Principal, s.Path
	path, _, _ := strings.Cut(keep, "?")
	return change{do: func(g *group) error { return g.tx.ReplaceResponses(principal, path, keep) }}
}

// renewResponse records that the response with this ETag is still current.
func renewResponse(s *Source, etag string) operation {
	principal, path, accept := s.Principal, s.Path, s.Info.RawAccept
	return change{do: func(g *group) error { return g.tx.RenewResponse(principal, path, accept, etag) }}
}

// dropReviews drops the review responses from before a time, and the oldest beyond maxReviews.
func dropReviews(before time.Time) operation {
	return change{do: func(g *group) error { return g.tx.ForgetReviews(before, maxReviews) }}
}

// use records that a collection was replayed.
func use(collection int64) operation {
	return change{do: func(g *group) error { g.used[collection] = struct{}{}; return nil }}
}

// putLink adds a change of the link to its history.
func putLink(state, reason string) operation {
	return change{do: func(g *group) error { return g.tx.PutLink(state, reason) }}
}

// putResponse records a verbatim response.
type putResponse struct {
	base
	response store.Response
}

func (p putResponse) size() int            { return len(p.response.Body) + overhead }
func (p putResponse) apply(g *group) error { return g.tx.PutResponse(p.response) }

// putSingle records an object that was read by a GET, not from a collection.
type putSingle struct {
	base
	scope            store.Scope
	kind, apiVersion string
	object           store.Object
	source           *Source
}

func (p putSingle) size() int { return len(p.object.Payload) + len(p.object.Labels) + overhead }

func (p putSingle) apply(g *group) error {
	// A lagging watch cache of the API server may return an object that is already deleted.
	if p.source.wantsLatest() {
		if err := g.tx.DropTombstone(p.scope, p.object.Namespace, p.object.Name, p.source.Started); err != nil {
			return err
		}
	}
	return g.tx.PutSingle(p.scope, p.kind, p.apiVersion, p.object)
}

// singleKey names the object of a putSingle.
type singleKey struct {
	scope           store.Scope
	namespace, name string
}

func (p putSingle) key() singleKey {
	return singleKey{p.scope, p.object.Namespace, p.object.Name}
}

// repeats reports whether the operation adds nothing to one that is in the queue, after which
// no operation dropped the object. Programs that poll cause many of these.
func (p putSingle) repeats(queued putSingle) bool {
	a, b := p.object, queued.object
	return a.UID == b.UID && a.ResourceVersion == b.ResourceVersion && a.Encoding == b.Encoding && bytes.Equal(a.Payload, b.Payload)
}

// flush is the operation that Flush waits for. It always finds room.
type flush struct {
	base
	written chan struct{}
}

func (flush) size() int          { return 0 }
func (flush) apply(*group) error { return nil }
func (f flush) done()            { close(f.written) }
