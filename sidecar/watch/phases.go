package watch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/origin"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/replay"
)

var resumptions = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_watch_resumptions_total",
	Help: "Watches that went on after their link broke, by result: resumed (from the last version), compared (the API server had forgotten that version, and the client was sent the changes), gone (the client has to list again).",
}, []string{"result"})

// phase is what a watch is doing.
type phase interface {
	// step makes the next progress, which may add frames to w.out, and gives the phase that
	// the watch is in then. A phase that gives another one has left.
	step(w *watch) phase
	// leave frees what the phase holds.
	leave(w *watch)
}

// replaying serves the initial state from the cache.
type replaying struct {
	state *replay.State
	after *streaming // the events behind it; nil: the watch waits for the link
}

func (p *replaying) step(w *watch) phase {
	out, last, err := p.state.AppendEvents(w.out)
	w.out = out
	switch {
	case err != nil:
		p.leave(w)
		return ended{err}
	case last && p.after != nil:
		return p.after
	case last:
		return w.wait(0)
	}
	return p
}

func (p *replaying) leave(w *watch) {
	p.state.Close()
	if p.after != nil {
		p.after.leave(w)
	}
}

// ended gives the client the end of its stream.
type ended struct{ err error }

func (p ended) step(*watch) phase { return p }
func (ended) leave(*watch)        {}

// streaming passes on events from the API server.
type streaming struct {
	body  io.ReadCloser
	split wire.FrameSplitter
	fast  bool // the last read filled its buffer
	// after is the wait that this stream ends. It is kept until the first frame shows that
	// the API server still knows the version. Nil: a frame has come, or there was no wait.
	after   *waiting
	expired []byte      // the 410 Status that came as the first frame; nil: none
	stop    func() bool // of the body's end with the watch's context
}

func newStreaming(w *watch, body io.ReadCloser, after *waiting) *streaming {
	p := &streaming{body: body, after: after}
	p.split = w.form.Format.NewFrames(func(raw []byte) error { return p.frame(w, raw) })
	p.stop = context.AfterFunc(w.ctx, func() { _ = body.Close() })
	return p
}

// A quiet watch waits with a small buffer for bytes from upstream. While they come fast, as those
// of the initial state do, it has a large one.
const (
	smallBuffer = 2 << 10
	largeBuffer = 16 << 10
)

var (
	smallBuffers = sync.Pool{New: func() any { return newBuffer(smallBuffer) }}
	largeBuffers = sync.Pool{New: func() any { return newBuffer(largeBuffer) }}
)

func newBuffer(size int) *[]byte { b := make([]byte, size); return &b }

func (p *streaming) step(w *watch) phase {
	pool := &smallBuffers
	if p.fast {
		pool = &largeBuffers
	}
	buf := pool.Get().(*[]byte)
	defer pool.Put(buf)
	n, err := p.body.Read(*buf)
	p.fast = n == len(*buf)
	_, malformed := p.split.Write((*buf)[:n])
	if malformed == nil && p.expired == nil && err == nil {
		return p
	}
	p.close()
	switch {
	case malformed != nil:
		err = malformed
	case p.expired != nil:
		return (&expired{p.after, p.expired}).step(w)
	case w.ctx.Err() != nil: // a server that sees that may end its stream as if all was sent
		err = w.ctx.Err()
	case errors.Is(err, io.EOF) && !p.split.Partial():
		err = io.EOF // the API server has ended the watch
	case w.served:
		w.Logger.Debug("watch waits for the link", zap.String("path", w.Info.Path), zap.String("resourceVersion", w.version), zap.Error(err))
		if p.after != nil {
			return p.after
		}
		return w.wait(0)
	} // otherwise the client has a part of the initial state, and must begin again
	if p.after != nil {
		p.after.leave(w)
	}
	return ended{err}
}

// frame takes a whole frame from upstream.
func (p *streaming) frame(w *watch, raw []byte) error {
	if p.expired != nil {
		return nil // the watch goes on behind a list, which has it
	}
	format := w.form.Format
	e, err := format.ParseEvent(raw)
	if p.after != nil {
		if err == nil && e.Type == wire.Error && isExpired(format, e.Object) {
			p.expired = bytes.Clone(e.Object)
			return nil
		}
		p.after.leave(w)
		p.after = nil
		resumptions.WithLabelValues("resumed").Inc()
	}
	w.out = format.AppendFrame(w.out, raw)
	if err == nil && e.Type == wire.Error {
		return nil // the API server ends the watch after it
	}
	var m wire.Meta
	if err == nil {
		m, err = format.ParseMeta(e.Object)
	}
	if err != nil {
		// The frame passes, but from here on nobody can say where the client is.
		w.Logger.Warn("cannot follow a watch any more; passing its frames on unrecorded", zap.String("path", w.Info.Path), zap.Error(err))
		w.served = false
		w.events.Event(cache.Unreadable())
		return nil
	}
	// Without sendInitialEvents nothing marks the end of the initial state, but all of it is
	// ADDED.
	if (e.Type == wire.Bookmark && m.InitialEventsEnd) || (e.Type != wire.Added && !w.Info.SendInitialEvents && m.ResourceVersion != "") {
		w.served = true
	}
	if w.served && m.ResourceVersion != "" {
		w.version = m.ResourceVersion
	}
	w.events.Event(e, m)
	return nil
}

func (p *streaming) close() {
	p.stop()
	_ = p.body.Close()
}

func (p *streaming) leave(w *watch) {
	p.close()
	if p.after != nil {
		p.after.leave(w)
	}
}

