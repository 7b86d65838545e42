package record

import (
	"bytes"
	"io"
	"net/http"

	"rockpool.dev/sidecar/request"
	"rockpool.dev/sidecar/wire"
	"rockpool.dev/store"
)

// maxDocument bounds an answer that is kept whole, in bytes.
const maxDocument = 4 << 20

// Written records the body of the answer to a write while it is read: the object
// as it is now, or a Status that says that it is gone. So the pod's own last write
// is what it reads offline, also when its watch had not brought it back yet.
func (r *Recorder) Written(source Source, format wire.Format, body io.ReadCloser) io.ReadCloser {
	return &tee{body: body, sink: &whole{max: wire.MaxValue, done: func(raw []byte) {
		if m, err := format.ParseMeta(raw); err == nil && m.Kind == "Status" && source.Info.Verb == request.Delete {
			r.Absent(source)
			return
		}
		r.seen(source, format, raw)
	}}}
}

// Object records the body of a successful GET of one object while it is read.
func (r *Recorder) Object(source Source, format wire.Format, body io.ReadCloser) io.ReadCloser {
	return &tee{body: body, sink: &whole{max: wire.MaxValue, done: func(raw []byte) { r.seen(source, format, raw) }}}
}

func (r *Recorder) seen(source Source, format wire.Format, raw []byte) {
	m, err := format.ParseMeta(raw)
	if err != nil || m.Name == "" {
		return
	}
	rep, ok := representation(m.Kind)
	if !ok {
		return
	}
	form := request.Form{Format: format, Representation: rep}
	r.enqueue(see{source.seenScope(form), m.Kind, m.APIVersion, objectRow(form, raw, m)})
}

// Absent records that the server says there is no such object.
func (r *Recorder) Absent(source Source) {
	r.enqueue(undocument{source.Principal, source.Path})
	for _, format := range []wire.Format{wire.JSON, wire.Protobuf} {
		for _, rep := range []request.Representation{request.Object, request.Metadata} {
			r.enqueue(unsee{source.seenScope(request.Form{Format: format, Representation: rep}), source.Info.Namespace, source.Info.Name})
		}
	}
}

// Forbidden records that the server does not allow the request any more: what it
// allowed before is not answered from the cache.
func (r *Recorder) Forbidden(source Source) {
	switch source.Info.Verb {
	case request.List, request.Watch:
		r.enqueue(forbid{source.scope(request.Form{Format: wire.JSON, Representation: request.Object})})
	case request.Get:
		r.Absent(source)
	}
	r.enqueue(undocument{source.Principal, source.Path})
}

// Document records an answer whole, for the identical request.
func (r *Recorder) Document(source Source, resp *http.Response) io.ReadCloser {
	answer := store.Response{
		Principal: source.Principal, Path: source.Path, Accept: source.Info.RawAccept,
		Status: resp.StatusCode, MediaType: resp.Header.Get("Content-Type"), ETag: resp.Header.Get("ETag"),
	}
	return &tee{body: resp.Body, sink: &whole{max: maxDocument, done: func(raw []byte) {
		if source.Info.IsResource && isPage(raw) {
			return
		}
		answer.Body = raw
		r.enqueue(document{answer})
	}}}
}

// isPage tells that a Table is not all of its list.
func isPage(table []byte) bool {
	l := wire.JSON.NewList(func([]byte) error { return nil })
	if _, err := l.Write(table); err != nil {
		return false // whatever it is
	}
	head, err := l.Head()
	return err == nil && head.Continue != ""
}

// Link records a change of the link.
func (r *Recorder) Link(state, reason string) { r.enqueue(link{state, reason}) }

// whole collects a body up to a size and hands it on when it ended well.
type whole struct {
	max  int
	buf  bytes.Buffer
	over bool
	done func([]byte)
}

func (w *whole) write(p []byte) {
	if w.over = w.over || w.buf.Len()+len(p) > w.max; w.over {
		w.buf = bytes.Buffer{}
		return
	}
	w.buf.Write(p)
}

func (w *whole) end(ok bool) {
	if ok && !w.over && w.buf.Len() > 0 {
		w.done(w.buf.Bytes())
	}
}

type see struct {
	scope            store.Scope
	kind, apiVersion string
	object           store.Object
}

func (s see) size() int { return len(s.object.Payload) + len(s.object.Labels) + overhead }
func (s see) lost()     {}
func (s see) apply(g *group) error {
	return g.tx.See(s.scope, s.kind, s.apiVersion, s.object)
}

type unsee struct {
	scope           store.Scope
	namespace, name string
}

func (unsee) size() int              { return overhead }
func (unsee) lost()                  {}
func (u unsee) apply(g *group) error { return g.tx.Unsee(u.scope, u.namespace, u.name) }

type document struct{ store.Response }

func (d document) size() int            { return len(d.Body) + overhead }
func (document) lost()                  {}
func (d document) apply(g *group) error { return g.tx.PutResponse(d.Response) }

type forbid struct{ scope store.Scope }

func (forbid) size() int { return overhead }
func (forbid) lost()     {}
func (f forbid) apply(g *group) error {
	// The heads of what is deleted are not known by their scopes.
	if err := g.settle(); err != nil {
		return err
	}
	return g.tx.Forbid(f.scope)
}

type undocument struct{ principal, path string }

func (undocument) size() int              { return overhead }
func (undocument) lost()                  {}
func (u undocument) apply(g *group) error { return g.tx.RemoveResponse(u.principal, u.path) }

type link struct{ state, reason string }

func (link) size() int              { return overhead }
func (link) lost()                  {}
func (l link) apply(g *group) error { return g.tx.PutLink(l.state, l.reason) }
