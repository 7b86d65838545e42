package filter

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/filters"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/filter/rule"
	"rockpool.dev/sidecar/tally"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// object is an API object that has both encodings.
type object interface {
	metav1.Object
	runtime.Object
	Marshal() ([]byte, error)
}

// change is one change of an object. Before is nil if it is created, after if it is deleted.
type change struct {
	resource      string
	before, after object
	version       int
}

// server is an API server in memory, which remembers all changes.
type server struct {
	t testing.TB

	mu      sync.Mutex
	more    *sync.Cond // there is another change
	version int
	objects map[string]map[string]object // by resource, namespace/name
	changes []change
	refused map[string]bool // resources that nobody may read
	down    bool
	listing func(resource string) // called before a list is answered; nil: nothing is
	era     int                   // goes up when streams break off
}

func newServer(t testing.TB) *server {
	s := &server{t: t, version: 100, objects: map[string]map[string]object{}, refused: map[string]bool{}}
	s.more = sync.NewCond(&s.mu)
	return s
}

var kinds = map[string][2]string{
	"services": {"Service", "v1"}, "endpoints": {"Endpoints", "v1"}, "nodes": {"Node", "v1"},
	"endpointslices": {"EndpointSlice", "discovery.k8s.io/v1"}, "nodepools": {"NodePool", "apps.openyurt.io/v1beta1"},
}

func resourceOf(o object) string {
	switch o.(type) {
	case *corev1.Service:
		return "services"
	case *corev1.Node:
		return "nodes"
	case *nodePool:
		return "nodepools"
	}
	return "endpointslices"
}

// put creates or replaces an object.
func (s *server) put(o object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	o = o.DeepCopyObject().(object)
	o.SetResourceVersion(strconv.Itoa(s.version))
	o.SetUID(types.UID("uid-" + o.GetName()))
	resource, key := resourceOf(o), o.GetNamespace()+"/"+o.GetName()
	if s.objects[resource] == nil {
		s.objects[resource] = map[string]object{}
	}
	s.changes = append(s.changes, change{resource, s.objects[resource][key], o, s.version})
	s.objects[resource][key] = o
	s.more.Broadcast()
}

// remove deletes an object.
func (s *server) remove(resource, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.objects[resource][key]
	if before == nil {
		return
	}
	s.version++
	before = before.DeepCopyObject().(object)
	before.SetResourceVersion(strconv.Itoa(s.version))
	s.changes = append(s.changes, change{resource, before, nil, s.version})
	delete(s.objects[resource], key)
	s.more.Broadcast()
}

func (s *server) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// breakOff breaks off all streams.
func (s *server) breakOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.era++
	s.more.Broadcast()
}

// selects reports whether a request is for an object.
func selects(i *request.Info, o object) bool {
	if o == nil || i.Namespace != "" && o.GetNamespace() != i.Namespace {
		return false
	}
	name, ok := strings.CutPrefix(i.FieldSelector, "metadata.name=")
	key, value, labelled := strings.Cut(i.LabelSelector, "=")
	return (!ok || o.GetName() == name) && (!labelled || o.GetLabels()[key] == value)
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	i := request.Parse(r)
	s.mu.Lock()
	listing := s.listing
	s.mu.Unlock()
	if listing != nil && i.Verb == request.List {
		listing(i.Resource)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, apierrors.NewServiceUnavailable("the link is down")
	}
	kind, known := kinds[i.Resource]
	code := http.StatusOK
	switch {
	case s.refused[i.Resource]:
		code = http.StatusForbidden
	case !known || i.Resource == "nodepools" && s.objects["nodepools"] == nil: // it is a custom resource
		code = http.StatusNotFound
	case i.Name != "" && s.objects[i.Resource][i.Namespace+"/"+i.Name] == nil:
		code = http.StatusNotFound
	}
	format := wire.JSON
	if strings.HasPrefix(i.RawAccept, wire.MediaTypeProtobuf) {
		format = wire.Protobuf
	}
	if code != http.StatusOK {
		return s.response(code, format.MediaType(), io.NopCloser(strings.NewReader("{}"))), nil
	}
	e := encoding{s.t, format, kind, strings.Contains(i.RawAccept, "as=PartialObjectMetadata"), strings.Contains(i.RawAccept, "as=Table")}
	switch i.Verb {
	case request.Get:
		raw := e.typed(s.objects[i.Resource][i.Namespace+"/"+i.Name])
		if e.table {
			raw = e.tableOf("", []object{s.objects[i.Resource][i.Namespace+"/"+i.Name]})
		}
		return s.response(code, format.MediaType(), io.NopCloser(strings.NewReader(string(raw)))), nil
	case request.Watch:
		from, _ := strconv.Atoi(i.ResourceVersion)
		w := &stream{server: s, encoding: e, info: i, era: s.era, next: slices.IndexFunc(s.changes, func(c change) bool { return c.version > from })}
		if w.next < 0 {
			w.next = len(s.changes)
		}
		if i.SendInitialEvents || from == 0 {
			w.begin()
		}
		return s.response(code, format.WatchMediaType(), w), nil
	}
	var all []object
	for _, o := range s.objects[i.Resource] {
		if selects(&i, o) {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b object) int { return strings.Compare(a.GetName(), b.GetName()) })
	return s.response(code, format.MediaType(), io.NopCloser(strings.NewReader(string(e.list(strconv.Itoa(s.version), all))))), nil
}

