package watch

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/pod/processors"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/relist"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/sidecar/tally"
)

// Upstream is the way to the API server.
type Upstream interface {
	http.RoundTripper
	// Online tells whether requests are worth sending.
	Online() bool
	// WaitOnline returns when they are, or with the error of the context.
	WaitOnline(context.Context) error
	// Outage is how long the link was down before it came back last.
	Outage() time.Duration
}

// Options of New.
type Options struct {
	Upstream    Upstream
	Credentials *principal.Credentials
	Logger      *zap.Logger
	Repeated    *tally.Log // for lines that each watch may repeat; nil: one of its own
	Clock       clock.WithTicker
	// Processors are used while many watches are open; nil: those that there are.
	Processors *processors.Processors
	// Closed is told of each watch whose client has gone; it must not wait. Nil: nobody wants to
	// know.
	Closed func(Request)
}

// Watches opens watches, and brings those back together that wait for the link.
type Watches struct {
	Options
	cohorts cohorts
	opened  opened

	mu       sync.Mutex // held before the lock of an excludedEvents
	excluded map[*excludedEvents]struct{}
}

// New makes a Watches.
func New(o Options) *Watches {
	if o.Repeated == nil {
		o.Repeated = tally.New(o.Logger, o.Clock)
	}
	return &Watches{
		Options: o, cohorts: cohorts{random: rand.Float64}, excluded: map[*excludedEvents]struct{}{},
		opened: opened{processors: o.Processors, states: map[*watch]string{}},
	}
}

// Asked says that a program of the pod has asked the API server for something else. Watches that
// wait for their turn after an outage come back now.
func (s *Watches) Asked() { s.cohorts.hurry() }

// Request is a request for a watch.
type Request struct {
	HTTP  *http.Request
	Info  request.Info
	Cache *cache.Cache
	// Source names the recorded stream. Its principal is empty when nothing is recorded. The
	// client's timeoutSeconds count from when it was sent.
	Source record.Source
	// Excluded is why the principal is empty, if that may change; nil: it is not.
	Excluded *Excluded
}

// Follow makes the body of the API server's answer a watch that outlives the link. An answer
// that is no stream of events stays as it is; Follow reports false for it.
func (s *Watches) Follow(q Request, resp *http.Response) bool {
	format := streamOf(resp)
	if format == nil {
		return false
	}
	form := request.Form{Format: format, Representation: request.Object}
	if i := slices.IndexFunc(q.Info.Forms(), func(f request.Form) bool { return f.Format == format }); i >= 0 {
		form = q.Info.Forms()[i]
	}
	w := s.newWatch(q, form)
	if rv := q.Info.ResourceVersion; !q.Info.SendInitialEvents && rv != "" && rv != "0" {
		w.served, w.version = true, rv
	}
	w.events = s.record(q, q.Source, format)
	w.phase = newStreaming(w, resp.Body, nil)
	w.count()
	resp.Body, resp.ContentLength = w, -1
	return true
}

// Replay opens a watch without a link, for a principal that has proven who it is. A watch for
// the coming changes only opens and stays quiet. A watch that begins with the present state
// needs the cache.
func (s *Watches) Replay(q Request, proven replay.Request) (*http.Response, error) {
	if err := q.Cache.Check(q.HTTP.Context(), proven); err != nil {
		return nil, err
	}
	q.Source.Info.SendInitialEvents = false
	form := openingForm(q, proven)
	header := http.Header{"Content-Type": {form.Format.WatchMediaType()}, "Cache-Status": {"rockpool; hit"}}
	version := q.Info.ResourceVersion
	w := s.newWatch(q, form)
	var state *replay.State
	if q.Info.SendInitialEvents || version == "" || version == "0" {
		var err error
		if state, err = q.Cache.State(w.ctx, proven); err != nil {
			w.cancel()
			return nil, err
		}
		header, version, w.form = state.Header, state.ResourceVersion, state.Form
	}
	w.served, w.version, w.accept = true, version, q.Info.AcceptForm(w.form)
	w.Source.Info.ResourceVersion = version
	w.events = s.record(q, w.Source, w.form.Format)
	if state != nil {
		w.phase = &replaying{state, nil}
	} else {
		w.phase = w.wait(0)
	}
	w.count()
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: w, ContentLength: -1,
	}, nil
}

// Begin makes a watch that begins with a recorded state, while the link is up. The events behind it
// are the body of resp: the API server's answer to a watch from the state's version, in its form.
// It reports false, and has closed both, if that answer is no stream of events.
func (s *Watches) Begin(q Request, state *replay.State, resp *http.Response) bool {
	if streamOf(resp) != state.Form.Format {
		state.Close()
		_ = resp.Body.Close()
		return false
	}
	q.Source.Info.SendInitialEvents, q.Source.Info.ResourceVersion = false, state.ResourceVersion
	w := s.newWatch(q, state.Form)
	w.served, w.version, w.accept = true, state.ResourceVersion, q.Info.AcceptForm(state.Form)
	w.events = s.record(q, w.Source, w.form.Format)
	w.phase = &replaying{state, newStreaming(w, resp.Body, nil)}
	w.count()
	resp.Body, resp.ContentLength = w, -1
	return true
}

// newWatch makes a watch that has no phase yet.
func (s *Watches) newWatch(q Request, form request.Form) *watch {
	w := &watch{Watches: s, Request: q, form: form}
	w.ctx, w.cancel = context.WithCancel(q.HTTP.Context())
	if q.Info.Timeout > 0 {
		w.deadline = q.Source.Started.Add(q.Info.Timeout)
	}
	return w
}

// openingForm is the form of a watch that opens before the API server can choose one. It is the
// form of the recorded list that the client watches from, so that its events are recorded
// with the list; else JSON, which the API server has for every resource.
func openingForm(q Request, proven replay.Request) request.Form {
	if form, ok := q.Cache.Form(q.HTTP.Context(), proven); ok {
		return form
	}
	forms := q.Info.Forms()
	if i := slices.IndexFunc(forms, func(f request.Form) bool { return f.Format == wire.JSON }); i >= 0 {
		return forms[i]
	}
	return forms[0]
}

// streamOf gives the format of a watch that can be followed, nil if the answer is no such watch.
func streamOf(resp *http.Response) wire.Format {
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Encoding") != "" {
		return nil
	}
	return wire.FormatOf(resp.Header.Get("Content-Type"))
}

// position is where the watch's client is.
func (w *watch) position() relist.Position {
	return relist.Position{
		Principal: w.Source.Principal, Path: w.Info.Path, LabelSelector: w.Info.LabelSelector, FieldSelector: w.Info.FieldSelector,
		Form: w.form, Version: w.version,
	}
}

// lifetime is the context of the work that the watch does for its client. It also ends when the
// client's timeoutSeconds are over.
func (w *watch) lifetime() (context.Context, context.CancelFunc) {
	if w.deadline.IsZero() {
		return context.WithCancel(w.ctx)
	}
	return context.WithTimeout(w.ctx, w.deadline.Sub(w.Clock.Now()))
}

// remaining is what is left of the client's timeoutSeconds; zero: it has not asked for any.
func (w *watch) remaining() time.Duration {
	if w.deadline.IsZero() {
		return 0
	}
	return max(time.Second, w.deadline.Sub(w.Clock.Now()).Round(time.Second))
}
