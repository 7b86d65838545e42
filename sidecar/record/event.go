package record

import (
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
}

type event struct {
	base
	stream        *stream
	prev, version string
	kind          string
	key           store.Key     // of the object; zero: a bookmark
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

func (e *event) soloSafe() bool { return !e.superseded }

func (e *event) apply(g *group) error {
	p, err := g.position(e.stream.scope)
	if err != nil {
		return err
	}
	v := p.verdict(e.prev, e.version)
	if v == duplicate && e.object != nil {
		if v, err = e.checkDuplicate(g, p.id); err != nil {
			return err
		}
	}
	if v == applied && e.superseded {
		v = superseded
	}
	e.stream.conclude(v)
	switch {
	case v == contradiction:
		id := p.id
		p.id, p.moved = 0, false
		return g.tx.Forget(id)
	case v == superseded:
		g.deferred[deferredWrite{p.id, e.key}] = struct{}{}
	case v != applied:
		return nil
	case e.object != nil:
		err = g.tx.Put(p.id, *e.object)
	case e.kind == wire.Deleted:
		err = g.tx.Remove(p.id, e.key.Namespace, e.key.Name)
	}
	if e.key != (store.Key{}) {
		g.openWatches.setChanged(e.stream.scope, e.version)
	}
	p.version, p.moved = e.version, true
	return err
}

// conclude counts an event or a difference, and reports its collection if that must be relisted.
func (s *stream) conclude(v verdict) {
	eventsTotal.WithLabelValues(string(v)).Inc()
	relist := v == gap || v == contradiction
	if v == unlisted {
		// There may have been a collection, which was dropped because versions contradicted each
		// other or lost with the cache file; or the client got its state from elsewhere. A client
		// that only ever watches needs no list, and should not cause the traffic of one.
		relist = s.recorder.openWatches.wasListed(s.scope) || s.source.needsRelist()
	}
	if relist {
		s.recorder.report(&s.source, s.form)
	}
}

// checkDuplicate checks that an event that ought to be recorded already really is.
func (e *event) checkDuplicate(g *group, collection int64) (verdict, error) {
	if _, ok := g.deferred[deferredWrite{collection, e.key}]; ok {
		return duplicate, nil
	}
	have, err := g.tx.Version(collection, e.key.Namespace, e.key.Name)
	if o, ok := compareVersions(have, e.version); err == nil && have != "" && ok && o < 0 {
		return contradiction, nil
	}
	return duplicate, err
}

// difference is the operation of Difference. deleted is applied before objects, because an object
// that was deleted and created again is in both.
type difference struct {
	base          // lost does nothing: the next event finds the gap
	stream        *stream
	prev, version string
	deleted       []store.Key
	objects       []store.Object
	bytes         int
}

func (d *difference) size() int { return d.bytes + overhead*(1+len(d.deleted)+len(d.objects)) }

func (d *difference) apply(g *group) error {
	p, err := g.position(d.stream.scope)
	if err != nil {
		return err
	}
	v := p.verdict(d.prev, d.version)
	// The difference leads from prev to version, and from no version in between.
	if v == applied && p.version != d.prev {
		v = gap
	}
	d.stream.conclude(v)
	if v != applied {
		return nil
	}
	if len(d.deleted)+len(d.objects) > 0 {
		g.openWatches.setChanged(d.stream.scope, d.version)
	}
	for _, key := range d.deleted {
		if err := g.tx.Remove(p.id, key.Namespace, key.Name); err != nil {
			return err
		}
	}
	for _, o := range d.objects {
		if err := g.tx.Put(p.id, o); err != nil {
			return err
		}
	}
	p.version, p.moved = d.version, true
	return nil
}
