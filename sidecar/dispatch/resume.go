package dispatch

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protowire"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/upstream"
)

var resumptions = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_watch_resumptions_total",
	Help: "Watches that went on after their link broke, by result: resumed (behind the last version), compared (the server had forgotten that version, and the client was sent what had changed), gone (the client has to list again).",
}, []string{"result"})

// reconnect waits for the link and goes on behind the last version.
func (w *watch) reconnect() error {
	ctx, cancel := w.life()
	defer cancel()
	if w.company == nil {
		w.company = w.flow.waiting.join(w.place())
	}
	for {
		if !w.flow.Upstream.Online() {
			w.failures = 0 // that is known; when it is up again is worth a try
		}
		if err := w.flow.Upstream.WaitOnline(ctx); err != nil {
			return w.over()
		}
		select {
		case <-w.flow.Clock.After(w.flow.waiting.delay(w.failures)):
		case <-ctx.Done():
			return w.over()
		}
		w.failures++
		r := w.resumption()
		resp, err := w.flow.Upstream.RoundTrip(r)
		switch {
		case err == nil && streamOf(resp) == w.format:
			w.flow.believe(r, w.whose, resp)
			w.body, w.resumed = resp.Body, true
			return nil
		case err == nil:
			return w.refused(resp)
		case w.ctx.Err() != nil:
			return w.ctx.Err()
		}
	}
}

// life is the context of what the watch does for its client, which ends also when the
// client's timeoutSeconds are over.
func (w *watch) life() (context.Context, context.CancelFunc) {
	if w.deadline.IsZero() {
		return context.WithCancel(w.ctx)
	}
	return context.WithTimeout(w.ctx, w.deadline.Sub(w.flow.Clock.Now()))
}

// over is how the watch ends when its life has.
func (w *watch) over() error {
	if w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	return io.EOF // the client's timeoutSeconds are over
}

// place is where the watch is.
func (w *watch) place() place {
	return place{w.whose, w.info.Path, w.info.LabelSelector, w.info.FieldSelector, w.form, w.last}
}

// settled is called when it is known how the watch goes on, or that it does not.
func (w *watch) settled() {
	if w.company != nil {
		w.flow.waiting.leave(w.company)
		w.company = nil
	}
}

// resumption is the request that goes on where the client is.
func (w *watch) resumption() *http.Request {
	r := w.follower(w.ctx)
	query := r.URL.Query()
	query.Del("sendInitialEvents")
	query.Del("resourceVersionMatch")
	query.Set("resourceVersion", w.last)
	if !w.deadline.IsZero() {
		left := w.deadline.Sub(w.flow.Clock.Now()).Round(time.Second)
		query.Set("timeoutSeconds", strconv.Itoa(max(1, int(left/time.Second))))
	}
	r.URL.RawQuery = query.Encode()
	if w.accept != "" {
		r.Header.Set("Accept", w.accept)
	}
	return r
}

// follower is a further request of the watch's principal.
func (w *watch) follower(ctx context.Context) *http.Request {
	r := w.request.Clone(ctx)
	// The token that the watch was opened with may have expired meanwhile.
	if _, subject, err := principal.Subject(r.Header); err == nil {
		r.Header.Set("Authorization", w.flow.authorization(subject, r.Header.Get("Authorization")))
	}
	return r
}

// refused takes an answer that is no stream. If the version is gone the watch may go on
// all the same; for anything else the client asks again and hears it itself.
func (w *watch) refused(resp *http.Response) error {
	defer resp.Body.Close()
	if formatOf(resp) != w.format {
		return io.EOF
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || !w.saysGone(raw) {
		return io.EOF
	}
	w.gone = raw
	return w.regain()
}

// regain finds out what the client has missed between its version, which the server has
// forgotten, and now. If that cannot be known, the client hears what the server says.
func (w *watch) regain() error {
	status := w.gone
	w.gone = nil
	ctx, cancel := w.life()
	defer cancel()
	d, err := w.difference(ctx)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return w.over()
	case upstream.IsLinkError(err):
		return nil // it is asked again when the link is back
	default:
		resumptions.WithLabelValues("gone").Inc()
		w.flow.Logger.Info("a watch ends because the API server has forgotten its version; its client has to list again",
			zap.String("path", w.info.Path), zap.String("resourceVersion", w.last), zap.NamedError("why", err))
		w.out = w.format.AppendEvent(w.out, wire.Error, status)
		return io.EOF
	}
	w.settled()
	resumptions.WithLabelValues("compared").Inc()
	w.flow.Logger.Info("a watch goes on behind a list, because the API server has forgotten its version",
		zap.String("path", w.info.Path), zap.String("from", w.last), zap.String("to", d.version), zap.Int("events", len(d.changes)))
	if w.rec != nil {
		w.rec.Difference(d.changes, d.version)
	}
	w.missed, w.told, w.last = d, 0, d.version
	return nil
}

// tell adds some of what the client has missed to out.
func (w *watch) tell() {
	d := w.missed
	for ; w.told < len(d.changes) && len(w.out) < keepBuffer; w.told++ {
		c := d.changes[w.told]
		w.out = w.format.AppendEvent(w.out, c.Type, c.Object)
	}
	if w.told < len(d.changes) {
		return
	}
	if w.info.AllowWatchBookmarks {
		w.out = w.format.AppendEvent(w.out, wire.Bookmark, w.format.Bookmark(d.kind, d.apiVersion, d.version, false))
	}
	w.missed = nil
}

// saysGone tells that an object is the server's word for a version that it has
// forgotten: a Status with the code 410 (metav1.Status).
func (w *watch) saysGone(object []byte) bool {
	m, err := w.format.ParseMeta(object)
	if err != nil || m.Kind != "Status" {
		return false
	}
	bare, _ := w.format.Bare(object)
	code, err := w.format.Lookup(bare, wire.Field{Members: []string{"code"}, Numbers: []protowire.Number{6}, Type: wire.Integer})
	return err == nil && code == strconv.Itoa(http.StatusGone)
}
