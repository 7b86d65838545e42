package model

import (
	"net/http"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/cache"
)

// stream is a watch that a program has open.
type stream struct {
	ask     ask
	events  cache.Events // nil: the sidecar passes it on unrecorded
	sent    int
	from    form     // of the list from which it goes on
	at      int      // the revision up to which events were delivered
	last    int      // the revision that the client would resume from; -1: none yet
	initial []object // of the state that it begins with, not yet delivered
	ending  bool     // the bookmark that ends that state is to come
	spoken  bool     // a frame was delivered
	over    bool     // a frame was delivered that is not of an initial state: that is over
	begun   []func() // tells of the state so far: a client that has not seen its end has none
}

// frame is one event on its way to the client.
type frame struct {
	event   string
	body    []byte
	told    map[key]observation
	initial bool // of the state that the watch begins with
}

// next gives the next frame of a watch, false if there is none yet.
func (s *server) next(w *stream) (frame, bool) {
	switch {
	case len(w.initial) > 0:
		o := w.initial[0]
		w.initial = w.initial[1:]
		told := observation{at: w.at, version: o.version, uid: o.uid, lag: w.ask.any, event: true}
		return frame{wire.Added, o.encode(w.ask.form), map[key]observation{o.key: told}, true}, true
	case w.ending:
		w.ending, w.last = false, w.at
		f := frame{wire.Bookmark, bookmark(w.ask, s.revisions[w.at].version, true), map[key]observation{}, true}
		for _, k := range universe {
			if w.ask.scope.has(k) && w.ask.scope.selector != byShard && s.view(w.at, w.ask.scope, k) == (object{}) {
				f.told[k] = observation{
					at: w.at, version: s.revisions[w.at].version, lag: w.ask.any, event: true, unselected: w.ask.scope.selector == byLabel,
				}
			}
		}
		return f, true
	}
	for w.at < s.now() {
		w.at++
		if f, ok := s.event(w); ok {
			w.last = w.at
			return f, true
		}
	}
	return frame{}, false
}

// event gives the event of one revision, false if the watch does not select it.
func (s *server) event(w *stream) (frame, bool) {
	r := s.revisions[w.at]
	before, was := s.revisions[w.at-1].objects[r.changed]
	after, is := r.objects[r.changed]
	was, is = was && w.ask.scope.shows(before), is && w.ask.scope.shows(after)
	told := observation{at: w.at, version: r.version, uid: after.uid, lag: true, event: true}
	f := frame{wire.Modified, nil, map[key]observation{r.changed: told}, false}
	switch {
	case !was && !is:
		return f, false
	case !was:
		f.event = wire.Added
	case !is: // as it was before, at the version of its deletion
		f.event = wire.Deleted
		told.uid, told.gone = before.uid, after.uid == ""
		f.told[r.changed] = told
		after, after.version = before, r.version
	}
	f.body = after.encode(w.ask.form)
	return f, true
}

// bookmark gives a bookmark, which says that nothing else has changed so far.
func (s *server) bookmark(w *stream) frame {
	return frame{wire.Bookmark, bookmark(w.ask, s.revisions[w.at].version, false), nil, false}
}

func bookmark(a ask, version string, end bool) []byte {
	k := a.scope.kind
	if a.form.isMetadata() {
		p := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}}
		if end {
			p.Annotations = map[string]string{wire.InitialEventsEnd: "true"}
		}
		return encode(a.form, partial, p)
	}
	o, err := scheme.New(k.gvk(""))
	utilruntime.Must(err)
	m, err := meta.Accessor(o)
	utilruntime.Must(err)
	m.SetResourceVersion(version)
	if end {
		m.SetAnnotations(map[string]string{wire.InitialEventsEnd: "true"})
	}
	return encode(a.form, k.gvk(""), o)
}

