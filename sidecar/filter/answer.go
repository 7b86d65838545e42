package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/filter/rule"
	"rockpool.dev/sidecar/tally"
)

// room is by how many bytes the objects of a protobuf list may grow: those of the API server's own
// Service, whose addresses are replaced.
const room = 1 << 10

// formatOf returns the format of an answer, nil if objects cannot be cut out of it.
func (q *query) formatOf(resp *http.Response) wire.Format {
	format := wire.FormatOf(resp.Header.Get("Content-Type"))
	if format != nil && resp.Header.Get("Content-Encoding") == "" {
		return format
	}
	q.filter.Repeated.Write(tally.Line{
		Level: zap.InfoLevel, Message: "an answer in this form cannot be filtered; it passes unchanged",
		Kind: []zap.Field{zap.String("resource", q.resource.String()), zap.String("contentType", resp.Header.Get("Content-Type"))},
	})
	return nil
}

// changed drops the header fields that are true of the unfiltered body alone.
func changed(resp *http.Response) {
	resp.ContentLength = -1
	for _, name := range []string{"Content-Length", "ETag", "Content-Md5", "Digest", "Repr-Digest", "Content-Digest"} {
		resp.Header.Del(name)
	}
}

// object filters the answer to a GET. An object that is filtered away is 404.
func (q *query) object(resp *http.Response) (*http.Response, error) {
	format := q.formatOf(resp)
	if format == nil {
		return resp, nil
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, wire.MaxValue+1))
	if err != nil || len(raw) > wire.MaxValue {
		resp.Body = &joined{io.MultiReader(bytes.NewReader(raw), &failing{err, resp.Body}), resp.Body}
		return resp, nil
	}
	_ = resp.Body.Close()
	edited, keep := q.alone(&q.view, format, raw)
	if !keep {
		hiddenObjects.WithLabelValues(q.resource.String()).Inc()
		return notFound(q, format, resp), nil
	}
	if !same(edited, raw) {
		changedObjects.WithLabelValues(q.resource.String()).Inc()
		changed(resp)
		resp.ContentLength = int64(len(edited))
		resp.Header.Set("Content-Length", strconv.Itoa(len(edited)))
	}
	resp.Body = io.NopCloser(bytes.NewReader(edited))
	return resp, nil
}

// joined is a body of which a part was read already.
type joined struct {
	io.Reader
	io.Closer
}

// failing returns its error, or else goes on reading.
type failing struct {
	err error
	io.Reader
}

func (f *failing) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.Reader.Read(p)
}

// same reports whether two slices are the same bytes in memory.
func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// alone filters an object, or a Table, that stands alone. It returns object itself if nothing changes.
func (q *query) alone(v *view, format wire.Format, object []byte) (edited []byte, keep bool) {
	inner, err := format.Inner(object)
	if err != nil {
		q.filter.failed("", q.resource, err)
		return object, true
	}
	if isTable(format, inner) {
		return q.table(v, object)
	}
	edited, keep = q.apply(v, &rule.Object{Format: format, Resource: q.resource, Raw: inner})
	if !keep || same(edited, inner) {
		return object, keep
	}
	return wrap(format, object, edited), true
}

// wrap gives an edited inner part the envelope of the object that it is from.
func wrap(format wire.Format, object, edited []byte) []byte {
	if format == wire.JSON {
		return edited
	}
	m, err := format.ParseMeta(object)
	if err != nil {
		return object // it was parsed before
	}
	return format.AppendTyped(nil, m.Kind, m.APIVersion, edited)
}

// notFound is the API server's answer for an object that does not exist, in the form of the object.
func notFound(q *query, format wire.Format, resp *http.Response) *http.Response {
	status := apierrors.NewNotFound(q.resource, q.info.Name).ErrStatus
	raw := encodeStatus(format, status)
	changed(resp)
	resp.StatusCode, resp.Status = http.StatusNotFound, "404 Not Found"
	resp.Header.Set("Content-Type", format.MediaType())
	resp.Header.Set("Content-Length", strconv.Itoa(len(raw)))
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	return resp
}

