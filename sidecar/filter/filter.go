package filter

import (
	"context"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/filters"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/filter/rule"
	"rockpool.dev/sidecar/tally"
)

// Options of New.
type Options struct {
	// Next answers requests, unfiltered.
	Next http.RoundTripper
	// Address is where the sidecar answers in place of the API server.
	Address netip.AddrPort
	// NodeName is the name of this node; empty: unknown.
	NodeName string
	// Subject returns the subject that a request's token claims. Authorization returns the current
	// header for it, or the second value if there is none.
	Subject       func(http.Header) string
	Authorization func(subject, otherwise string) string
	Logger        *zap.Logger
	Repeated      *tally.Log
	Clock         clock.WithTicker // nil means the real one
}

// Settings say what is filtered.
type Settings struct {
	filters.Settings
	// Conditions are the compiled Rules.
	Conditions map[schema.GroupResource]rule.Condition
}

// Filter is the http.RoundTripper between the proxy and the Dispatcher. Its methods may be called
// from several goroutines. Close ends its goroutines.
type Filter struct {
	Options
	current  atomic.Pointer[settings]
	pasts    pasts
	refusals refusals
	ctx      context.Context // of the followers
	cancel   context.CancelFunc

	mu        sync.Mutex
	followers map[followerKey]*follower
	watches   map[*watch]struct{}
	passing   map[*passing]struct{}

	ending  sync.Mutex // the last to be taken
	ended   bool
	running sync.WaitGroup
}

var _ http.RoundTripper = (*Filter)(nil)

// settings are Settings with what is derived from them.
type settings struct {
	Settings
	touched []schema.GroupResource
}

