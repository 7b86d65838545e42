package filter

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/filter/rule"
)

// maxReads is for how many Services what belongs to them is read one by one. For more of them, all is
// read at once.
const maxReads = 4

// correction brings a watch from one view to the next: it reads the objects again whose outcome may
// differ, and sends the difference. What has changed since the watch's position comes by the watch
// itself, through the next view.
type correction struct {
	next  view
	reads []read // that are to be done, the first one now
	begun bool   // something was sent, or a read is done
	sent  bool

	body  io.ReadCloser
	split wire.ListSplitter
}

// read is what to list: the watch's scope, or what of it belongs to a Service.
type read struct{ service types.NamespacedName }

func (c *correction) close() {
	if c.body != nil {
		_ = c.body.Close()
		c.body = nil
	}
}

// look begins a correction if the view has changed.
func (w *watch) look() {
	if w.initial || w.retry != nil {
		return
	}
	next := w.now()
	if next.chain.Needs != (rule.Needs{}) {
		w.inform(next.chain.Needs)
		next = w.now()
	}
	reads := w.affected(&w.past.view, &next)
	if len(reads) == 0 {
		w.adopt(next)
		return
	}
	w.correction = &correction{next: next, reads: reads}
}

// inform has a follower read what new settings need. The watch is woken when it is known.
func (w *watch) inform(n rule.Needs) {
	if w.follower == nil {
		q := *w.query
		q.view.chain.Needs = n
		w.follower = w.filter.follow(&q)
		w.follower.subscribe(w)
		return
	}
	w.follower.mu.Lock()
	defer w.follower.mu.Unlock()
	if !w.follower.has(n) {
		w.follower.want(n)
	}
}

func (w *watch) adopt(v view) {
	w.past.mu.Lock()
	defer w.past.mu.Unlock()
	w.past.view = v
}

// affected returns what is to be read again between two views.
func (w *watch) affected(a, b *view) []read {
	if a.context == b.context && a.settings == b.settings {
		return nil
	}
	everything := []read{{}}
	if a.settings != b.settings && !a.settings.alike(b.settings, w.resource, w.request.UserAgent()) {
		return everything
	}
	x, y := a.context, b.context
	needs := b.chain.Needs
	if needs.Services && x.DropUnknown != y.DropUnknown {
		return everything
	}
	if needs.Node && !maps.Equal(x.Node.Labels, y.Node.Labels) || needs.Pool && x.Node.Pool.Name != y.Node.Pool.Name {
		return everything
	}
	if !needs.Services {
		return nil
	}
	var services []read
	moved := map[rule.Topology]bool{
		rule.TopologyNode: x.Node.Name != y.Node.Name,
		rule.TopologyPool: !x.Node.Pool.Equal(&y.Node.Pool),
		rule.TopologyZone: !x.Node.Zone.Equal(&y.Node.Zone) || !x.Node.Pool.Equal(&y.Node.Pool),
	}
	for key, s := range y.Services {
		if x.Services[key] != s || moved[s.Topology] {
			services = append(services, read{key})
		}
	}
	for key := range x.Services {
		if _, ok := y.Services[key]; !ok {
			services = append(services, read{key})
		}
	}
	services = slices.DeleteFunc(services, func(r read) bool { return w.info.Namespace != "" && r.service.Namespace != w.info.Namespace })
	if len(services) > maxReads {
		return everything
	}
	return services
}

// listRequest reads what a watch has, or what among it belongs to a Service.
func (w *watch) listRequest(r read) *http.Request {
	path, labels, selector := w.info.Path, w.info.LabelSelector, w.info.FieldSelector
	if r.service.Name != "" {
		if w.info.Namespace == "" {
			i := strings.LastIndexByte(path, '/')
			path = path[:i] + "/namespaces/" + r.service.Namespace + path[i:]
		}
		if w.resource != rule.EndpointSlices { // it has the name of its Service, or is that itself
			selector = joinSelectors(selector, fields.OneTermEqualSelector("metadata.name", r.service.Name).String())
		} else {
			labels = joinSelectors(labels, rule.LabelServiceName+"="+r.service.Name)
		}
	}
	query := url.Values{}
	for name, value := range map[string]string{"labelSelector": labels, "fieldSelector": selector} {
		if value != "" {
			query.Set(name, value)
		}
	}
	accept := w.form.AcceptList()
	if len(w.info.Accept) > 0 && w.info.Accept[0].As == kindTable {
		accept = w.info.RawAccept
	}
	return w.filter.requestOf(w.ctx, w.request, path, query.Encode(), accept)
}

func joinSelectors(a, b string) string {
	if a == "" {
		return b
	}
	return a + "," + b
}

