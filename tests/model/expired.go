package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// expire has the server forget where a watch was. The sidecar asks the cache for the state that the
// client was sent, lists, and sends the difference as events. Without that state the client gets
// the 410. The end of an initial state without a bookmark shows only in an event of another type:
// before that, the sidecar does not know where the client is, and the watch ends.
func (w *world) expire(p *program, slot int) error {
	s := p.streams[slot]
	if s == nil || s.events == nil || s.last < 0 || len(s.initial) > 0 || s.ending || s.ask.legacy || s.ask.scope.selector == byShard {
		return nil
	}
	if s.ask.start == fromState && !s.over {
		w.unwatch(p, slot)
		return nil
	}
	again := s.ask
	again.verb = list
	if err := w.flush(); err != nil {
		return err
	}
	sent, err := w.sent(p, s)
	if errors.Is(err, replay.ErrNotRecorded) || w.server.opaque || w.server.latest().refuses(p.principal, again) {
		w.unwatch(p, slot)
		return nil
	}
	got := outcome{code: http.StatusOK, form: s.ask.form, version: w.server.revisions[s.last].version, objects: sent}
	v := violation{program: p.principal, ask: s.ask, answer: got.String()}
	switch {
	case err != nil:
		v.rule, v.why = unreadable, err.Error()
		return &v
	case !w.equal(s.last, s.ask.scope, got):
		v.rule, v.why = invented, fmt.Sprintf("it is not what the client of the watch was sent up to revision %d", s.last)
		return &v
	}
	return w.catchUp(p, s)
}

// sent is the state that the client of a watch was sent, as the cache has it.
func (w *world) sent(p *program, s *stream) (objects []object, err error) {
	state, err := w.cache.StateAt(context.Background(), w.question(p, s.ask), s.ask.form.split(), w.server.revisions[s.last].version)
	if err != nil {
		return nil, err
	}
	err = state.Each(func(o store.Object) error {
		one, _, err := decode(s.ask.scope.kind, state.Typed(o))
		objects = append(objects, one...)
		return err
	})
	return objects, err
}

// catchUp sends the difference between where the client of a watch was and now.
func (w *world) catchUp(p *program, s *stream) error {
	now := w.server.now()
	var gone, made []frame
	for _, k := range universe {
		before, after := w.server.view(s.last, s.ask.scope, k), w.server.view(now, s.ask.scope, k)
		if before == after {
			continue
		}
		told := observation{at: now, version: w.server.revisions[now].version, uid: cmp.Or(after.uid, before.uid), lag: true, event: true}
		f := frame{wire.Modified, nil, map[key]observation{k: told}, false}
		if before.uid != after.uid && before != (object{}) {
			before.version = w.server.revisions[s.last].version
			told.gone = after == object{} && w.server.view(now, scope{kind: k.kind}, k).uid != before.uid
			gone = append(gone, frame{wire.Deleted, before.encode(s.ask.form), map[key]observation{k: told}, false})
			f.event = wire.Added
		}
		if before == (object{}) {
			f.event = wire.Added
		}
		if after != (object{}) {
			f.body = after.encode(s.ask.form)
			made = append(made, f)
		}
	}
	var changes []record.Change
	for _, f := range append(gone, made...) {
		m, err := s.ask.form.split().Format.ParseMeta(f.body)
		if err != nil {
			return err
		}
		changes = append(changes, record.Change{Event: wire.Event{Type: f.event, Object: f.body}, Meta: m})
		for k, o := range f.told {
			o.sent, o.came = w.tick, w.tick
			w.tell(p, k, o)
		}
	}
	slices.SortStableFunc(changes[len(gone):], func(a, b record.Change) int {
		n, _ := number(a.ResourceVersion)
		m, _ := number(b.ResourceVersion)
		return cmp.Compare(n, m)
	})
	s.at, s.last = now, now
	s.events.Difference(changes, w.server.revisions[now].version)
	return nil
}

// split is the form as the sidecar names it, if it can split it into objects.
func (f form) split() request.Form {
	out := request.Form{Format: wire.FormatOf(f.mediaType()), Representation: request.Object}
	if f.isMetadata() {
		out.Representation = request.Metadata
	}
	return out
}