func (s *server) response(code int, mediaType string, body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: code, Status: strconv.Itoa(code), Header: http.Header{"Content-Type": {mediaType}, "Audit-Id": {"1"}}, Body: body, ContentLength: -1}
}

// encoding is how one answer is encoded.
type encoding struct {
	t        testing.TB
	format   wire.Format
	kind     [2]string // and apiVersion
	metadata bool
	table    bool
}

func (e *encoding) bare(o object) []byte {
	if e.metadata {
		o = &partial{metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			UID: o.GetUID(), Name: o.GetName(), Namespace: o.GetNamespace(), Labels: o.GetLabels(), Annotations: o.GetAnnotations(), ResourceVersion: o.GetResourceVersion(),
		}}}
	}
	raw, err := json.Marshal(o)
	if e.format == wire.Protobuf {
		raw, err = o.Marshal()
	}
	if err != nil {
		e.t.Fatal(err)
	}
	return raw
}

// partial is a PartialObjectMetadata as an object.
type partial struct{ metav1.PartialObjectMetadata }

func (e *encoding) typed(o object) []byte {
	kind, version := e.kind[0], e.kind[1]
	if e.metadata {
		kind, version = "PartialObjectMetadata", "meta.k8s.io/v1"
	}
	return e.format.AppendTyped(nil, kind, version, e.bare(o))
}

func (e *encoding) list(version string, all []object) []byte {
	kind, apiVersion := e.kind[0]+"List", e.kind[1]
	switch {
	case e.table:
		return e.tableOf(version, all)
	case e.metadata:
		kind, apiVersion = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	if e.format == wire.Protobuf {
		size := 0
		for _, o := range all {
			size += wire.ItemSize(len(e.bare(o)))
		}
		out := wire.AppendListHead(nil, kind, apiVersion, version, size)
		for _, o := range all {
			out = wire.AppendItem(out, e.bare(o))
		}
		return wire.AppendEnvelopeEnd(out)
	}
	items := make([]json.RawMessage, len(all))
	for i, o := range all {
		items[i] = e.bare(o)
	}
	raw, err := json.Marshal(map[string]any{"kind": kind, "apiVersion": apiVersion, "metadata": map[string]string{"resourceVersion": version}, "items": items})
	if err != nil {
		e.t.Fatal(err)
	}
	return raw
}

func (e *encoding) tableOf(version string, all []object) []byte {
	type row struct {
		Cells  []string        `json:"cells"`
		Object json.RawMessage `json:"object"`
	}
	rows := []row{}
	part := *e
	part.metadata = true
	for _, o := range all {
		rows = append(rows, row{[]string{o.GetName()}, part.typed(o)})
	}
	raw, err := json.Marshal(map[string]any{
		"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": map[string]string{"resourceVersion": version}, "rows": rows,
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return raw
}

// stream is the body of a watch.
type stream struct {
	*server
	encoding encoding
	info     request.Info
	next     int // index of the next change
	buf      []byte
	closed   bool
	era      int
}

// begin has the stream send the present state first. The lock is held.
func (w *stream) begin() {
	for _, o := range w.objects[w.info.Resource] {
		if selects(&w.info, o) {
			w.event(wire.Added, o)
		}
	}
	w.next = len(w.changes)
	if w.info.SendInitialEvents {
		w.buf = w.encoding.format.AppendEvent(w.buf, wire.Bookmark,
			w.encoding.format.Bookmark(w.encoding.kind[0], w.encoding.kind[1], strconv.Itoa(w.version), true))
	}
}

func (w *stream) event(kind string, o object) {
	raw := w.encoding.typed(o)
	if w.encoding.table {
		raw = w.encoding.tableOf(o.GetResourceVersion(), []object{o})
	}
	w.buf = w.encoding.format.AppendEvent(w.buf, kind, raw)
}

func (w *stream) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.buf) == 0 {
		for ; w.next < len(w.changes) && len(w.buf) == 0; w.next++ {
			c := w.changes[w.next]
			if c.resource != w.info.Resource {
				continue
			}
			before, after := selects(&w.info, c.before), selects(&w.info, c.after)
			switch {
			case before && after:
				w.event(wire.Modified, c.after)
			case after:
				w.event(wire.Added, c.after)
			case before:
				gone := c.before.DeepCopyObject().(object)
				gone.SetResourceVersion(strconv.Itoa(c.version))
				w.event(wire.Deleted, gone)
			}
		}
		if w.closed || w.era != w.server.era {
			return 0, io.ErrUnexpectedEOF
		}
		if len(w.buf) == 0 {
			w.more.Wait()
		}
	}
	n := copy(p, w.buf)
	w.buf = w.buf[n:]
	return n, nil
}

func (w *stream) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.more.Broadcast()
	return nil
}