// correct makes the next progress of a correction.
func (w *watch) correct() {
	c := w.correction
	if c.body == nil {
		resp, err := w.filter.Next.RoundTrip(w.listRequest(c.reads[0]))
		if err == nil && (resp.StatusCode != http.StatusOK || wire.FormatOf(resp.Header.Get("Content-Type")) != w.format) {
			_ = resp.Body.Close()
			err = errors.New(resp.Status)
		}
		if err != nil {
			w.postpone(err)
			return
		}
		c.body, c.split = resp.Body, w.format.NewList(w.difference)
		if w.format == wire.JSON {
			c.split = wire.NewRows(w.difference)
		}
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	n, err := c.body.Read(*buf)
	_, malformed := c.split.Write((*buf)[:n])
	if malformed != nil {
		err = malformed
	}
	if errors.Is(err, io.EOF) {
		if _, err = c.split.ListMeta(); err == nil {
			w.readDone()
			return
		}
	}
	if err != nil {
		w.postpone(err)
	}
}

// readDone goes on with the next read, or ends the correction.
func (w *watch) readDone() {
	c := w.correction
	c.close()
	c.begun = true
	if c.reads = c.reads[1:]; len(c.reads) > 0 {
		return
	}
	w.correction, w.failures = nil, 0
	corrections.WithLabelValues("corrected").Inc()
	p := w.past
	p.mu.Lock()
	p.view = c.next
	version := p.version
	p.mu.Unlock()
	// The objects sent have versions before the position. A client that begins again from the last
	// version it was sent shall not go back to them.
	if meta := c.split.Peek(); w.info.AllowWatchBookmarks && version != "" && meta.Kind != kindTable {
		w.out = w.format.AppendEvent(w.out, wire.Bookmark,
			w.format.Bookmark(strings.TrimSuffix(meta.Kind, "List"), meta.APIVersion, version, false))
	}
	w.wake() // the view may have changed again
}

// postpone takes note of a correction that failed. It is tried again from the start, or, if a part of
// it was sent, the client is sent to list again.
func (w *watch) postpone(err error) {
	c := w.correction
	c.close()
	w.correction = nil
	if w.ctx.Err() != nil {
		w.err = w.ctx.Err()
		return
	}
	if c.begun {
		corrections.WithLabelValues("relist").Inc()
		w.relist()
		return
	}
	corrections.WithLabelValues("deferred").Inc()
	wait := min(firstRetry<<min(w.failures, 10), lastRetry)
	w.failures++
	w.retry = w.filter.Clock.NewTimer(wait)
	w.filter.Logger.Debug("cannot correct a watch yet", zap.String("path", w.info.Path), zap.Duration("again", wait), zap.Error(err))
}

// relist ends the watch as the API server does when it has forgotten the version.
func (w *watch) relist() {
	status := metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: http.StatusGone, Reason: metav1.StatusReasonExpired, Message: "rockpool: the filters of this watch have changed; list again",
	}
	w.out = w.format.AppendEvent(w.out, wire.Error, encodeStatus(w.format, status))
	w.err = io.EOF
}

// send sends an event with an edited object in the form of raw, an item of a list.
func (w *watch) send(kind string, raw, edited []byte) {
	meta := w.correction.split.Peek()
	if meta.Kind == kindTable {
		w.out = w.format.AppendEvent(w.out, kind, tableOf(raw, edited))
		return
	}
	if w.format == wire.JSON { // items of custom resources have their kind
		if m, err := w.format.ParseMeta(edited); err == nil && m.Kind != "" {
			w.out = w.format.AppendEvent(w.out, kind, edited)
			return
		}
	}
	w.out = w.format.AppendEvent(w.out, kind, w.format.AppendTyped(nil, strings.TrimSuffix(meta.Kind, "List"), meta.APIVersion, edited))
}

// difference sends what differs for one object between the two views.
func (w *watch) difference(raw []byte) error {
	c, p := w.correction, w.past
	item := raw
	if c.split.Peek().Kind == kindTable {
		object, err := wire.JSON.First(raw, fieldObject)
		if err != nil || object == nil {
			return err
		}
		item = object
	}
	o := rule.Object{Format: w.format, Resource: w.resource, Raw: item}
	key, version, err := o.Identity()
	if err != nil {
		w.filter.failed("", w.resource, err)
		return nil
	}
	hash := w.filter.pasts.hash(key)
	if n := number(version); n > p.position {
		return nil // the watch has not got there, and will bring it
	}
	if _, ok := w.sent[hash]; w.sent != nil && !ok {
		return nil // likewise
	}
	before, shown := w.apply(&p.view, &o)
	now, keep := w.apply(&c.next, &o)
	equal := shown == keep && (!keep || string(before) == string(now))
	p.mu.Lock()
	if keep {
		delete(p.hidden, hash)
	} else {
		p.hidden[hash] = struct{}{}
	}
	p.mu.Unlock()
	if equal {
		return nil
	}
	// The object has the version that the client knows. Many clients take an event of a version
	// that they know for no change, so what changes goes and comes again.
	if c.begun = true; !c.sent {
		c.sent = true
		w.filter.pasts.correct(p)
	}
	if shown {
		w.send(wire.Deleted, raw, before)
	}
	if keep {
		w.send(wire.Added, raw, now)
	}
	return nil
}
