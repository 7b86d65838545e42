package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

func (r *Replayer) list(ctx context.Context, q Request) (*http.Response, error) {
	s, err := r.cover(ctx, q)
	if err != nil {
		return nil, err
	}
	return r.listOf(s, r.pages(ctx, s))
}

// listOf is the answer to a LIST of a selection, which pages read.
func (r *Replayer) listOf(s selection, from pages) (resp *http.Response, err error) {
	from.within.Payloads = s.convert == nil && s.labels == nil && len(s.fields) == 0
	body := &listBody{pages: from, write: &jsonList{}}
	if s.to.Format == wire.Protobuf {
		body.write = &protobufList{}
	}
	if body.buf, err = body.write.begin(&body.pages); err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {s.to.Format.MediaType()}}
	resp = r.response(http.StatusOK, header, s.collection.SyncedAt, nil)
	resp.Body, resp.ContentLength = body, -1
	return resp, nil
}

// pages reads a selection page by page. It holds a context because a body's Read has none.
type pages struct {
	ctx      context.Context
	replayer *Replayer
	from     reader
	selection
	buf  []byte // of the object that is being converted
	done bool
	// brokenOff is called when the collection is another one by now; nil: nobody is told.
	brokenOff func()
}

// reader is what pages are read from: a store.DB, or a store.Pin of it.
type reader interface {
	Holds(ctx context.Context, collection, revision int64) error
	List(ctx context.Context, collection, revision int64, r store.Range, f func(store.Object) error) (*store.Cursor, error)
	Measure(ctx context.Context, collection, revision int64, r store.Range, f func(labels string, size, count int) error) error
}

func (r *Replayer) pages(ctx context.Context, s selection) pages {
	return pages{ctx: ctx, replayer: r, from: r.db, selection: s}
}

// close ends a Pin.
func (p *pages) close() {
	if pin, ok := p.from.(*store.Pin); ok {
		pin.Close()
	}
}

// next calls f with each selected object of the next page, in the form that the client accepts. The
// payload is only valid during the call.
func (p *pages) next(f func(store.Object) error) error {
	key, err := p.from.List(p.ctx, p.collection.ID, p.collection.Revision, p.within, func(o store.Object) error {
		if ok, err := p.matches(o); err != nil || !ok {
			return err
		}
		o, err := p.converted(p.buf[:0], o)
		if err != nil {
			return fmt.Errorf("collection %d: %s/%s: %w", p.collection.ID, o.Namespace, o.Name, err)
		}
		if p.convert != nil {
			p.buf = o.Payload
		}
		return f(o)
	})
	p.within.After, p.done = key, key == nil
	if errors.Is(err, store.ErrChanged) && p.brokenOff != nil {
		p.brokenOff()
	}
	return p.replayer.damaged(p.collection.ID, err)
}

// measure adds up the sizes of the items in a protobuf list, without moving on. It reads payloads
// only to select by a field or to convert; the conversion is then done twice.
func (p *pages) measure() (total int, err error) {
	if p.convert == nil && len(p.fields) == 0 {
		err = p.from.Measure(p.ctx, p.collection.ID, p.collection.Revision, p.within, func(object string, size, count int) error {
			ok, err := p.matchesLabels(object)
			if ok {
				total += count * wire.ItemSize(size)
			}
			return err
		})
		return total, err
	}
	for rest := *p; err == nil && !rest.done; {
		err = rest.next(func(o store.Object) error {
			total += wire.ItemSize(len(o.Payload))
			return nil
		})
	}
	return total, err
}

// listBody is the body of a list, generated while it is read.
type listBody struct {
	pages
	write listWriter
	buf   []byte
	off   int
	ended bool
}

const (
	// largeList is how many bytes of a page show that the list is a large one.
	largeList = 32 << 10
	// pageSize is the size of most pages of a large list, in bytes.
	pageSize = 256 << 10
)

// listWriter generates a list in one format.
type listWriter interface {
	// begin returns the bytes before the items.
	begin(*pages) ([]byte, error)
	item(dst, payload []byte) []byte
	end(dst []byte) []byte
}

