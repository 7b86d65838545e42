package dispatch

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/sidecar/upstream"
	"rockpool.dev/sidecar/write"
	"rockpool.dev/sidecar/write/lease"
	"rockpool.dev/sidecar/write/outbox"
	"rockpool.dev/store"
)

// Upstream is the way to the API server.
type Upstream interface {
	http.RoundTripper
	// Online tells whether requests are worth sending.
	Online() bool
	// WaitOnline returns when they are.
	WaitOnline(context.Context) error
}

// Verifier proves, without the API server, whose token this is.
type Verifier interface {
	Verify(header http.Header) (subject string, err error)
}

// Options of New.
type Options struct {
	Upstream Upstream
	// Disk keeps what may be written to the disk, Memory the resources of
	// MemoryOnly and nothing else.
	Disk, Memory Cache
	MemoryOnly   []schema.GroupResource
	// Agents are the clients whose reading is recorded. What they are when a request
	// is sent counts for all of its answer, also for a watch.
	Agents   *agent.Current
	Verifier Verifier
	// Accepted is told of each request for a resource that the API server has answered
	// because it believes the token, which is of subject. It must not block. Nil: nobody
	// wants to know.
	Accepted func(header http.Header, subject string)
	// ReviewLifetime is how long the answer to a POST that only asks is given again
	// offline; 0: not at all.
	ReviewLifetime time.Duration
	// Outbox takes Events while the link is down; nil: they are refused like all writes.
	Outbox *outbox.Outbox
	// Leases keeps those that are held; nil: they end with the link.
	Leases *lease.Tracker
	// Token gives the pod's own current token, for watches that outlive the one
	// they were opened with.
	Token  func() (string, error)
	Logger *zap.Logger
	Clock  clock.WithTicker
}

// Cache is where answers are recorded and replayed. The zero value is none:
// requests pass through and offline nothing is known.
type Cache struct {
	Recorder *record.Recorder
	Replayer *replay.Replayer
}

// Dispatcher is the http.RoundTripper behind the proxy.
type Dispatcher struct {
	Options
	credentials credentials
	subjects    subjects
	questions   questions
	patience    patience
	waiting     waiting
	resting     atomic.Int64 // until when documents are not looked for in the cache, ns since 1970
}

var _ http.RoundTripper = (*Dispatcher)(nil)

// New makes a Flow.
func New(opts Options) *Dispatcher {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	return &Dispatcher{Options: opts, questions: newQuestions(), patience: defaultPatience, waiting: waiting{random: rand.Float64}}
}

// flushTimeout bounds how long an offline answer waits for what was read just
// before the link broke to be written.
const flushTimeout = time.Second

// RoundTrip answers one request.
func (f *Dispatcher) RoundTrip(r *http.Request) (*http.Response, error) {
	info := request.Parse(r)
	route := routeOf(r.Context())
	route.Info = info
	if info.Class == request.ClassWatch {
		return f.watch(r, info)
	}
	switch {
	case info.Unrecorded:
	case info.Class == request.ClassReview && f.ReviewLifetime > 0:
		return f.review(r, info)
	case r.Method == http.MethodDelete && (info.Class == request.ClassWrite || info.Class == request.ClassDeleteMany):
		var err error
		var tried bool
		if r, tried, err = onlyTried(r); err != nil {
			return nil, err
		}
		if tried {
			info.SetDryRun()
		}
	}
	switch {
	case f.Outbox.Handles(&info):
		return f.event(r, info)
	case f.Leases.Handles(&info):
		return f.lease(r, info)
	}
	if f.Upstream.Online() {
		resp, err := f.ask(r, f.source(r, info))
		if err == nil {
			return resp, nil
		}
		if !upstream.IsLinkError(err) {
			return nil, err
		}
		if !info.IsRead() && upstream.MayHaveArrived(err) {
			return nil, ambiguous()
		}
		f.Logger.Debug("upstream cannot be reached", zap.String("path", info.Path), zap.Error(err))
	}
	return f.offline(r, info)
}