// watch opens a watch.
func (w *world) watch(p *program, slot int, a ask, lag int) error {
	w.unwatch(p, slot)
	s := &stream{ask: a, sent: w.tick, last: -1}
	if a.start == fromList {
		from, ok := p.lists[a.scope]
		if !ok || from.at < w.server.restored {
			return nil // nothing to watch from, or 410
		}
		s.at, s.last, s.from = from.at, from.at, from.form
		s.ask.version = w.server.revisions[from.at].version
	}
	return w.follow(p, slot, s, lag)
}

// rewatch opens a broken watch again, from where its client is.
func (w *world) rewatch(p *program, slot int) error {
	old := p.streams[slot]
	w.unwatch(p, slot)
	if old == nil || old.last < w.server.restored || len(old.initial) > 0 || old.ending {
		return nil
	}
	a := old.ask
	a.start, a.any, a.version = fromList, false, w.server.revisions[old.last].version
	return w.follow(p, slot, &stream{ask: a, sent: w.tick, from: old.from, spoken: old.spoken, at: old.last, last: old.last}, 0)
}

// follow sends the request for a watch. The server answers with a stream, or refuses.
func (w *world) follow(p *program, slot int, s *stream, lag int) error {
	f := w.send(p, s.ask)
	r := w.server.answer(p.principal, s.ask, w.server.lagging(lag))
	if r.status != http.StatusOK {
		f.reply, f.came = &r, w.tick
		resp := r.http(s.ask)
		w.cache.Record(&f.source, resp)
		f.body = resp.Body
		_, err := w.finish(p, f)
		return err
	}
	if s.ask.start != fromList {
		s.at, s.initial, s.ending = r.at, w.server.list(r.at, s.ask.scope), s.ask.start == watchList
	}
	if f.source.Info.Class == request.ClassWatch {
		s.events = w.cache.Watch(f.source, wire.FormatOf(s.ask.form.mediaType()))
	}
	p.streams[slot] = s
	return nil
}

func (w *world) unwatch(p *program, slot int) {
	if s := p.streams[slot]; s != nil && s.events != nil {
		s.events.Close()
	}
	p.streams[slot] = nil
}

// deliver brings up to n frames of a watch to its client; bookmark adds one for the position.
func (w *world) deliver(p *program, slot, n int, withBookmark bool) error {
	s := p.streams[slot]
	if s == nil {
		return nil
	}
	for ; n > 0; n-- {
		f, ok := w.server.next(s)
		if !ok {
			break
		}
		if err := w.frame(p, s, f); err != nil {
			return err
		}
	}
	if withBookmark && len(s.initial) == 0 && !s.ending && !s.ask.legacy {
		s.last = s.at
		return w.frame(p, s, w.server.bookmark(s))
	}
	return nil
}

// frame brings a frame to its client.
func (w *world) frame(p *program, s *stream, f frame) error {
	s.spoken, s.over = true, s.over || f.event != wire.Added
	if s.events != nil {
		m, err := wire.FormatOf(s.ask.form.mediaType()).ParseMeta(f.body)
		if err != nil {
			return err
		}
		s.events.Event(wire.Event{Type: f.event, Object: f.body}, m)
	}
	for k, o := range f.told {
		if o.sent, o.came = w.tick, w.tick; f.initial {
			o.sent = s.sent
		}
		if s.ending {
			s.begun = append(s.begun, func() { w.tell(p, k, o) })
			continue
		}
		w.tell(p, k, o)
	}
	if !s.ending {
		for _, tell := range s.begun {
			tell()
		}
		s.begun = nil
	}
	if f.event == wire.Bookmark && f.initial {
		p.lists[s.ask.scope] = listed{s.at, s.ask.form}
		p.listings = append(p.listings, listing{scope: s.ask.scope, verb: watch, at: s.at, sent: s.sent, told: w.tick})
	}
	return nil
}

// serverEndsWatches ends the streams of a resource, or all with nil.
func (w *world) serverEndsWatches(k *kind) {
	for _, p := range w.programs {
		for slot, s := range p.streams {
			if s != nil && (k == nil || s.ask.scope.kind == k) {
				w.unwatch(p, slot)
			}
		}
	}
}