// waiting waits for the link, together with the other watches at its position.
type waiting struct {
	cohort *cohort
	// failures counts the attempts to go on since the last frame, or since the link was down.
	failures int
	// outage tells that the link was down meanwhile.
	outage bool
	// retryAfter is how long the API server has asked to wait.
	retryAfter time.Duration
}

// maxRetryAfter bounds how long a watch waits because the API server has asked for it.
const maxRetryAfter = time.Minute

// isTemporary tells that the API server may let the watch go on later.
func isTemporary(status int) bool {
	return status == http.StatusTooManyRequests || status >= http.StatusInternalServerError
}

// retryAfter reads the header of that name (RFC 9110 §10.2.3), in seconds as the API server
// gives it.
func retryAfter(resp *http.Response) time.Duration {
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil {
		return 0
	}
	return min(time.Duration(max(seconds, 0))*time.Second, maxRetryAfter)
}

// wait begins to wait at the watch's position.
func (w *watch) wait(failures int) *waiting {
	return &waiting{cohort: w.cohorts.join(w.position()), failures: failures}
}

func (p *waiting) leave(w *watch) { w.cohorts.leave(p.cohort) }

// step waits until the API server answers, and goes on from the last version.
func (p *waiting) step(w *watch) phase {
	ctx, cancel := w.lifetime()
	defer cancel()
	for {
		if !w.Upstream.Online() {
			// The outage explains the failures; the link's return is worth a try.
			p.failures, p.outage = 0, true
		}
		if err := w.Upstream.WaitOnline(ctx); err != nil {
			return p.end(w, w.over())
		}
		if !p.pause(ctx, w) {
			return p.end(w, w.over())
		}
		p.failures, p.retryAfter = p.failures+1, 0
		r, source := w.resumption(), w.Source
		source.Asked = w.Cache.Ask()
		resp, err := w.Upstream.RoundTrip(r)
		switch {
		case err == nil && !fromAPIServer(ctx, resp):
			w.Logger.Debug("something else answers in the API server's place; the watch waits on",
				zap.String("path", w.Info.Path), zap.Int("status", resp.StatusCode))
			resp.Body.Close()
		case err == nil && streamOf(resp) == w.form.Format:
			w.Credentials.Observe(r.Header, w.Source.Principal, w.Info.IsResource, resp.StatusCode)
			return newStreaming(w, resp.Body, p)
		case err == nil && isTemporary(resp.StatusCode):
			p.retryAfter = retryAfter(resp)
			_ = resp.Body.Close()
		case err == nil:
			return p.refused(w, source, resp)
		case w.ctx.Err() != nil:
			return p.end(w, w.over())
		}
	}
}

// fromAPIServer reports whether an answer is the API server's. It waits for the first bytes of the
// body if they must tell, until ctx ends.
func fromAPIServer(ctx context.Context, resp *http.Response) bool {
	body := resp.Body
	stop := context.AfterFunc(ctx, func() { _ = body.Close() })
	defer stop()
	return origin.FromAPIServer(resp)
}

// pause lets other watches of the site and of other sites come back as well. It reports false when
// the watch's lifetime has ended.
func (p *waiting) pause(ctx context.Context, w *watch) bool {
	var outage time.Duration
	var asked <-chan struct{}
	if p.outage { // once
		p.outage, outage, asked = false, w.Upstream.Outage(), w.cohorts.hurried()
	}
	timer := w.Clock.NewTimer(max(w.cohorts.delay(p.failures, outage), p.retryAfter))
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-asked:
	case <-ctx.Done():
		return false
	}
	return true
}

func (p *waiting) end(w *watch, next phase) phase {
	p.leave(w)
	return next
}

// refused takes an answer that is no stream. If the version is forgotten, the watch may go on
// all the same. For any other answer the client asks again, and gets it itself.
func (p *waiting) refused(w *watch, source record.Source, resp *http.Response) phase {
	w.Cache.Record(&source, resp)
	defer resp.Body.Close()
	format := w.form.Format
	if wire.FormatOf(resp.Header.Get("Content-Type")) == format {
		raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		if err == nil && isExpired(format, raw) {
			return (&expired{p, raw}).step(w)
		}
	}
	return p.end(w, ended{io.EOF})
}

// resumption is the request that goes on where the client is.
func (w *watch) resumption() *http.Request {
	r := w.request(w.ctx)
	query := r.URL.Query()
	query.Del("sendInitialEvents")
	query.Del("resourceVersionMatch")
	query.Set("resourceVersion", w.version)
	if left := w.remaining(); left > 0 {
		query.Set("timeoutSeconds", strconv.Itoa(int(left/time.Second)))
	}
	r.URL.RawQuery = query.Encode()
	if w.accept != "" {
		r.Header.Set("Accept", w.accept)
	}
	return r
}

// list is the request that lists what the watch selects, in its form. Its path is not that of a
// deprecated watch path, which would make it a watch again.
func (w *watch) list(ctx context.Context) *http.Request {
	r := w.request(ctx)
	query := url.Values{}
	for name, value := range map[string]string{"labelSelector": w.Info.LabelSelector, "fieldSelector": w.Info.FieldSelector} {
		if value != "" {
			query.Set(name, value)
		}
	}
	r.URL.Path, r.URL.RawPath, r.URL.RawQuery = w.Info.Path, "", query.Encode()
	r.Header.Set("Accept", w.form.AcceptList())
	return r
}

// request is a further request of the watch's principal.
func (w *watch) request(ctx context.Context) *http.Request {
	r := w.HTTP.Clone(ctx)
	// The token that the watch was opened with may have expired meanwhile.
	if _, subject, err := principal.Subject(r.Header); err == nil {
		r.Header.Set("Authorization", w.Credentials.Authorization(subject, r.Header.Get("Authorization")))
	}
	return r
}
