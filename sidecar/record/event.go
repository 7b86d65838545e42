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
	// waiting has the last event of each object that is in the queue and may be
	// superseded; the recorder's lock guards it.
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
	supersedes    bool          // an earlier one was, when this one came
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
	h, err := g.head(e.stream.scope)
	if err != nil {
		return err
	}
	if h.id == 0 {
		e.stream.unlisted()
		return nil
	}
	v := follows(e.prev, e.version, h.version)
	if v == known && e.object != nil {
		if v, err = e.check(g, h.id); err != nil {
			return err
		}
	}
	result := string(v)
	if e.superseded && v == next {
		result = "superseded"
	}
	eventsTotal.WithLabelValues(result).Inc()
	if v == gap || v == contradiction {
		e.stream.recorder.report(&e.stream.source, e.stream.form)
	}
	if v == contradiction {
		id := h.id
		h.id, h.moved = 0, false
		return g.tx.Forget(id)
	}
	if v != next {
		return nil
	}
	if e.key != (store.Key{}) {
		g.watched.change(e.stream.scope, e.version)
	}
	switch {
	case e.superseded:
		g.owed[debt{h.id, e.key}] = struct{}{}
	case e.object != nil:
		err = g.tx.Put(h.id, *e.object)
	case e.kind == wire.Deleted:
		err = g.tx.Remove(h.id, e.key.Namespace, e.key.Name)
	}
	h.version, h.moved = e.version, true
	return err
}

// unlisted is called for what happens to a collection that there is not.
func (s *stream) unlisted() {
	eventsTotal.WithLabelValues("unlisted").Inc()
	// It is listed when there was a collection, forgotten because versions contradicted
	// each other, or lost with the cache's file; and when the client has its state from
	// elsewhere. A client that only ever watches has no use for a list, and shall not
	// cause the traffic of one.
	if s.recorder.watched.lost(s.scope) || s.source.ahead() {
		s.recorder.report(&s.source, s.form)
	}
}

// check finds out whether an event that should be known is.
func (e *event) check(g *group, collection int64) (verdict, error) {
	if _, behind := g.owed[debt{collection, e.key}]; behind {
		return known, nil
	}
	have, err := g.tx.Version(collection, e.key.Namespace, e.key.Name)
	if o, ok := order(have, e.version); err == nil && have != "" && ok && o < 0 {
		return contradiction, nil
	}
	return known, err
}

// difference is the operation of Difference. gone comes before objects: what was deleted
// and made anew is in both.
type difference struct {
	base          // lost changes nothing: the next event finds the gap
	stream        *stream
	prev, version string
	gone          []store.Key
	objects       []store.Object
	bytes         int
}

func (d *difference) size() int { return d.bytes + overhead*(1+len(d.gone)+len(d.objects)) }

func (d *difference) apply(g *group) error {
	h, err := g.head(d.stream.scope)
	if err != nil {
		return err
	}
	if h.id == 0 {
		d.stream.unlisted()
		return nil
	}
	v := follows(d.prev, d.version, h.version)
	// It is the way from one version to another, and leads nowhere from one in between.
	if v == next && h.version != d.prev {
		v = gap
	}
	eventsTotal.WithLabelValues(string(v)).Inc()
	if v == gap {
		d.stream.recorder.report(&d.stream.source, d.stream.form)
	}
	if v != next {
		return nil
	}
	if len(d.gone)+len(d.objects) > 0 {
		g.watched.change(d.stream.scope, d.version)
	}
	for _, key := range d.gone {
		if err := g.tx.Remove(h.id, key.Namespace, key.Name); err != nil {
			return err
		}
	}
	for _, o := range d.objects {
		if err := g.tx.Put(h.id, o); err != nil {
			return err
		}
	}
	h.version, h.moved = d.version, true
	return nil
}