var (
	_ io.ReadCloser = (*listBody)(nil)
	_ io.WriterTo   = (*listBody)(nil)
)

func (b *listBody) Read(p []byte) (int, error) {
	for b.off == len(b.buf) {
		if b.ended {
			return 0, io.EOF
		}
		if err := b.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.buf[b.off:])
	b.off += n
	return n, nil
}

// WriteTo writes page by page: a smaller buffer would be another copy, and more writes.
func (b *listBody) WriteTo(w io.Writer) (written int64, err error) {
	for {
		if b.off < len(b.buf) {
			n, err := w.Write(b.buf[b.off:])
			b.off, written = b.off+n, written+int64(n)
			if err != nil {
				return written, err
			}
		}
		if b.ended {
			return written, nil
		}
		if err := b.fill(); err != nil {
			return written, err
		}
	}
}

// begin reads the first page.
func (b *listBody) begin() error {
	err := b.next(b.add)
	if b.done {
		b.close()
	}
	return err
}

func (b *listBody) add(o store.Object) error {
	if free := cap(b.buf) - len(b.buf); free < 2*len(o.Payload) && len(b.buf) > largeList {
		b.buf = slices.Grow(b.buf, pageSize) // at once, not in steps
	}
	b.buf = b.write.item(b.buf, o.Payload)
	return nil
}

func (b *listBody) fill() error {
	b.buf, b.off = b.buf[:0], 0
	if b.done {
		b.close()
		b.buf, b.ended = b.write.end(b.buf), true
		return nil
	}
	return b.next(b.add)
}

func (b *listBody) Close() error {
	b.close()
	b.ended, b.buf, b.off = true, nil, 0
	return nil
}

// envelope is the list without its items.
type envelope struct {
	Kind       string                     `json:"kind"`
	APIVersion string                     `json:"apiVersion"`
	Metadata   map[string]json.RawMessage `json:"metadata"`
}

// envelope returns the recorded envelope, with the kind that fits the objects after conversion.
func (s *selection) envelope() (e envelope, err error) {
	if err := json.Unmarshal([]byte(s.collection.Envelope), &e); err != nil {
		return e, fmt.Errorf("collection %d: envelope: %w: %w", s.collection.ID, store.ErrCorrupt, err)
	}
	if s.from.Representation != s.to.Representation {
		e.Kind, e.APIVersion = s.kind.Kind+"List", s.kind.APIVersion
	}
	return e, nil
}

type jsonList struct{ listed bool }

func (*jsonList) begin(p *pages) ([]byte, error) {
	e, err := p.envelope()
	if err != nil {
		return nil, err
	}
	if e.Metadata == nil {
		e.Metadata = map[string]json.RawMessage{}
	}
	version, err := json.Marshal(p.collection.ResourceVersion)
	if err != nil {
		return nil, err
	}
	e.Metadata["resourceVersion"] = version
	head, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("collection %d: envelope: %w", p.collection.ID, err)
	}
	return append(head[:len(head)-1], `,"items":[`...), nil
}

func (l *jsonList) item(dst, payload []byte) []byte {
	if l.listed {
		dst = append(dst, ',')
	}
	l.listed = true
	return append(dst, payload...)
}

func (*jsonList) end(dst []byte) []byte { return append(dst, "]}\n"...) }

// protobufList writes the length of the list first, so all items are measured before the first one
// is sent. If they are converted, that takes as long as sending them, and the memory of one item.
type protobufList struct{}

func (protobufList) begin(p *pages) ([]byte, error) {
	e, err := p.envelope()
	if err != nil {
		return nil, err
	}
	total, err := p.measure()
	if err != nil {
		return nil, err
	}
	return wire.AppendListHead(nil, e.Kind, e.APIVersion, p.collection.ResourceVersion, total), nil
}

func (protobufList) item(dst, payload []byte) []byte { return wire.AppendItem(dst, payload) }
func (protobufList) end(dst []byte) []byte           { return wire.AppendEnvelopeEnd(dst) }
