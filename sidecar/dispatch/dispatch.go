package dispatch

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/origin"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/live"
	"rockpool.dev/sidecar/pod/processors"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/tally"
	"rockpool.dev/sidecar/upstream"
	"rockpool.dev/sidecar/watch"
	"rockpool.dev/sidecar/write"
)

// Verifier proves, without the API server, whose token a request has.
type Verifier interface {
	Verify(header http.Header) (subject string, err error)
}

// Upstream is the way to the API server.
type Upstream interface {
	watch.Upstream
	// Patiently sends a request that may wait for the link; see upstream.Upstream.
	Patiently(r *http.Request, patience time.Duration) (*http.Response, error)
	// Wake says that a program asks while the link is down: its return should be noticed soon.
	Wake()
}

// Options of New.
type Options struct {
	Upstream Upstream
	Caches   cache.Caches
	// Agents are the clients whose reading is recorded. A request is judged when it is sent. A
	// watch that was not recorded then is, once its client is selected; see SetAgents.
	Agents      *agent.Current
	Verifier    Verifier
	Credentials *principal.Credentials
	// Live answers lists from the cache while the link is up; nil: the API server answers all.
	Live *live.Collections
	// ReviewLifetime is how long the answer to a review is given again offline; 0: never.
	ReviewLifetime time.Duration
	// WritePatience is how long a write that was not sent waits for the link; 0: not at all.
	WritePatience time.Duration
	// Acceptors take some writes while the link is down. A write that none of them handles is
	// refused then.
	Acceptors []write.Acceptor
	// Offline, if not nil, is called for each request that was answered without the API server, or
	// refused. It must return soon.
	Offline func(info *request.Info, resp *http.Response, err error)
	// Processors are used while many watches are open; nil: those that there are.
	Processors *processors.Processors
	Logger     *zap.Logger
	Repeated   *tally.Log       // for lines that each request may repeat; nil: one of its own
	Clock      clock.WithTicker // nil means the real one
}

// Dispatcher is the http.RoundTripper behind the proxy.
type Dispatcher struct {
	Options
	watches   *watch.Watches
	reviews   reviewSealer
	kept      kept
	lookup    lookupTimeout
	encoding  sync.Mutex   // held while an answer is converted to YAML or CBOR
	skipUntil atomic.Int64 // until when documents are not looked up in the cache, ns since 1970
}

var _ http.RoundTripper = (*Dispatcher)(nil)

// OpenWatches returns the watches of the programs that are open now.
func (d *Dispatcher) OpenWatches() []watch.Open { return d.watches.Opened() }

// New makes a Dispatcher.
func New(o Options) *Dispatcher {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Repeated == nil {
		o.Repeated = tally.New(o.Logger, o.Clock)
	}
	watches := watch.Options{Upstream: o.Upstream, Credentials: o.Credentials, Logger: o.Logger, Repeated: o.Repeated, Processors: o.Processors, Clock: o.Clock}
	if o.Live != nil {
		watches.Closed = func(q watch.Request) {
			o.Live.Left(live.Read{HTTP: q.HTTP, Info: q.Info, Cache: q.Cache, Principal: q.Source.Principal})
		}
	}
	return &Dispatcher{Options: o, reviews: newReviewSealer(), lookup: defaultLookupTimeout, watches: watch.New(watches)}
}

// SetAgents replaces the selection of clients whose reading is recorded.
func (d *Dispatcher) SetAgents(s agent.Selector) {
	d.Agents.Set(s)
	d.watches.Reselect()
}

// errOffline says that the link was down before a request was sent.
var errOffline = errors.New("the link to the API server is down")

// RoundTrip answers one request.
func (d *Dispatcher) RoundTrip(r *http.Request) (*http.Response, error) {
	x, err := d.decide(r)
	if err != nil {
		return nil, err
	}
	d.kept.keep(x)
	resp, err := d.online(x)
	if err == nil {
		return x.whole(resp)
	}
	if !errors.Is(err, errOffline) && !upstream.IsLinkError(err) {
		return nil, err
	}
	inDoubt := x.changes() && upstream.MayHaveArrived(err)
	if inDoubt && !x.repeatable() {
		return nil, ambiguous()
	}
	resp, err = d.offline(x)
	if err != nil && inDoubt {
		err = ambiguous()
	}
	if d.Offline != nil {
		d.Offline(x.info, resp, err)
	}
	return resp, err
}

// online has the API server answer. errOffline and link errors say that it has not.
func (d *Dispatcher) online(x *exchange) (resp *http.Response, err error) {
	for range x.attempts() {
		if !d.Upstream.Online() && d.patience(x) == 0 {
			d.Upstream.Wake()
			return nil, errOffline
		}
		resp, err = d.send(x)
		if err == nil && x.info.IsRead() && x.info.Class != request.ClassWatch {
			d.watches.Asked()
		}
		if err == nil || !upstream.IsLinkError(err) {
			return resp, err
		}
		d.Logger.Debug("cannot reach the API server", zap.String("path", x.info.Path), zap.Error(err))
	}
	return nil, err
}