// New makes a Filter.
func New(o Options, s Settings) *Filter {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	f := &Filter{
		Options: o, pasts: newPasts(),
		followers: map[followerKey]*follower{}, watches: map[*watch]struct{}{}, passing: map[*passing]struct{}{},
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.current.Store(newSettings(s))
	return f
}

func newSettings(s Settings) *settings {
	touched := []schema.GroupResource{rule.Services, rule.Endpoints, rule.EndpointSlices}
	for r := range s.Conditions {
		if !slices.Contains(touched, r) {
			touched = append(touched, r)
		}
	}
	return &settings{Settings: s, touched: touched}
}

// Set replaces the settings. Open watches are corrected.
func (f *Filter) Set(s Settings) {
	next := newSettings(s)
	f.current.Store(next)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fl := range f.followers {
		fl.refresh()
	}
	for w := range f.watches {
		w.wake()
	}
	for p := range f.passing {
		if len(next.chain(p.resource, p.userAgent).Filters) > 0 {
			p.cut()
		}
	}
}

// Close ends the followers, and returns when their goroutines have ended.
func (f *Filter) Close() {
	f.ending.Lock()
	f.ended = true
	f.ending.Unlock()
	f.cancel()
	f.running.Wait()
}

// start runs a goroutine that Close waits for, none after Close.
func (f *Filter) start(run func()) {
	f.ending.Lock()
	defer f.ending.Unlock()
	if !f.ended {
		f.running.Go(run)
	}
}

// alike reports whether two settings show a client the same of a resource, as far as they do not
// concern the context.
func (s *settings) alike(other *settings, r schema.GroupResource, userAgent string) bool {
	names := func(c rule.Chain) (all []string) {
		for _, f := range c.Filters {
			all = append(all, f.Name)
		}
		return all
	}
	return slices.Equal(names(s.chain(r, userAgent)), names(other.chain(r, userAgent))) && s.expression(r) == other.expression(r)
}

// expression returns the expression of the filter keep for a resource, empty if there is none.
func (s *settings) expression(r schema.GroupResource) string {
	for _, one := range s.Rules {
		if one.Resource == r {
			return one.Expression
		}
	}
	return ""
}

// chain returns the filters of a client for a resource.
func (s *settings) chain(r schema.GroupResource, userAgent string) rule.Chain {
	if !slices.Contains(s.touched, r) {
		return rule.Chain{}
	}
	return rule.NewChain(r, s.Conditions, func(name string) bool { return s.Enabled(name, userAgent) })
}

// mayTouch tells quickly that a path may be of a resource that filters touch.
func (s *settings) mayTouch(path string) bool {
	return slices.ContainsFunc(s.touched, func(r schema.GroupResource) bool { return strings.Contains(path, r.Resource) })
}

// RoundTrip answers one request.
func (f *Filter) RoundTrip(r *http.Request) (*http.Response, error) {
	s := f.current.Load()
	mayWatch := strings.Contains(r.URL.RawQuery, "watch") || strings.Contains(r.URL.Path, "/watch/")
	if r.Method != http.MethodGet || !mayWatch && !s.mayTouch(r.URL.Path) {
		return f.Next.RoundTrip(r)
	}
	info := request.Parse(r)
	if !isFilterable(&info) {
		return f.Next.RoundTrip(r)
	}
	q := &query{filter: f, request: r, info: info, resource: schema.GroupResource{Group: info.Group, Resource: info.Resource}}
	q.view.settings, q.view.chain = s, q.chain(s)
	if len(q.view.chain.Filters) == 0 && !q.goesOn() {
		resp, err := f.Next.RoundTrip(r)
		if err == nil && info.Class == request.ClassWatch {
			f.pass(q, resp)
		}
		return resp, err
	}
	q.request = plain(r)
	return q.answer()
}

// plain is a request whose answer is not compressed, so that it can be cut.
func plain(r *http.Request) *http.Request {
	if r.Header.Get("Accept-Encoding") == "" {
		return r
	}
	changed := r.WithContext(r.Context())
	changed.Header = maps.Clone(r.Header)
	changed.Header.Del("Accept-Encoding")
	return changed
}

// goesOn reports whether a client was shown filtered answers before, by filters that no longer apply. It
// is shown what it does not know, and so that it can be told from others, its further lists are noted.
func (q *query) goesOn() bool {
	return q.info.Verb != request.Get && q.filter.pasts.find(q.scope(), func(*past) bool { return true }) != nil
}

// isFilterable reports whether the answer to a request has objects that can be cut out of it.
// A request that acts as somebody else is the API server's affair.
func isFilterable(i *request.Info) bool {
	if !i.IsResource || i.Subresource != "" || i.Legacy || i.Head || i.Impersonated || i.Invalid {
		return false
	}
	switch i.Verb {
	case request.Get, request.List:
		return true
	case request.Watch:
		return i.Class == request.ClassWatch
	}
	return false
}

// query is a request whose answer is filtered.
type query struct {
	filter   *Filter
	request  *http.Request
	info     request.Info
	resource schema.GroupResource
	view     view
	follower *follower // nil: the filters need to know nothing beside the object
}

// view is the filters of a client, and what they know beside the object. It does not change.
type view struct {
	settings *settings
	chain    rule.Chain
	context  *rule.Context
}

// chain returns the filters of the client, with what they need for the answer that it asks for.
func (q *query) chain(s *settings) rule.Chain {
	c := s.chain(q.resource, q.request.UserAgent())
	if c.Needs.Types {
		c.Needs.Types = false
		asksForMetadata := func(m request.MediaType) bool { return m.As != "" }
		c.Needs.Services = c.Needs.Services || slices.ContainsFunc(q.info.Accept, asksForMetadata)
	}
	return c
}

// answer has the request answered and filters the answer.
func (q *query) answer() (*http.Response, error) {
	f := q.filter
	if q.view.chain.Needs != (rule.Needs{}) {
		q.follower = f.follow(q)
		q.follower.wait(q.request.Context())
	}
	keep := false // a watch keeps its follower
	defer func() {
		if !keep {
			q.release()
		}
	}()
	q.view = q.now()
	if q.info.Verb == request.Watch {
		resp, err := q.watch()
		keep = err == nil && isWatch(resp)
		return resp, err
	}
	p, err := q.past()
	if err != nil {
		return nil, err
	}
	resp, err := f.Next.RoundTrip(q.cuttable())
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	if q.info.Verb == request.List {
		q.list(resp, p)
		return resp, nil
	}
	return q.object(resp)
}

// now returns the client's view at present.
func (q *query) now() view {
	s := q.filter.current.Load()
	v := view{settings: s, chain: q.chain(s)}
	if q.follower != nil {
		v.context = q.follower.context()
	} else {
		v.context = q.filter.context(s, &knowledge{})
	}
	return v
}

func (q *query) release() {
	if q.follower != nil {
		q.follower.release()
	}
}

// scope names what a client lists and watches, and as whom.
func (q *query) scope() string {
	name, _, _ := strings.Cut(q.request.UserAgent(), "/")
	as := ""
	if len(q.info.Accept) > 0 {
		as = strings.TrimSuffix(q.info.Accept[0].As, "List")
	}
	return strings.Join([]string{
		q.filter.Subject(q.request.Header), name, q.info.Path, q.info.LabelSelector, q.info.FieldSelector, as,
	}, "\x00")
}

// cuttable returns the request without those clauses of its Accept header that objects cannot be cut
// out of, or that the filter keep cannot read, if the client accepts something else.
func (q *query) cuttable() *http.Request {
	keeps := slices.ContainsFunc(q.view.chain.Filters, func(f rule.Filter) bool { return f.Name == filters.Keep })
	var left []string
	for clause := range strings.SplitSeq(q.info.RawAccept, ",") {
		if strings.Contains(clause, "cbor") || keeps && strings.Contains(clause, "protobuf") {
			continue
		}
		left = append(left, clause)
	}
	if accept := strings.Join(left, ","); accept != q.info.RawAccept && accept != "" {
		r := q.request.Clone(q.request.Context())
		r.Header.Set("Accept", accept)
		return r
	}
	return q.request
}

// apply filters an object. The bytes are those of raw if nothing changes.
func (q *query) apply(v *view, o *rule.Object) (edited []byte, keep bool) {
	return v.chain.Apply(o, v.context, func(filter string, err error) { q.filter.failed(filter, o.Resource, err) })
}

// failed notes that a filter has failed on an object, which passes unchanged.
func (f *Filter) failed(filter string, r schema.GroupResource, err error) {
	failures.WithLabelValues(filter, r.String()).Inc()
	f.Repeated.Write(tally.Line{
		Level: zap.WarnLevel, Message: "a filter failed on an object; passing it on unchanged",
		Kind: []zap.Field{zap.String("filter", filter), zap.String("resource", r.String())}, Err: err,
	})
}

// requestOf returns a further request for a client, with a current token.
func (f *Filter) requestOf(ctx context.Context, like *http.Request, path, query, accept string) *http.Request {
	r := like.Clone(ctx)
	r.URL.Path, r.URL.RawPath, r.URL.RawQuery = path, "", query
	r.Header = http.Header{"Accept": {accept}}
	for _, name := range []string{"User-Agent", "Authorization"} {
		if value, ok := like.Header[name]; ok {
			r.Header[name] = value
		}
	}
	if subject := f.Subject(like.Header); subject != "" {
		r.Header.Set("Authorization", f.Authorization(subject, like.Header.Get("Authorization")))
	}
	return r
}
