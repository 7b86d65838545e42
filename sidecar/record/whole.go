package record

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// maxWholes bounds, in bytes, all bodies together that are kept whole until they have
// ended. One that finds no room is not recorded.
const maxWholes = 2 * wire.MaxValue

// whole collects a body up to a size and hands it on when it ended well.
type whole struct {
	recorder *Recorder
	max      int
	buf      bytes.Buffer
	over     bool
	done     func([]byte)
}

func (r *Recorder) whole(most int, done func([]byte)) *whole {
	return &whole{recorder: r, max: most, done: done}
}

func (w *whole) write(p []byte) {
	if w.over {
		return
	}
	n := int64(len(p))
	if all := w.recorder.wholes.Add(n); all > maxWholes || w.buf.Len()+len(p) > w.max {
		w.recorder.wholes.Add(-n)
		w.drop()
		return
	}
	w.buf.Write(p)
}

// drop gives up. Nothing is taken any more.
func (w *whole) drop() {
	w.over = true
	w.free()
}

func (w *whole) free() {
	w.recorder.wholes.Add(-int64(w.buf.Len()))
	w.buf = bytes.Buffer{}
}

func (w *whole) end(ok bool) {
	raw := w.buf.Bytes()
	w.free()
	if ok && !w.over && len(raw) > 0 {
		w.done(raw)
	}
}

// teeObject records the body of a successful GET of one object while it is read: as an
// object, or if it is none, such as a Table, whole for the identical request.
func (r *Recorder) teeObject(source Source, format wire.Format, resp *http.Response) io.ReadCloser {
	if format == nil { // CBOR, YAML: it cannot be read
		return r.teeDocument(source, format, resp)
	}
	return newTee(resp, r.whole(wire.MaxValue, func(raw []byte) {
		m, err := format.ParseMeta(raw)
		if err == nil && !r.seen(source, format, raw, m) {
			r.keep(&source, source.document(format.MediaType()), raw)
		}
	}))
}

// seen records an object, unless it is none.
func (r *Recorder) seen(source Source, format wire.Format, raw []byte, m wire.Meta) bool {
	rep, ok := representation(m.Kind)
	if !ok || m.Name == "" {
		return false
	}
	form := request.Form{Format: format, Representation: rep}
	o := objectRow(form, raw, m)
	o.UpdatedAt = r.clock.Now()
	if !r.enqueue(see{source.seenScope(form), m.Kind, m.APIVersion, o, &source}) && source.latest() {
		r.doubt(&source, o.Namespace, o.Name)
	}
	return true
}

// either records the answer to a LIST, which shows only while it is read whether it
// can be cut into objects. Until then, which is before the first item of a list, it is
// cut and kept whole as well.
type either struct {
	list   *list
	whole  *whole
	choice sink
}

func (e *either) write(p []byte) {
	if e.choice != nil {
		e.choice.write(p)
		return
	}
	e.list.write(p)
	e.whole.write(p)
	failed := e.list.failure != nil
	switch kind := e.list.split.Peek().Kind; {
	case e.list.snap != nil, errors.Is(e.list.failure, errNotFirst), failed && kind == "":
		e.choose(e.list) // which may have failed, too: then nothing is recorded
	case failed, kind != "" && !isList(kind):
		e.choose(e.whole)
	}
}

func (e *either) choose(s sink) {
	if e.choice = s; s != e.whole {
		e.whole.drop()
	}
}

func (e *either) end(ok bool) {
	if e.choice == nil {
		head, err := e.list.split.ListMeta()
		if ok && err == nil && (!head.HasItems || head.ResourceVersion == "") {
			e.choose(e.whole)
		} else {
			e.choose(e.list)
		}
	}
	e.choice.end(ok)
}

// seeKey is the object that an operation see is about.
type seeKey struct {
	scope           store.Scope
	namespace, name string
}

func (s see) key() seeKey { return seeKey{s.scope, s.object.Namespace, s.object.Name} }

// repeats tells that an operation says no more than one that waits in the queue with
// nothing but such operations behind it: programs poll.
func (s see) repeats(waiting see) bool {
	a, b := s.object, waiting.object
	return a.UID == b.UID && a.ResourceVersion == b.ResourceVersion && a.Encoding == b.Encoding && bytes.Equal(a.Payload, b.Payload)
}

type see struct {
	scope            store.Scope
	kind, apiVersion string
	object           store.Object
	source           *Source
}

func (s see) size() int { return len(s.object.Payload) + len(s.object.Labels) + overhead }
func (s see) lost()     {}
func (s see) apply(g *group) error {
	// From a cache of the server that lags it would be an old story.
	if s.source.latest() {
		if err := g.tx.DropTombstone(s.scope, s.object.Namespace, s.object.Name, s.source.Started); err != nil {
			return err
		}
	}
	return g.tx.PutSingle(s.scope, s.kind, s.apiVersion, s.object)
}

// Link records a change of the link.
func (r *Recorder) Link(state, reason string) { r.enqueue(link{state, reason}) }

type link struct{ state, reason string }

func (link) size() int              { return overhead }
func (link) lost()                  {}
func (l link) apply(g *group) error { return g.tx.PutLink(l.state, l.reason) }