// source names what is recorded: the token's subject is believed because a
// successful answer shows that the API server believes it.
func (f *Dispatcher) source(r *http.Request, info request.Info) record.Source {
	subject := ""
	if f.Agents.Match(r.UserAgent()) { // else it is not recorded
		subject = f.subjects.of(r.Header)
	}
	return record.Source{Principal: subject, Info: info, Path: r.URL.RequestURI(), Started: f.Clock.Now()}
}

// cache is the one that a request's answer belongs to.
func (f *Dispatcher) cache(info *request.Info) Cache {
	if info.CarriesToken() {
		return f.Memory
	}
	if info.IsResource && slices.Contains(f.MemoryOnly, schema.GroupResource{Group: info.Group, Resource: info.Resource}) {
		return f.Memory
	}
	return f.Disk
}

// believe keeps the token that the API server has just accepted, in memory only, and tells
// of it. Documents prove nobody: what stands before an API server may show them to anyone.
func (f *Dispatcher) believe(r *http.Request, subject string, resp *http.Response) {
	if subject == "" {
		return
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusNotModified:
		f.credentials.put(subject, r.Header.Get("Authorization"))
		if f.Accepted != nil && routeOf(r.Context()).Info.IsResource {
			f.Accepted(r.Header, subject)
		}
	}
}

// record lets the recorder listen to an answer.
func (f *Dispatcher) record(source record.Source, resp *http.Response) {
	if recorder := f.cache(&source.Info).Recorder; recorder != nil {
		recorder.Record(source, resp)
	}
}

func formatOf(resp *http.Response) wire.Format { return wire.FormatOf(resp.Header.Get("Content-Type")) }

// offline answers from the store.
func (f *Dispatcher) offline(r *http.Request, info request.Info) (*http.Response, error) {
	q, err := f.prove(r, info)
	if err != nil {
		return nil, err
	}
	replayer := f.cache(&info).Replayer
	if replayer == nil {
		return nil, noCache()
	}
	resp, err := replayer.Answer(r.Context(), q)
	if err != nil {
		return nil, f.refusal(info, err)
	}
	return resp, nil
}

// prove finds out whether the request may be answered from the cache at all, and for
// whom.
func (f *Dispatcher) prove(r *http.Request, info request.Info) (replay.Request, error) {
	q := replay.Request{Info: info, Path: r.URL.RequestURI(), IfNoneMatch: r.Header.Get("If-None-Match")}
	recorder := f.cache(&info).Recorder
	var err error
	q.Principal, err = f.identify(r, info)
	switch {
	case err != nil:
		return q, err
	case !info.IsRead() && !info.IsReview():
		return q, unavailable("nothing is written while the link is down; try again later")
	case recorder == nil:
		return q, nil
	}
	// The client must not see an older state than it has seen already.
	ctx, cancel := context.WithTimeout(r.Context(), flushTimeout)
	defer cancel()
	if err := recorder.Flush(ctx); err != nil {
		f.Logger.Warn("answering from the cache before all that was read is written", zap.Error(err))
	}
	return q, nil
}

// identify finds out, without the API server, who asks. Reads, and the writes that are
// accepted offline, go through here.
func (f *Dispatcher) identify(r *http.Request, info request.Info) (subject string, err error) {
	routeOf(r.Context()).Offline = true
	subject, err = f.Verifier.Verify(r.Header)
	switch {
	case errors.Is(err, principal.ErrNoKeys), errors.Is(err, principal.ErrNoOwn):
		return "", unavailable(err.Error()) // that is not the caller's fault
	case err != nil:
		return "", unauthorized(err)
	case info.Impersonated:
		return "", unavailable("only the API server can decide on impersonation")
	}
	return subject, nil
}

// refusal turns an error of what answers offline into one that the client understands.
func (f *Dispatcher) refusal(info request.Info, err error) error {
	switch {
	case errors.Is(err, replay.ErrNotRecorded), errors.Is(err, write.ErrNeedsServer):
		return unavailable(err.Error())
	case isStatus(err), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, store.ErrGone): // the recorder has said so, once
		return unavailable("the file of the cache was lost and there is no new one yet")
	}
	f.Logger.Error("the cache cannot answer", zap.String("path", info.Path), zap.Error(err))
	return unavailable("the cache cannot be read")
}