const nodeName = "edge-1"

// token is a JSON Web Token whose subject is web.
var token = "eyJhbGciOiJFUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"web"}`)) + ".c2ln"

// newFilter returns a Filter over a server. All filters apply to all clients.
func newFilter(t testing.TB, next http.RoundTripper) *Filter {
	log := zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel))
	f := New(Options{
		Next: next, Address: netip.MustParseAddrPort("127.0.0.1:10268"), NodeName: nodeName,
		Subject:       func(h http.Header) string { return h.Get("Authorization") },
		Authorization: func(_, otherwise string) string { return otherwise },
		Logger:        log, Repeated: tally.New(log, clock.RealClock{}),
	}, choose(t, "servicetopology,masterservice,discardcloudservice,nodeportisolation,forwardkubesvctraffic"))
	t.Cleanup(f.Close)
	return f
}

// choose returns settings in which a pod chooses filters.
func choose(t testing.TB, list string) Settings {
	t.Helper()
	choice, err := filters.ParseChoice(list)
	if err != nil {
		t.Fatal(err)
	}
	return Settings{Settings: filters.Settings{Choice: choice}}
}

func newRequest(uri, accept string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, uri, nil)
	r.Header.Set("Accept", accept)
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("User-Agent", "informer/1")
	return r
}

const (
	pathSlices   = "/apis/discovery.k8s.io/v1/endpointslices"
	pathServices = "/api/v1/services"
)

func newNode(name, pool string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if pool != "" {
		n.Labels = map[string]string{rule.LabelPool: pool}
	}
	return n
}

func inZone(n *corev1.Node, zone string) *corev1.Node {
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[rule.LabelZone] = zone
	return n
}

// nodePool is a NodePool as far as filters read it. It has no protobuf encoding.
type nodePool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Status            struct {
		Nodes []string `json:"nodes"`
	} `json:"status"`
}

func newPool(name string, nodes ...string) *nodePool {
	p := &nodePool{
		TypeMeta:   metav1.TypeMeta{Kind: kinds["nodepools"][0], APIVersion: kinds["nodepools"][1]},
		ObjectMeta: metav1.ObjectMeta{Name: name},
	}
	p.Status.Nodes = nodes
	return p
}

func (p *nodePool) DeepCopyObject() runtime.Object {
	c := *p
	p.DeepCopyInto(&c.ObjectMeta)
	c.Status.Nodes = slices.Clone(p.Status.Nodes)
	return &c
}

func (p *nodePool) Marshal() ([]byte, error) {
	return nil, errors.New("a custom resource exists in JSON only")
}

func newService(name string, annotations map[string]string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: annotations},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.10"},
	}
}

func newSlice(name, service string, nodes ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{rule.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, node := range nodes {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.0.0." + node}, NodeName: &node})
	}
	return s
}

func topology(value string) map[string]string {
	return map[string]string{"openyurt.io/topologyKeys": value}
}
