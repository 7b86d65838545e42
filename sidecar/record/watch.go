package record

import (
	"rockpool.dev/sidecar/request"
	"rockpool.dev/sidecar/wire"
	"rockpool.dev/store"
)

// Watch records the events of one client's watch, also across several
// connections upstream as long as each goes on where the last one ended. It is
// for one goroutine.
type Watch struct {
	recorder *Recorder
	source   Source
	phase    phase
	form     request.Form
	scope    store.Scope
	snap     *snapshot
	prev     string // version of the last event; stating: the highest so far
}

type phase int

const (
	unrecorded phase = iota // it cannot be said what its events are of
	initial                 // the initial events of sendInitialEvents=true
	stating                 // the state that a watch without a version begins with
	following               // events behind a known version
)

// Watch begins the recording of a watch.
func (r *Recorder) Watch(source Source, format wire.Format) *Watch {
	w := &Watch{recorder: r, source: source, form: request.Form{Format: format}}
	switch rv := source.Info.ResourceVersion; {
	case source.Info.SendInitialEvents:
		w.phase = initial
	case rv != "" && rv != "0":
		w.phase, w.prev = following, rv
	default:
		w.phase = stating
	}
	return w
}

// Event records the next event. The bytes are only used during the call.
func (w *Watch) Event(e wire.Event, m wire.Meta) {
	if w.phase == unrecorded || e.Type == wire.Error {
		return
	}
	if w.form.Representation == "" {
		rep, ok := representation(m.Kind)
		if !ok {
			w.phase = unrecorded
			return
		}
		w.form.Representation = rep
		w.scope = w.source.scope(w.form)
		w.recorder.watched.add(w.scope, 1)
	}
	switch w.phase {
	case initial:
		w.initial(e, m)
		return
	case stating:
		w.state(e, m)
		return
	}
	ev := event{watch: w, form: w.form, scope: w.scope, prev: w.prev, version: m.ResourceVersion, kind: e.Type}
	if e.Type != wire.Bookmark {
		ev.object = objectRow(w.form, e.Object, m)
	}
	w.prev = m.ResourceVersion
	w.recorder.enqueue(ev)
}

// initial records an event of the state that a watch list begins with (KEP-3157).
func (w *Watch) initial(e wire.Event, m wire.Meta) {
	if w.snap == nil {
		w.snap = newSnapshot(&w.source, w.form)
	}
	switch {
	case e.Type == wire.Added:
		w.snap.add(w.recorder, objectRow(w.form, e.Object, m))
	case e.Type == wire.Bookmark && m.InitialEventsEnd:
		list := listKind(m.Kind)
		w.recorder.enqueue(commit{w.snap, store.Head{Kind: m.Kind, APIVersion: m.APIVersion, ResourceVersion: m.ResourceVersion, Envelope: envelope(list, m.APIVersion, nil)}})
		w.snap, w.phase, w.prev = nil, following, m.ResourceVersion
	case e.Type != wire.Bookmark:
		// Not what the KEP says; what the state is cannot be told from here.
		w.Close()
	}
}

// state takes an event of the state that a watch begins with whose
// resourceVersion is "" or "0": ADDED events in no order of versions, until one of
// another type shows that the state is over. Where it ends nothing marks, so it is
// no snapshot; but each object that is newer than the collection tells that the
// client is ahead of it.
func (w *Watch) state(e wire.Event, m wire.Meta) {
	if o, ok := order(m.ResourceVersion, w.prev); e.Type == wire.Added && ok && o <= 0 {
		return // tells no more than the ones before
	}
	w.prev = m.ResourceVersion
	w.recorder.enqueue(event{
		watch: w, form: w.form, scope: w.scope, version: m.ResourceVersion, kind: e.Type,
		object: store.Object{Namespace: m.Namespace, Name: m.Name},
	})
	if e.Type != wire.Added {
		w.phase = following
	}
}

// Close ends the recording.
func (w *Watch) Close() {
	if w.snap != nil {
		w.recorder.enqueue(abort{w.snap})
		w.snap = nil
	}
	if w.scope != (store.Scope{}) {
		w.recorder.watched.add(w.scope, -1)
		w.scope = store.Scope{}
	}
	w.phase = unrecorded
}

type event struct {
	watch         *Watch // only its recorder and source, which do not change
	form          request.Form
	scope         store.Scope
	prev, version string
	kind          string
	object        store.Object
}

func (e event) size() int { return len(e.object.Payload) + len(e.object.Labels) + overhead }
func (event) lost()       {}

func (e event) apply(g *group) error {
	h, err := g.head(e.scope)
	if err != nil {
		return err
	}
	if h.id == 0 {
		eventsTotal.WithLabelValues("unlisted").Inc()
		if e.watch.source.ahead() {
			e.watch.recorder.report(&e.watch.source, e.form)
		}
		return nil
	}
	v := follows(e.prev, e.version, h.version)
	if v == known && (e.kind == wire.Added || e.kind == wire.Modified) {
		have, err := g.tx.Version(h.id, e.object.Namespace, e.object.Name)
		if err != nil {
			return err
		}
		if o, ok := order(have, e.version); have != "" && ok && o < 0 {
			v = contradiction
		}
	}
	eventsTotal.WithLabelValues(string(v)).Inc()
	if v == gap || v == contradiction {
		e.watch.recorder.report(&e.watch.source, e.form)
	}
	if v == contradiction {
		id := h.id
		h.id, h.moved = 0, false
		return g.tx.Forget(id)
	}
	if v != next {
		return nil
	}
	switch e.kind {
	case wire.Added, wire.Modified:
		err = g.tx.Put(h.id, e.object)
	case wire.Deleted:
		err = g.tx.Remove(h.id, e.object.Namespace, e.object.Name)
	}
	h.version, h.moved = e.version, true
	return err
}