// send sends a request upstream and has the answer recorded. For a recorded document it only
// asks whether the document has changed: discovery and OpenAPI are large, many clients read them
// at each start, and the link may be thin.
func (d *Dispatcher) send(x *exchange) (*http.Response, error) {
	if etag := d.recordedETag(x); etag != "" {
		return d.revalidate(x, etag)
	}
	switch {
	case d.Live == nil:
	case x.info.Class == request.ClassList:
		return d.list(x)
	case x.info.Class == request.ClassWatch && x.info.SendInitialEvents:
		return d.watchList(x)
	}
	return d.forward(x)
}

// list answers a list from the cache where that is as good as the API server's answer, and saves
// the link the list.
func (d *Dispatcher) list(x *exchange) (*http.Response, error) {
	read := live.Read{HTTP: x.request, Info: *x.info, Cache: x.cache, Principal: x.source.Principal}
	if resp := d.Live.List(x.request.Context(), read); resp != nil {
		return resp, nil
	}
	return d.forward(x)
}

// watchList answers a watch that begins with its state likewise.
func (d *Dispatcher) watchList(x *exchange) (*http.Response, error) {
	read := live.Read{HTTP: x.request, Info: *x.info, Cache: x.cache, Principal: x.source.Principal}
	state, resp := d.Live.Watch(x.request.Context(), read)
	if resp != nil && d.watches.Begin(x.watch(d.Agents), state, resp) {
		return resp, nil
	}
	return d.forward(x)
}

// forward sends a request upstream as it is and has the answer recorded.
func (d *Dispatcher) forward(x *exchange) (*http.Response, error) {
	resp, err := d.Upstream.Patiently(x.again(), d.patience(x))
	if err != nil {
		return nil, err
	}
	d.answered(x, resp)
	return resp, nil
}

// patience is how long a request may wait for the link. Only writes have no other answer, but for
// those that an acceptor answers.
func (d *Dispatcher) patience(x *exchange) time.Duration {
	if !x.changes() || x.acceptor != nil && x.acceptor.Answers(x.write()) {
		return 0
	}
	return d.WritePatience
}

// answered takes note of an answer on its way to the client, if it is the API server's. A gateway's
// or captive portal's passes to the client, and nothing is learned from it.
func (d *Dispatcher) answered(x *exchange, resp *http.Response) {
	if resp.Header.Get(origin.AuditID) == "" && x.mayBeCompressed() && isCompressed(resp) {
		decompress(resp) // whose answer it is, only the body tells
	}
	origin.OnAPIServer(resp, func(resp *http.Response) { d.believe(x, resp) })
}

// believe learns from an answer of the API server.
func (d *Dispatcher) believe(x *exchange, resp *http.Response) {
	if x.info.IsWatch() && resp.StatusCode == http.StatusOK {
		if d.Live != nil && x.info.Class == request.ClassWatch && x.info.SendInitialEvents {
			resp.Body = d.Live.TimedState(resp.Body)
		}
		if x.info.Class != request.ClassWatch || !d.watches.Follow(x.watch(d.Agents), resp) {
			d.unread(x, resp)
			return
		}
	}
	d.Credentials.Observe(x.request.Header, x.source.Principal, x.info.IsResource, resp.StatusCode)
	d.record(x, resp)
	if x.acceptor != nil {
		q := x.write()
		q.Told = x.cache.Ask()
		x.acceptor.Observe(q, resp)
	}
}

// unread has it recorded that a client reads a stream of events that nobody here can read, from the
// time on when the client is selected.
func (d *Dispatcher) unread(x *exchange, resp *http.Response) {
	source, selected := x.source, func() bool { return true }
	if source.Principal == "" {
		source.Principal, selected = x.subject, func() bool { return d.Agents.Match(x.request.UserAgent()) }
	}
	x.cache.Unread(source, selected, resp)
}

// record has an answer recorded while its body is read.
func (d *Dispatcher) record(x *exchange, resp *http.Response) {
	isList := d.Live != nil && x.info.Class == request.ClassList && resp.StatusCode == http.StatusOK
	if !x.mayBeCompressed() || !isCompressed(resp) {
		if isList {
			resp.Body = d.Live.Timed(resp.Body)
		}
		x.cache.Record(&x.source, resp)
		return
	}
	recordCompressed(resp, func(plain *http.Response) {
		body := plain.Body
		if isList {
			plain.Body = d.Live.Timed(body)
		}
		measured := plain.Body
		if x.cache.Record(&x.source, plain); plain.Body == measured {
			plain.Body = body // nothing is recorded of it
		}
	})
}
