package record

import (
	"slices"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// Watch records the events of one client's watch. It may span several upstream connections, as long
// as each continues where the last one ended. It is for one goroutine.
type Watch struct {
	*stream       // in openWatches, unless unrecorded
	phase         phase
	formConfirmed bool // the server has sent an object in the stream's form
	snap          *snapshot
	prev          string // version of the last event; while listing: the highest so far
}

type phase int

const (
	unrecorded phase = iota // its events cannot be recorded
	initial                 // the initial events of sendInitialEvents=true
	listing                 // the initial state of a watch without a resourceVersion
	following               // events after a known version
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
	// A watch counts as open before its first event, which shows the form of its objects. Until
	// then, assume the first form that the client accepts.
	form := request.Form{Format: format, Representation: request.Object}
	forms := source.Info.Forms()
	if i := slices.IndexFunc(forms, func(f request.Form) bool { return f.Format == format }); i >= 0 {
		form = forms[i]
	}
	w.begin(r, source, form)
	return w
}

func (w *Watch) begin(r *Recorder, source Source, form request.Form) {
	w.stream = &stream{recorder: r, source: source, form: form, scope: source.scope(form), waiting: map[store.Key]*event{}}
	r.openWatches.add(w.stream)
	r.enqueue(watchOpened{stream: w.stream})
}

// Event records the next event. Its bytes are only used during the call.
func (w *Watch) Event(e wire.Event, m wire.Meta) {
	if w.phase == unrecorded || e.Type == wire.Error || !w.confirmForm(m.Kind) {
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

// confirmForm sets the stream's form by an object's kind, and closes the watch if it has no form.
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
		w.recorder.openWatches.remove(w.stream)
		w.begin(w.recorder, w.source, request.Form{Format: w.form.Format, Representation: rep})
	}
	return true
}

// initialEvent records an event of the initial state of a watch list (KEP-3157).
func (w *Watch) initialEvent(e wire.Event, m wire.Meta) {
	if w.snap == nil {
		w.snap = newSnapshot(&w.source, w.form)
	}
	switch {
	case e.Type == wire.Added:
		w.snap.add(w.recorder, objectRow(w.form, e.Object, m))
	case e.Type == wire.Bookmark && m.InitialEventsEnd:
		w.recorder.enqueue(commit{snapshot: w.snap, meta: store.CollectionMeta{
			Kind: m.Kind, APIVersion: m.APIVersion, ResourceVersion: m.ResourceVersion,
			Envelope: envelope(listKind(m.Kind), m.APIVersion, nil),
		}})
		w.snap, w.phase, w.prev = nil, following, m.ResourceVersion
	case e.Type != wire.Bookmark:
		// This violates KEP-3157, so the state is unknown.
		w.Close()
	}
}

// listedEvent records an event of the initial state of a watch whose resourceVersion is "" or "0".
// These are ADDED events, not ordered by version. The first event of another type shows that the
// state is over. Nothing marks its end, so it does not make a snapshot. But an object that is newer
// than the collection shows that the client is ahead of the collection.
func (w *Watch) listedEvent(e wire.Event, m wire.Meta) {
	if o, ok := compareVersions(m.ResourceVersion, w.prev); e.Type == wire.Added && ok && o <= 0 {
		return // adds nothing to the earlier ones
	}
	w.prev = m.ResourceVersion
	w.recorder.enqueue(&event{stream: w.stream, version: m.ResourceVersion, kind: e.Type})
	if e.Type != wire.Added {
		w.phase = following
	}
}

// Close ends the recording.
func (w *Watch) Close() {
	if w.phase == unrecorded {
		return
	}
	if w.snap != nil {
		w.recorder.enqueue(abort{w.snap})
		w.snap = nil
	}
	w.recorder.openWatches.remove(w.stream)
	w.phase = unrecorded
}

// Change is the last change of one object.
type Change struct {
	wire.Event
	wire.Meta
}

// Difference records all changes between the last event and a resourceVersion, as found by
// comparing two lists. Their order is unknown, and so are intermediate states: the collection moves
// in one step.
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
