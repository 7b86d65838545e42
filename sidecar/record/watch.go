package record

import (
	"slices"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// Watch records the events of one client's watch, also across several
// connections upstream as long as each goes on where the last one ended. It is
// for one goroutine.
type Watch struct {
	*stream
	phase         phase
	formConfirmed bool // the stream's form is what the server sends, not a guess
	registered    bool // the stream is among those that are watched
	snap          *snapshot
	prev          string // version of the last event; listing: the highest so far
}

type phase int

const (
	unrecorded phase = iota // it cannot be said what its events are of
	initial                 // the initial events of sendInitialEvents=true
	listing                 // the state that a watch without a version begins with
	following               // events behind a known version
)

// Watch begins the recording of a watch.
func (r *Recorder) Watch(source Source, format wire.Format) *Watch {
	w := &Watch{}
	switch rv := source.Info.ResourceVersion; {
	case source.Info.SendInitialEvents:
		w.phase = initial
	case rv != "" && rv != "0":
		w.phase, w.prev = following, rv
	default:
		w.phase = listing
	}
	// A watch counts as open although nothing has happened yet, which would say the
	// form of its objects. The server gives the first one that the client asks for.
	form := request.Form{Format: format, Representation: request.Object}
	if i := slices.IndexFunc(source.Info.Forms(), func(f request.Form) bool { return f.Format == format }); i >= 0 {
		form = source.Info.Forms()[i]
	}
	w.begin(r, source, form)
	return w
}

func (w *Watch) begin(r *Recorder, source Source, form request.Form) {
	w.stream = &stream{recorder: r, source: source, form: form, scope: source.scope(form), waiting: map[store.Key]*event{}}
	if w.phase != unrecorded {
		w.registered = true
		r.openWatches.add(w.stream)
		r.enqueue(watchOpened{stream: w.stream})
	}
}

// end takes the stream from those that are watched.
func (w *Watch) end() {
	if w.registered {
		w.registered = false
		w.recorder.openWatches.remove(w.stream)
	}
}

// Event records the next event. The bytes are only used during the call.
func (w *Watch) Event(e wire.Event, m wire.Meta) {
	if w.phase == unrecorded || e.Type == wire.Error {
		return
	}
	if !w.confirmForm(m.Kind) {
		return
	}
	switch w.phase {
	case initial:
		w.initialEvent(e, m)
		return
	case listing:
		w.listedEvent(e, m)
		return
	}
	ev := &event{stream: w.stream, prev: w.prev, version: m.ResourceVersion, kind: e.Type}
	switch e.Type {
	case wire.Added, wire.Modified:
		o := objectRow(w.form, e.Object, m)
		o.UpdatedAt = w.recorder.clock.Now()
		ev.key, ev.object = store.Key{Namespace: o.Namespace, Name: o.Name}, &o
	case wire.Deleted:
		ev.key = store.Key{Namespace: m.Namespace, Name: m.Name}
	}
	w.prev = m.ResourceVersion
	w.recorder.enqueueEvent(ev)
}

// confirmForm finds out by the kind of an object in which form the stream's objects are. It
// ends the recording when they are in none that can be recorded.
func (w *Watch) confirmForm(kind string) bool {
	if w.formConfirmed {
		return true
	}
	rep, ok := representation(kind)
	if !ok {
		w.Close()
		return false
	}
	if w.formConfirmed = true; rep != w.form.Representation {
		w.end()
		w.begin(w.recorder, w.source, request.Form{Format: w.form.Format, Representation: rep})
	}
	return true
}

// initialEvent records an event of the state that a watch list begins with (KEP-3157).
func (w *Watch) initialEvent(e wire.Event, m wire.Meta) {
	if w.snap == nil {
		w.snap = newSnapshot(&w.source, w.form)
	}
	switch {
	case e.Type == wire.Added:
		w.snap.add(w.recorder, objectRow(w.form, e.Object, m))
	case e.Type == wire.Bookmark && m.InitialEventsEnd:
		list := listKind(m.Kind)
		w.recorder.enqueue(commit{snapshot: w.snap, meta: store.CollectionMeta{Kind: m.Kind, APIVersion: m.APIVersion, ResourceVersion: m.ResourceVersion, Envelope: envelope(list, m.APIVersion, nil)}})
		w.snap, w.phase, w.prev = nil, following, m.ResourceVersion
	case e.Type != wire.Bookmark:
		// Not what the KEP says; what the state is cannot be told from here.
		w.Close()
	}
}

// listedEvent takes an event of the state that a watch begins with whose
// resourceVersion is "" or "0": ADDED events in no order of versions, until one of
// another type shows that the state is over. Where it ends nothing marks, so it is
// no snapshot; but each object that is newer than the collection tells that the
// client is ahead of it.
func (w *Watch) listedEvent(e wire.Event, m wire.Meta) {
	if o, ok := compareVersions(m.ResourceVersion, w.prev); e.Type == wire.Added && ok && o <= 0 {
		return // tells no more than the ones before
	}
	w.prev = m.ResourceVersion
	w.recorder.enqueue(&event{stream: w.stream, version: m.ResourceVersion, kind: e.Type})
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
	w.end()
	w.phase = unrecorded
}

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
		w.confirmForm(changes[0].Kind)
	}
	if w.phase != following {
		return
	}
	d := &difference{stream: w.stream, prev: w.prev, version: resourceVersion}
	for _, c := range changes {
		if c.Type == wire.Deleted {
			d.deleted = append(d.deleted, store.Key{Namespace: c.Namespace, Name: c.Name})
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
