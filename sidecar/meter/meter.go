// Package meter counts what the sidecar does for the pod's programs: their requests, how long they
// take and where, and what they cost on the link. All its metrics have bounded labels: a value that
// programs choose, such as a User-Agent, is "other" once there are too many.
package meter

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/upstream"
)

const (
	maxAgents    = 32
	maxResources = 100
	maxVerbs     = 16
	// maxSeries bounds the combinations of labels of each counter.
	maxSeries = 1000
)

// own is the User-Agent label of requests that the sidecar makes by itself.
const own = "rockpool-sidecar"

// protocol is the label of bytes that belong to no body: headers, frames, PINGs, TLS.
const protocol = "protocol"

// Source says who has answered a request.
type Source string

// The sources.
const (
	Upstream Source = "upstream" // the API server
	Cache    Source = "cache"
	Accepted Source = "accepted" // a write that is delivered later
	Refused  Source = "refused"  // the sidecar, with an error
)

// Meter is a prometheus.Collector and an upstream.Meter.
type Meter struct {
	info func(context.Context) *request.Info

	agents, resources, verbs *bounded
	requests                 *prometheus.CounterVec
	seconds                  *prometheus.HistogramVec
	series, links            *bounded
	link                     linkBytes
	known                    known
}

var (
	_ prometheus.Collector = (*Meter)(nil)
	_ upstream.Meter       = (*Meter)(nil)
)

// New makes a Meter. info says what a request of a program asks for, by its context; the zero Info
// means that the request is not a program's.
func New(info func(context.Context) *request.Info) *Meter {
	return &Meter{
		info:   info,
		agents: newBounded(maxAgents), resources: newBounded(maxResources), verbs: newBounded(maxVerbs), series: newBounded(maxSeries), links: newBounded(maxSeries),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rockpool_requests_total",
			Help: "Requests of the pod's programs that have ended, by verb, resource and status code, and by who has answered: upstream (the API server), cache, accepted (a write that is delivered later), refused (an error of the sidecar). Code 0: the program left before.",
		}, []string{"verb", "resource", "code", "source"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rockpool_request_duration_seconds",
			Help:    "Time of requests, without watches and other streams, by verb and part: upstream (waiting for the API server and the link) and own (the rest, with writing to the program).",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"verb", "part"}),
	}
}

// Describe implements prometheus.Collector.
func (m *Meter) Describe(out chan<- *prometheus.Desc) {
	m.requests.Describe(out)
	m.seconds.Describe(out)
	out <- linkDesc
}

// Collect implements prometheus.Collector.
func (m *Meter) Collect(out chan<- prometheus.Metric) {
	m.requests.Collect(out)
	m.seconds.Collect(out)
	m.link.collect(out)
}

// waitedKey is the key of a request's waiting time in its context.
type waitedKey struct{}

// With gives the context of a program's request what Request needs.
func (m *Meter) With(ctx context.Context) context.Context {
	return &waiting{Context: ctx}
}

// waiting is a context with the time that its request has waited.
type waiting struct {
	context.Context
	nanoseconds atomic.Int64
}

// Value gives the time to waitedOf.
func (w *waiting) Value(key any) any {
	if key == (waitedKey{}) {
		return &w.nanoseconds
	}
	return w.Context.Value(key)
}

func waitedOf(ctx context.Context) *atomic.Int64 {
	waited, _ := ctx.Value(waitedKey{}).(*atomic.Int64)
	return waited
}

// Exchange is a request that has ended.
type Exchange struct {
	Context  context.Context // of With
	Method   string
	Info     *request.Info
	Status   int // 0: the program left before
	Source   Source
	Duration time.Duration
	Stream   bool // its duration says nothing
}

// Request counts a request that has ended.
func (m *Meter) Request(x Exchange) {
	c := m.counters(&x)
	c.requests.Inc()
	if x.Stream {
		return
	}
	var waited time.Duration
	if w := waitedOf(x.Context); w != nil {
		waited = min(time.Duration(w.Load()), x.Duration)
	}
	c.upstream.Observe(waited.Seconds())
	c.own.Observe((x.Duration - waited).Seconds())
}

// counters gives those of a request. It makes their labels once for all requests that are alike.
func (m *Meter) counters(x *Exchange) counters {
	kind := requestKind{x.Method, x.Status, x.Source, kindOf(x.Info)}
	c, ok := m.known.requests.get(kind)
	if ok {
		return c
	}
	verb, resource := m.verb(x.Info.Verb, x.Method), m.resource(x.Info)
	code := strconv.Itoa(x.Status)
	if !m.series.has(verb + " " + resource + " " + code + " " + string(x.Source)) {
		resource = other
	}
	c = counters{
		requests: m.requests.WithLabelValues(verb, resource, code, string(x.Source)),
		upstream: m.seconds.WithLabelValues(verb, "upstream"),
		own:      m.seconds.WithLabelValues(verb, "own"),
	}
	if kind.kind, ok = kind.kept(kind.method); ok {
		kind.method = strings.Clone(kind.method) // it may be a part of the request line
		m.known.requests.put(kind, c)
	}
	return c
}

// verb is the verb of RBAC, or the method of other paths.
func (m *Meter) verb(verb, method string) string {
	if verb == "" {
		verb = strings.ToLower(method)
	}
	return m.verbs.label(verb)
}

// resource is the resource with its group and subresource, such as deployments.apps/scale; for
// another path its first segment, such as /apis.
func (m *Meter) resource(i *request.Info) string {
	if !i.IsResource {
		first, _, _ := strings.Cut(strings.TrimPrefix(i.Path, "/"), "/")
		return m.resources.label("/" + first)
	}
	name := i.Resource
	if i.Group != "" {
		name += "." + i.Group
	}
	if i.Subresource != "" {
		name += "/" + i.Subresource
	}
	return m.resources.label(name)
}

// agent is the name of a User-Agent: the text before the first slash.
func (m *Meter) agent(userAgent string) string {
	name, _, _ := strings.Cut(userAgent, "/")
	if name = strings.TrimSpace(name); name == "" {
		name = "none"
	}
	return m.agents.label(name)
}

// Attempt implements upstream.Meter.
func (m *Meter) Attempt(r *http.Request) upstream.Use {
	info, agent := m.info(r.Context()), own
	if info.Path == "" {
		parsed := request.Parse(r)
		info = &parsed
	} else {
		agent = m.agent(r.UserAgent())
	}
	kind := attemptKind{agent, r.Method, kindOf(info)}
	bodies, ok := m.known.attempts.get(kind)
	if !ok {
		labels := linkLabels{agent, m.verb(info.Verb, r.Method), m.resource(info)}
		if !m.links.has(labels.agent + " " + labels.verb + " " + labels.resource) {
			labels.resource = other
		}
		bodies = m.link.of(labels)
		if kind.kind, ok = kind.kept(kind.method); ok {
			kind.agent, kind.method = strings.Clone(kind.agent), strings.Clone(kind.method)
			m.known.attempts.put(kind, bodies)
		}
	}
	return &use{bodies, waitedOf(r.Context())}
}

// Wire implements upstream.Meter.
func (m *Meter) Wire(received, sent int) {
	m.link.received.Add(int64(received))
	m.link.sent.Add(int64(sent))
}

// use is what one attempt costs.
type use struct {
	bodies *direction
	waited *atomic.Int64 // nil: of the sidecar itself
}

func (u *use) Body(received, sent int) {
	u.bodies.received.Add(int64(received))
	u.bodies.sent.Add(int64(sent))
}

func (u *use) Waited(d time.Duration) {
	if u.waited != nil {
		u.waited.Add(int64(d))
	}
}
