package record

import (
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// Stale is a collection that must be relisted. An event or an item of it was not recorded, and
// later events do not continue from its version; it stays correct for that version. Or there is no
// collection although it is watched: it was lost with the cache file, its versions contradicted
// each other, or the watch continues from a state that came from elsewhere.
type Stale struct {
	// Source is a request for the collection, a list or a watch.
	Source Source
	Form   request.Form
	// IfOvertaken means that the list is needed only if something newer than the collection is
	// known by then.
	IfOvertaken bool
}

// Scope is the scope of the collection.
func (s *Stale) Scope() store.Scope { return s.Source.scope(s.Form) }

// staleOf asks for a relist of a scope.
func staleOf(s store.Scope) Stale {
	info := request.Info{Path: s.Path(), Group: s.Group, Version: s.Version, Resource: s.Resource, Namespace: s.Namespace}
	info.LabelSelector, info.FieldSelector = s.LabelSelector, s.FieldSelector
	return Stale{Source: Source{Principal: s.Principal, Info: info}, Form: request.Form{Format: wire.FormatOf(s.MediaType), Representation: request.Representation(s.Representation)}}
}

// Damaged notes that a payload of a collection is damaged. The collection is dropped, and relisted
// if it is a list.
func (r *Recorder) Damaged(collection int64) {
	r.enqueue(change{do: func(g *group) error {
		if err := g.settle(); err != nil {
			return err
		}
		c, err := g.tx.DropDamaged(collection)
		if isNotFound(err) {
			return nil // by another reader
		}
		if err == nil && c.State == store.Complete {
			g.stale = append(g.stale, staleOf(c.Scope))
		}
		damagedTotal.Inc()
		return err
	}})
}

// Contradicted notes that the API server contradicts the collection of a scope, as after a restore from
// a backup. The collection is forgotten, and relisted.
func (r *Recorder) Contradicted(s store.Scope) {
	r.enqueue(change{do: func(g *group) error {
		if err := g.settle(); err != nil {
			return err
		}
		c, err := g.tx.Collection(s, store.Complete)
		if isNotFound(err) {
			return nil
		}
		if err == nil {
			g.stale = append(g.stale, staleOf(s))
			err = g.tx.Forget(c)
		}
		return err
	}})
}

// maxStale bounds the collections that wait for a relist. If one does not fit, its next event
// reports it again.
const maxStale = 16

// Stale returns the channel of the collections to relist.
func (r *Recorder) Stale() <-chan Stale { return r.stale }

func (r *Recorder) report(s Stale) {
	select {
	case r.stale <- s:
	default:
	}
}
