package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	operator "k8s.io/apimachinery/pkg/selection"

	"rockpool.dev/sidecar/request"
	"rockpool.dev/sidecar/wire"
	"rockpool.dev/store"
)

// selection is a complete collection and what of it was asked for.
type selection struct {
	collection store.Collection
	form       request.Form
	within     store.Range
	labels     labels.Selector // nil: all
}

// cover finds the newest complete collection that has everything asked for.
func (r *Replayer) cover(ctx context.Context, q Request) (selection, error) {
	info := q.Info
	if info.Continue != "" {
		return selection{}, apierrors.NewResourceExpired("The provided continue parameter is from before the link to the API server went down. Start the list without it.")
	}
	all, err := r.db.Collections(ctx, q.Principal, info.Group, info.Version, info.Resource)
	if err != nil {
		return selection{}, err
	}
	for _, form := range info.Forms() {
		var best *selection
		for _, c := range all {
			if c.State != store.Complete || !isForm(c, form) {
				continue
			}
			s, ok := narrow(c, info)
			if ok && (best == nil || newer(c.ResourceVersion, best.collection.ResourceVersion) || (c.ResourceVersion == best.collection.ResourceVersion && exact(c, info))) {
				best = &s
			}
		}
		if best != nil {
			best.form = form
			r.used(best.collection.ID)
			return *best, atVersion(best.collection, info)
		}
	}
	return selection{}, fmt.Errorf("%w: no complete list of %s covers this request", ErrNotRecorded, info.Resource)
}

func exact(c store.Collection, info request.Info) bool {
	return c.Namespace == info.Namespace && c.LabelSelector == info.LabelSelector && c.FieldSelector == info.FieldSelector
}

// narrow tells whether what was asked for can be had from the collection, and
// how.
func narrow(c store.Collection, info request.Info) (selection, bool) {
	s := selection{collection: c}
	if c.Namespace != info.Namespace {
		if c.Namespace != "" {
			return s, false
		}
		s.within.Namespace = info.Namespace
	}
	if c.LabelSelector != info.LabelSelector {
		selector, err := labels.Parse(info.LabelSelector)
		if c.LabelSelector != "" || err != nil {
			return s, false
		}
		s.labels = selector
	}
	if c.FieldSelector == info.FieldSelector {
		return s, true
	}
	selector, err := fields.ParseSelector(info.FieldSelector)
	if c.FieldSelector != "" || err != nil {
		return s, false
	}
	// Which other fields can be selected by is the server's knowledge, a resource
	// at a time; these two it has for all.
	for _, req := range selector.Requirements() {
		value, isEqual := req.Value, req.Operator != operator.NotEquals
		switch {
		case isEqual && value != "" && req.Field == "metadata.name" && (s.within.Name == "" || s.within.Name == value):
			s.within.Name = value
		case isEqual && value != "" && req.Field == "metadata.namespace" && (s.within.Namespace == "" || s.within.Namespace == value) && (c.Namespace == "" || c.Namespace == value):
			s.within.Namespace = value
		default:
			return s, false
		}
	}
	return s, true
}

// atVersion tells whether a collection may answer for the resourceVersion asked
// for (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions).
func atVersion(c store.Collection, info request.Info) error {
	rv := info.ResourceVersion
	if rv == "" || rv == "0" {
		return nil
	}
	if info.ResourceVersionMatch == "Exact" {
		if rv != c.ResourceVersion {
			return apierrors.NewResourceExpired("The resourceVersion asked for is not the one that was recorded before the link to the API server went down.")
		}
		return nil
	}
	if newer(rv, c.ResourceVersion) {
		return tooLarge()
	}
	return nil
}

func (r *Replayer) list(ctx context.Context, q Request) (answer, error) {
	s, err := r.cover(ctx, q)
	if err != nil {
		return answer{}, err
	}
	body := &listBody{pages: pages{ctx: ctx, db: r.db, selection: s}, write: &jsonList{}}
	if s.form.Format == wire.Protobuf {
		body.write = &protobufList{}
	}
	if body.buf, err = body.write.begin(&body.pages); err != nil {
		return answer{}, err
	}
	at := s.collection.SyncedAt
	return answer{r.response(http.StatusOK, http.Header{"Content-Type": {s.collection.MediaType}}, at, body, -1), at}, nil
}

// pages reads a selection page by page. It holds a context because it is part of
// a body, whose Read has none.
type pages struct {
	ctx context.Context
	db  *store.DB
	selection
	done bool
}

// next calls f with each object of the next page that is selected.
func (p *pages) next(f func(store.Object) error) error {
	key, err := p.db.List(p.ctx, p.collection.ID, p.collection.Revision, p.within, func(o store.Object) error {
		if ok, err := p.selects(o.Labels); err != nil || !ok {
			return err
		}
		return f(o)
	})
	p.within.After, p.done = key, key == nil
	return err
}

func (s *selection) selects(object string) (bool, error) {
	if s.labels == nil {
		return true, nil
	}
	var set labels.Set
	if err := json.Unmarshal([]byte(object), &set); err != nil {
		return false, fmt.Errorf("collection %d: labels: %w: %w", s.collection.ID, store.ErrCorrupt, err)
	}
	return s.labels.Matches(set), nil
}

// listBody is a list, made as it is read.
type listBody struct {
	pages
	write listWriter
	buf   []byte
	off   int
	ended bool
}

// listWriter puts a list together in one format.
type listWriter interface {
	// begin gives what stands before the items.
	begin(*pages) ([]byte, error)
	item(dst, payload []byte) []byte
	end(dst []byte) []byte
}

var _ io.ReadCloser = (*listBody)(nil)

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

func (b *listBody) fill() error {
	b.buf, b.off = b.buf[:0], 0
	if b.done {
		b.buf, b.ended = b.write.end(b.buf), true
		return nil
	}
	return b.next(func(o store.Object) error {
		b.buf = b.write.item(b.buf, o.Payload)
		return nil
	})
}

func (b *listBody) Close() error {
	b.ended, b.buf, b.off = true, nil, 0
	return nil
}

// envelope is the list's own data as it was recorded.
type envelope struct {
	Kind       string                     `json:"kind"`
	APIVersion string                     `json:"apiVersion"`
	Metadata   map[string]json.RawMessage `json:"metadata"`
}

func envelopeOf(c store.Collection) (e envelope, err error) {
	if err := json.Unmarshal([]byte(c.Envelope), &e); err != nil {
		return e, fmt.Errorf("collection %d: envelope: %w: %w", c.ID, store.ErrCorrupt, err)
	}
	return e, nil
}

type jsonList struct{ listed bool }

func (*jsonList) begin(p *pages) ([]byte, error) {
	e, err := envelopeOf(p.collection)
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

// protobufList says its length first, which takes a look at the sizes of all
// items.
type protobufList struct{}

func (protobufList) begin(p *pages) ([]byte, error) {
	e, err := envelopeOf(p.collection)
	if err != nil {
		return nil, err
	}
	total := 0
	err = p.db.Measure(p.ctx, p.collection.ID, p.collection.Revision, p.within, func(object string, size int) error {
		ok, err := p.selects(object)
		if ok {
			total += wire.ItemSize(size)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return wire.AppendListHead(nil, e.Kind, e.APIVersion, p.collection.ResourceVersion, total), nil
}

func (protobufList) item(dst, payload []byte) []byte { return wire.AppendItem(dst, payload) }
func (protobufList) end(dst []byte) []byte           { return dst }
