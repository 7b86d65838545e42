package record

import (
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// Change is what has become of one object.
type Change struct {
	wire.Event
	wire.Meta
}

// Difference records all that lies between the last event and a resourceVersion, as
// somebody found out who has compared two lists. What changed in between and changed
// back, and in which order, nobody knows: the collection makes one step.
func (w *Watch) Difference(changes []Change, resourceVersion string) {
	if w.phase == following && len(changes) > 0 {
		w.knows(changes[0].Kind)
	}
	if w.phase != following {
		return
	}
	d := &difference{stream: w.stream, prev: w.prev, version: resourceVersion}
	for _, c := range changes {
		if c.Type == wire.Deleted {
			d.gone = append(d.gone, store.Key{Namespace: c.Namespace, Name: c.Name})
			continue
		}
		o := objectRow(w.form, c.Object, c.Meta)
		o.UpdatedAt = w.recorder.clock.Now()
		d.objects = append(d.objects, o)
		d.bytes += len(o.Payload) + len(o.Labels)
	}
	w.prev = resourceVersion
	w.recorder.enqueueDifference(d)
}

// difference is the operation of Difference. gone comes before objects: what was deleted
// and made anew is in both.
type difference struct {
	stream        *stream
	prev, version string
	gone          []store.Key
	objects       []store.Object
	bytes         int
}

func (d *difference) size() int { return d.bytes + overhead*(1+len(d.gone)+len(d.objects)) }

func (*difference) lost() {} // the next event finds the gap

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

// enqueueDifference adds a difference. No event behind it supersedes one before it: they
// would have to be committed together with it.
func (r *Recorder) enqueueDifference(d *difference) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(d.stream.waiting)
	if r.admit(d.size(), r.max) {
		r.push(d)
	}
}
