package record

import (
	"bytes"
	"cmp"
	"strings"
	"time"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// operation is one entry of the queue: a change of the store, or a mark that somebody waits for.
type operation interface {
	// size is how many bytes the operation keeps in memory. Operations that end what others
	// began have size 0, which always finds room.
	size() int
	// apply makes the change. It returns only errors of the store, which fail the group;
	// any other problem concerns the operation alone.
	apply(*group) error
	// lost is called when the operation is not recorded.
	lost()
	// done is called after the operation's group is written or lost.
	done()
	// opens is the snapshot that is incoming once the operation is queued; closes is the
	// snapshot that no longer is. Both are nil for most operations.
	opens() *snapshot
	closes() *snapshot
	// soloSafe reports whether the operation may be written in a transaction of its own
	// when its group fails.
	soloSafe() bool
	// dequeued is called when the operation joins a group. It returns the change in the number
	// of later operations that must join the same group.
	dequeued() (deferred int)
	// lazy reports whether the operation only moves a version on. It waits for others, so that a quiet
	// watch does not wear out the disk. It is called once, when the operation is queued.
	lazy() bool
	// news reports whether the operation says more than that what was recorded or queued before is
	// still so.
	news() bool
}

// base has the methods of an operation that has no payload and depends on no other operation.
type base struct{}

func (base) size() int         { return overhead }
func (base) lost()             {}
func (base) done()             {}
func (base) opens() *snapshot  { return nil }
func (base) closes() *snapshot { return nil }
func (base) soloSafe() bool    { return true }
func (base) dequeued() int     { return 0 }
func (base) lazy() bool        { return false }
func (base) news() bool        { return true }

// change is an operation without a payload.
type change struct {
	base
	do func(*group) error
}

func (c change) apply(g *group) error { return c.do(g) }

// observe records evidence about an object that is not shown, or about a scope.
type observe struct {
	base
	recorder *Recorder
	resource store.Resource
	key      store.Key
	evidence store.Evidence
}

func (o observe) apply(g *group) error { return g.tx.Observe(o.resource, o.key, o.evidence) }

// observeUnserved records that the API server does not serve a resource in a version of its API.
// Other versions may be served: their collections are relisted.
type observeUnserved struct {
	observe
	version string
}

func (o observeUnserved) apply(g *group) error {
	err := o.observe.apply(g)
	g.unserved[served{o.resource, o.version}] = len(g.tx.Said())
	return err
}

func (o observe) lost() {
	o.recorder.doubt(o.resource, o.key, o.evidence.Told, cmp.Or(o.evidence.Version, o.evidence.Floor))
}

// dropResponsesBelow drops the verbatim responses for the paths below the request's.
func dropResponsesBelow(s *Source) operation {
	principal, path := s.Principal, strings.TrimSuffix(s.barePath(), "/")
	return change{do: func(g *group) error { return g.tx.RemoveResponsesBelow(principal, path) }}
}

// dropNotFound drops the recorded 404s for an API that is served, as a response shows.
func dropNotFound(s *Source, path string) operation {
	principal := s.Principal
	return change{do: func(g *group) error { return g.tx.RemoveNotFound(principal, path) }}
}

// dropResponses drops the verbatim responses for a path, with any query and Accept header.
func dropResponses(principal, path string) operation {
	return change{do: func(g *group) error { return g.tx.RemoveResponse(principal, path) }}
}

// dropOtherQueries drops the verbatim responses for the request's path with another query.
func dropOtherQueries(s *Source) operation {
	principal, path, keep := s.Principal, s.barePath(), s.Path
	return change{do: func(g *group) error { return g.tx.ReplaceResponses(principal, path, keep) }}
}

// renewResponse records that the response with this ETag is still current.
func renewResponse(s *Source, etag string) operation {
	principal, path, accept, told := s.Principal, s.Path, s.Info.RawAccept, s.told
	return change{do: func(g *group) error { return g.tx.RenewResponse(principal, path, accept, etag, told) }}
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

// putSingle records an object that was read by a GET or written, not from a collection.
type putSingle struct {
	base
	recorder         *Recorder
	scope            store.Scope
	kind, apiVersion string
	object           store.Object
	// poll and hash are of the GET whose answer showed the object; zero: no GET did.
	poll poll
	hash uint64 // as itemHash
}

func (p *putSingle) size() int { return len(p.object.Payload) + len(p.object.Labels) + overhead }

func (p *putSingle) apply(g *group) error {
	return g.tx.PutSingle(p.scope, p.kind, p.apiVersion, p.object)
}

func (p *putSingle) lost() {
	p.recorder.doubt(p.scope.Of(), p.object.Key(), p.object.Told, p.object.ResourceVersion)
}

// poll is a GET that programs repeat: equal ones with equal answers say the same.
type poll struct{ principal, path, accept, mediaType string }

func pollOf(s *Source, format wire.Format) poll {
	return poll{s.Principal, s.Path, s.Info.RawAccept, format.MediaType()}
}

// singleKey names the object of a putSingle.
type singleKey struct {
	scope           store.Scope
	namespace, name string
}

func (p *putSingle) key() singleKey { return singleKey{p.scope, p.object.Namespace, p.object.Name} }

// repeats reports whether the operation says the same as one in the queue that only putSingles and
// events follow. Applications that poll cause many of these.
func (p *putSingle) repeats(queued *putSingle) bool {
	if queued == nil {
		return false
	}
	a, b := &p.object, &queued.object
	return a.UID == b.UID && a.ResourceVersion == b.ResourceVersion && a.Read == b.Read &&
		a.Encoding == b.Encoding && bytes.Equal(a.Payload, b.Payload)
}

// again notes that the same was said once more.
func (p *putSingle) again(asked, told int64, at time.Time) {
	o := &p.object
	o.Asked, o.Told, o.UpdatedAt = max(o.Asked, asked), max(o.Told, told), at
}

// flush is the operation that Flush waits for. It always finds room.
type flush struct {
	base
	written chan struct{}
}

func (flush) size() int          { return 0 }
func (flush) apply(*group) error { return nil }
func (flush) news() bool         { return false }
func (f flush) done()            { close(f.written) }
