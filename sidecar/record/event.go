package record

import (
	"strings"
	"sync/atomic"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// stream is what the events of one watch have in common.
type stream struct {
	recorder *Recorder
	source   Source
	form     request.Form
	scope    store.Scope
	// waiting has the last queued event of each object. The recorder's lock guards it.
	waiting map[store.Key]*event
	behind  heldEvents // of Run
	// inStep means that the last event of a group was recorded or known; missed, that one had no room
	// in the queue since the last bookmark.
	inStep, missed atomic.Bool
}

type event struct {
	base
	stream        *stream
	prev, version string
	told          int64 // store.DB.Next when it came
	asked         int64 // and when the state was asked for that it may be of; 0: it is a change
	kind          string
	key           store.Key // of the object; zero: a bookmark
	uid           string
	objectKind    string        // kind and apiVersion of the object
	apiVersion    string        //
	object        *store.Object // nil: deleted, superseded, or a bookmark
	superseded    bool          // a later event of the object is in the queue
	supersedes    bool          // it superseded an event when it was queued
}

func (e *event) size() int {
	switch {
	case e.superseded:
		return stepOverhead
	case e.object == nil:
		return overhead
	}
	return len(e.object.Payload) + len(e.object.Labels) + overhead
}

// A bookmark is lazy, unless it may show that something is missing.
func (e *event) lazy() bool {
	return e.key == (store.Key{}) && !e.stream.missed.Swap(false) && e.stream.inStep.Load()
}

func (e *event) news() bool { return e.key != (store.Key{}) } // else it is a bookmark

func (e *event) soloSafe() bool { return !e.superseded }

func (e *event) apply(g *group) error {
	p, err := g.position(e.stream.scope)
	if err != nil {
		return err
	}
	v := p.verdict(e.prev, e.version, e.stream.source.told)
	if v == duplicate && e.key != (store.Key{}) && !e.superseded {
		if v, err = e.checkDuplicate(g, p); err != nil {
			return err
		}
	}
	if v == applied && e.superseded {
		v = superseded
	}
	e.stream.conclude(v)
	switch v {
	case contradiction:
		c, err := g.tx.Collection(e.stream.scope, store.Complete)
		if err != nil {
			return err
		}
		p.id, p.moved = 0, false
		if err := g.tx.Forget(c); err != nil {
			return err
		}
		return e.alone(g)
	case duplicate:
		if _, numeric := store.ParseVersion(e.version); e.version == p.version && !numeric && !e.superseded {
			return e.put(g, p) // no version tells that it is newer than the events just before it
		}
		return e.confirm(g)
	case applied, superseded:
		return e.move(g, p, v)
	}
	if v != unlisted || !e.stream.watchesOne() { // otherwise no list will come
		e.stream.behind.hold(e)
	}
	if _, numeric := store.ParseVersion(e.version); v == gap && !numeric && e.key != (store.Key{}) {
		// The watch goes on from another version. Nothing tells whether the collection has moved
		// beyond the event.
		return g.tx.Observe(e.stream.scope.Of(), e.key, e.evidence(store.Unknown))
	}
	return e.alone(g)
}

// move moves a collection to the event's version.
func (e *event) move(g *group, p *position, v verdict) (err error) {
	if v == superseded {
		g.deferred[deferredWrite{p.id, e.key}] = struct{}{}
	} else {
		err = e.put(g, p)
	}
	if e.key != (store.Key{}) {
		g.openWatches.setChanged(e.stream.scope, e.version)
		p.changed = e.version
	}
	p.version, p.told, p.since, p.moved = e.version, e.told, e.told, true
	return err
}

// put changes the object in a collection.
func (e *event) put(g *group, p *position) error {
	switch {
	case e.object != nil:
		return g.tx.PutEvent(p.id, e.stream.scope, *e.object)
	case e.kind == wire.Deleted:
		return g.tx.RemoveEvent(p.id, e.stream.scope, e.key, e.evidence(store.Gone))
	}
	return nil
}

// evidence is what the event says about its object.
func (e *event) evidence(says store.Says) store.Evidence {
	out := store.Evidence{Says: says, Version: e.version, Asked: e.told, Told: e.told, Read: store.Stream}
	if says == store.Gone {
		out.UIDs = []string{e.uid}
	}
	return out
}

// confirm records an event that the collection has already, if something older is recorded of its
// object that the collection does not contradict. An object of the latest state may be there from
// an answer that was allowed to lag. A collection with a selector does not tell that an object has
// changed which it lacks.
func (e *event) confirm(g *group) error {
	if e.superseded || e.key == (store.Key{}) {
		return nil
	}
	says := e.evidence(store.Unknown)
	switch latest := e.object != nil && e.object.Read == store.Latest; {
	case latest:
		says = e.object.Evidence()
	case !e.stream.scope.Hides(e.key.Name):
		return nil
	}
	if supersedes, err := g.tx.Supersedes(e.stream.scope.Of(), e.key, says); !supersedes || err != nil {
		return err
	}
	return e.alone(g)
}

// alone records what the event says about its object, without a collection: its client was told.
func (e *event) alone(g *group) error {
	switch {
	case e.key == (store.Key{}), e.superseded:
		return nil
	case e.object != nil:
		return g.tx.PutSingle(e.stream.source.singleScope(e.stream.form), e.objectKind, e.apiVersion, *e.object)
	case e.stream.source.Info.Narrowed, e.stream.scope.Hides(e.key.Name):
		return g.tx.Observe(e.stream.scope.Of(), e.key, e.evidence(store.Unknown))
	}
	return g.tx.Observe(e.stream.scope.Of(), e.key, e.evidence(store.Gone))
}

// eventAlone records an event of an unknown part of a collection.
type eventAlone struct {
	base
	event *event
}

func (e eventAlone) size() int            { return e.event.size() }
func (e eventAlone) apply(g *group) error { return e.event.alone(g) }
func (e eventAlone) lost()                { e.event.lost() }

// lost makes the object doubtful, or all objects of the watch if the event was a bookmark.
func (e *event) lost() {
	e.stream.missed.Store(true)
	if e.key != (store.Key{}) {
		e.stream.recorder.doubt(e.stream.scope.Of(), e.key, e.told, e.version)
	}
}

// conclude counts an event or a difference, and reports its collection if that must be relisted.
func (s *stream) conclude(v verdict) {
	eventsTotal.WithLabelValues(string(v)).Inc()
	s.inStep.Store(v == applied || v == duplicate || v == superseded)
	// A watch of one object needs no list: its events say all. Its client may not be allowed to
	// list.
	// Another list of a collection that is too large would not help.
	if v == gap || v == contradiction || v == unlisted && !s.watchesOne() && !s.recorder.oversized.has(s.scope) {
		s.recorder.report(Stale{Source: s.source, Form: s.form})
	}
}

// watchesOne reports whether the watch is of one object.
func (s *stream) watchesOne() bool {
	name, ok := strings.CutPrefix(s.scope.FieldSelector, "metadata.name=")
	return ok && !strings.Contains(name, ",")
}

// checkDuplicate checks that an event that ought to be recorded already really is.
func (e *event) checkDuplicate(g *group, p *position) (verdict, error) {
	if _, ok := g.deferred[deferredWrite{p.id, e.key}]; ok {
		return duplicate, nil
	}
	uid, version, err := g.tx.Version(p.id, e.key.Namespace, e.key.Name)
	if err != nil {
		return duplicate, err
	}
	order, ok := store.CompareVersions(version, e.version)
	there := version != ""
	switch {
	case !ok && there:
	case e.object == nil && there && order <= 0, // it is deleted
		e.object != nil && there && order < 0,
		e.object != nil && there && order == 0 && uid != e.uid,
		e.object != nil && !there && e.version == p.version:
		return contradiction, nil
	case e.asked > p.since && e.object != nil && (!there || order > 0):
		// It is older than a state that its watch was told before.
		if e.object.Read == store.Latest {
			return contradiction, nil
		}
		_, err = g.restored(e.stream.scope.Of())
	}
	return duplicate, err
}

// difference is the operation of Difference.
type difference struct {
	base
	stream        *stream
	prev, version string
	told          int64 // store.DB.Next when the list came
	events        []*event
}

func (d *difference) size() int {
	n := overhead
	for _, e := range d.events {
		n += e.size()
	}
	return n
}

func (d *difference) apply(g *group) error {
	p, err := g.position(d.stream.scope)
	if err != nil {
		return err
	}
	v := p.verdict(d.prev, d.version, d.stream.source.told)
	// The difference leads from prev to version, and from no version in between.
	if v == applied && p.version != d.prev {
		v = gap
	}
	d.stream.conclude(v)
	if v == applied && len(d.events) > 0 {
		g.openWatches.setChanged(d.stream.scope, d.version)
		p.changed = d.version
	}
	for _, e := range d.events {
		if v == applied {
			err = e.put(g, p)
		} else {
			err = e.alone(g)
		}
		if err != nil {
			return err
		}
	}
	if v == applied {
		p.version, p.told, p.since, p.moved = d.version, d.told, d.told, true
	}
	return nil
}

// lost makes all objects of the watch doubtful.
func (d *difference) lost() {
	d.stream.recorder.doubt(d.stream.scope.Of(), store.Key{Namespace: d.stream.scope.Namespace}, d.told, d.version)
}
