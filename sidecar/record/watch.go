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
	resumed       bool // see Resume
	formConfirmed bool // the server has sent an object in the stream's form
	snap          *snapshot
	prev          string // version of the last event; while listing: the highest so far
	begins        bool   // of phase alone: the events may be of the initial state
}

type phase int

const (
	unrecorded phase = iota // its events cannot be recorded
	initial                 // the initial events of sendInitialEvents=true
	listing                 // the initial state of a watch without a resourceVersion
	following               // events after a known version
	alone                   // events of an unknown part of a collection
)

// Resume begins the recording of a watch that has run for a while. Its client is at the source's
// resourceVersion. If the recorded collection is not, it is listed.
func (r *Recorder) Resume(source Source, format wire.Format) *Watch {
	source.Info.SendInitialEvents = false
	return r.watch(source, format, true)
}

// Watch begins the recording of a watch.
func (r *Recorder) Watch(source Source, format wire.Format) *Watch {
	return r.watch(source, format, false)
}

func (r *Recorder) watch(source Source, format wire.Format, resumed bool) *Watch {
	w := &Watch{resumed: resumed}
	source.told = r.db.Next()
	switch rv := source.Info.ResourceVersion; {
	case source.Info.Narrowed:
		w.phase, w.begins = alone, source.Info.SendInitialEvents || rv == "" || rv == "0"
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
	if w.phase != alone {
		r.openWatches.add(w.stream)
		r.enqueue(watchOpened{stream: w.stream, resumed: w.resumed, from: w.prev})
	}
}

// Event records the next event. Its bytes are only used during the call. Without a name it is one
// that cannot be read.
func (w *Watch) Event(e wire.Event, m wire.Meta) {
	switch {
	case w.phase == unrecorded || e.Type == wire.Error:
		return
	case w.isUnreadable(e, m):
		w.unread(e, m)
		return
	case !w.confirmForm(m.Kind):
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
	ev := w.event(e, m)
	if w.phase == alone {
		w.begins = w.begins && e.Type == wire.Added
		if op := (eventAlone{event: ev}); !w.recorder.enqueue(op) {
			op.lost()
		}
		return
	}
	ev.prev, w.prev = w.prev, m.ResourceVersion
	w.recorder.enqueueEvent(ev)
}

func (w *Watch) event(e wire.Event, m wire.Meta) *event {
	ev := &event{
		stream: w.stream, version: m.ResourceVersion, told: w.recorder.db.Next(), kind: e.Type,
		uid: m.UID, objectKind: m.Kind, apiVersion: m.APIVersion,
	}
	switch e.Type {
	case wire.Added, wire.Modified:
		o := w.row(e, m, ev.told)
		if w.phase == listing || w.begins && e.Type == wire.Added { // it may be of the initial state
			o.Asked, ev.asked = w.source.Asked, w.source.Asked
			if w.source.Info.ResourceVersion == "" { // which is the latest one then
				o.Read = store.Latest
			}
		}
		ev.key, ev.object = store.Key{Namespace: o.Namespace, Name: o.Name}, &o
	case wire.Deleted:
		ev.key = store.Key{Namespace: m.Namespace, Name: m.Name}
	}
	return ev
}

// row makes a row of the object of an event.
func (w *Watch) row(e wire.Event, m wire.Meta, told int64) store.Object {
	o := objectRow(w.form, e.Object, m)
	o.UpdatedAt, o.Asked, o.Told, o.Read = w.recorder.clock.Now(), told, told, store.Stream
	return o
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
		w.leave()
		w.begin(w.recorder, w.source, request.Form{Format: w.form.Format, Representation: rep})
	}
	return true
}

// initialEvent records an event of the initial state of a watch list (KEP-3157).
func (w *Watch) initialEvent(e wire.Event, m wire.Meta) {
	if w.snap == nil {
		w.snap = newSnapshot(w.recorder, &w.source, w.form)
	}
	switch {
	case e.Type == wire.Added:
		o := objectRow(w.form, e.Object, m)
		if o.Hash = itemHash(o.Payload); !w.snap.same(o.Hash, len(o.Payload)) {
			w.snap.add(o, m.Kind, m.APIVersion)
		}
	case e.Type == wire.Bookmark && m.InitialEventsEnd:
		w.snap.end(store.CollectionMeta{
			Kind: m.Kind, APIVersion: m.APIVersion, ResourceVersion: m.ResourceVersion,
			Envelope: envelope(listKind(m.Kind), m.APIVersion, nil),
		})
		w.snap, w.phase, w.prev = nil, following, m.ResourceVersion
	case e.Type != wire.Bookmark:
		// This violates KEP-3157, so the state is unknown, but not what the event tells.
		w.goAlone()
		w.Event(e, m)
	}
}

// listedEvent records an event of the initial state of a watch whose resourceVersion is "" or "0".
// These are ADDED events, not ordered by version. The first event of another type shows that the
// state is over. Nothing marks its end, so it does not make a snapshot. But its objects are known,
// and one that is newer than the collection shows that the client is ahead of the collection.
func (w *Watch) listedEvent(e wire.Event, m wire.Meta) {
	ev := w.event(e, m)
	if e.Type != wire.Added || store.NewerVersion(ev.version, w.prev) || w.prev == "" {
		w.prev = ev.version
	}
	w.recorder.enqueueEvent(ev)
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
		w.recorder.enqueue(abort{w.snap}) // a client that has not seen the end of a state has none
		w.snap = nil
	}
	w.leave()
	w.phase = unrecorded
}

func (w *Watch) leave() {
	if w.phase != alone {
		w.recorder.openWatches.remove(w.stream)
	}
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
	there := map[store.Key]bool{}
	for _, c := range changes {
		there[store.Key{Namespace: c.Namespace, Name: c.Name}] = c.Type != wire.Deleted
	}
	d := &difference{stream: w.stream, prev: w.prev, version: resourceVersion}
	for _, c := range changes {
		e := w.event(c.Event, c.Meta)
		switch {
		case c.Type != wire.Deleted:
		case there[e.key]: // it was created again
			continue
		default:
			e.version = resourceVersion
		}
		d.events = append(d.events, e)
	}
	d.told = w.recorder.db.Next()
	w.prev = resourceVersion
	w.recorder.enqueueDifference(d)
}