// encodeStatus returns a Status that stands alone.
func encodeStatus(format wire.Format, status metav1.Status) []byte {
	var raw []byte
	var err error
	if format == wire.Protobuf {
		status.TypeMeta = metav1.TypeMeta{}
		if raw, err = status.Marshal(); err == nil {
			raw = format.AppendTyped(nil, "Status", "v1", raw)
		}
	} else {
		status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		raw, err = json.Marshal(status)
	}
	if err != nil { // a Status always marshals
		panic(err)
	}
	return raw
}

// past begins the past of a client that lists. A further page goes on with the past and the view of
// the pages before it.
func (q *query) past() (*past, error) {
	if q.info.Verb != request.List {
		return nil, nil
	}
	scope := q.scope()
	p := &past{scope: scope, view: q.view, hidden: map[uint64]struct{}{}}
	if token := q.info.Continue; token != "" {
		before := q.filter.pasts.find(scope, func(p *past) bool { return p.precedes(token) })
		if before == nil { // the pages before may have been filtered in another way
			unknownPast.Inc()
			return nil, expired("the pages of this list before were not read through this sidecar, or too long ago")
		}
		p = before.copy()
		q.view = p.view
	}
	return p, nil
}

// expired is the API server's answer to a client that has to list again.
func expired(why string) error {
	return apierrors.NewResourceExpired("rockpool: " + why)
}

// list filters the answer to a LIST while the client reads it.
func (q *query) list(resp *http.Response, p *past) {
	format := q.formatOf(resp)
	if format == nil {
		return
	}
	b := &list{query: q, past: p, format: format, body: resp.Body, changed: changedObjects.WithLabelValues(q.resource.String())}
	b.rewriter = format.NewRewriter(b.item, room)
	resp.Body = b
	changed(resp)
}

// list is the body of a filtered list.
type list struct {
	*query
	past     *past
	format   wire.Format
	body     io.ReadCloser
	rewriter wire.Rewriter
	table    bool
	object   rule.Object // the present item, here so that it takes no memory of its own
	changed  prometheus.Counter
	out      []byte
	off      int
	err      error
}

// buffers holds bytes from below until they are filtered.
var buffers = sync.Pool{New: func() any {
	buf := make([]byte, 32<<10)
	return &buf
}}

// leastRead is how many bytes a read returns at least, except at the end. What an item adds to a
// chunk from below would otherwise be written and flushed alone.
const leastRead = 4 << 10

func (b *list) Read(p []byte) (int, error) {
	for b.err == nil && len(b.out)-b.off < min(leastRead, len(p)) {
		b.out, b.off = b.out[:copy(b.out, b.out[b.off:])], 0
		buf := buffers.Get().(*[]byte)
		n, err := b.body.Read(*buf)
		b.out = b.rewriter.Append(b.out, (*buf)[:n])
		buffers.Put(buf)
		if err != nil {
			b.err = err
			b.end()
		}
	}
	n := copy(p, b.out[b.off:])
	if b.off += n; n == 0 {
		return 0, b.err
	}
	return n, nil
}

func (b *list) item(raw []byte) ([]byte, bool) {
	if b.format == wire.JSON && (b.table || b.rewriter.Peek().Kind == kindTable) {
		b.table = true
		return b.row(&b.view, raw, b.hide)
	}
	b.object = rule.Object{Format: b.format, Resource: b.resource, Raw: raw}
	edited, keep := b.apply(&b.view, &b.object)
	if !keep {
		b.hide(&b.object)
	} else if !same(edited, raw) {
		b.changed.Inc()
	}
	return edited, keep
}

// hide notes that the client does not see an object.
func (b *list) hide(o *rule.Object) {
	hiddenObjects.WithLabelValues(b.resource.String()).Inc()
	key, err := o.Key()
	if err != nil {
		return // a filter has read it
	}
	b.past.mu.Lock()
	defer b.past.mu.Unlock()
	b.past.hidden[b.filter.pasts.hash(key)] = struct{}{}
}

// end is the end of the body. The client is now where the list is.
func (b *list) end() {
	meta := b.rewriter.Peek()
	if err := b.rewriter.Err(); err != nil {
		b.filter.failed("", b.resource, err)
	}
	if !errors.Is(b.err, io.EOF) || meta.ResourceVersion == "" {
		return
	}
	b.past.next = meta.Continue
	b.past.set(meta.ResourceVersion)
	b.filter.pasts.add(b.past)
}

func (b *list) Close() error { return b.body.Close() }
