package dispatch

import (
	"context"
	"errors"
	"io"
	"net/http"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/sidecar/tally"
	"rockpool.dev/sidecar/write"
	"rockpool.dev/store"
)

// offline answers without the API server.
func (d *Dispatcher) offline(x *exchange) (*http.Response, error) {
	traceOf(x.request.Context()).Offline = true
	subject, err := d.authenticate(x)
	if err != nil {
		return nil, err
	}
	resp, err := d.accept(x, subject)
	if err == nil && resp == nil {
		resp, err = d.replay(x, subject)
	}
	if err != nil {
		return nil, d.refusal(*x.info, err)
	}
	if x.info.Pretty && x.info.Class != request.ClassWatch && wire.FormatOf(resp.Header.Get("Content-Type")) == wire.JSON {
		resp.Body, resp.ContentLength = wire.Indent(resp.Body), -1
	}
	return resp, nil
}

// authenticate finds out, without the API server, who asks.
func (d *Dispatcher) authenticate(x *exchange) (subject string, err error) {
	subject, err = d.Verifier.Verify(x.request.Header)
	switch {
	case errors.Is(err, principal.ErrNoKeys), errors.Is(err, principal.ErrNoOwn):
		return "", unavailable(err.Error()) // that is not the caller's fault
	case err != nil:
		return "", unauthorized(err)
	case x.info.Impersonated:
		return "", unavailable("only the API server can decide on impersonation")
	}
	return subject, nil
}

// accept has an acceptor answer. It gives nil when the cache must answer.
func (d *Dispatcher) accept(x *exchange, subject string) (*http.Response, error) {
	switch {
	case x.info.Unclean:
		return nil, unavailable("the cache does not answer for a path with an empty or a dot segment")
	case x.info.Head && x.info.IsBuiltin() && x.info.Subresource == "":
		return nil, apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, "", schema.GroupResource{}, "", "", 0, false)
	}
	if x.acceptor != nil {
		q := x.write()
		q.Principal = subject
		q.Recorded = func(ctx context.Context) ([]byte, error) { return d.recorded(ctx, x, subject) }
		resp, err := x.acceptor.Accept(x.request.Context(), q)
		if err == nil && resp != nil && x.changes() {
			d.Credentials.Remember(x.request.Header, subject) // it is proven, and the newest one
		}
		if err != nil || resp != nil {
			return resp, err
		}
	}
	switch {
	case x.reviewed && x.review == nil:
		return nil, unavailable("the review is too large to be recorded")
	case !x.info.IsRead() && !x.info.IsReview():
		return nil, unavailable("nothing is written while the link is down; try again later")
	}
	return nil, nil
}

// replay has the cache answer.
func (d *Dispatcher) replay(x *exchange, subject string) (*http.Response, error) {
	ctx := x.request.Context()
	d.flush(ctx, x.cache)
	q := replay.Request{Principal: subject, Info: *x.info, Path: x.source.Path, IfNoneMatch: x.request.Header.Get("If-None-Match")}
	switch {
	case x.info.Class == request.ClassWatch:
		return d.replayWatch(x, &q)
	case x.review != nil:
		return x.cache.Review(ctx, q, x.review.name, d.ReviewLifetime, x.review.open)
	}
	resp, err := x.cache.Answer(ctx, q)
	if errors.Is(err, replay.ErrNotRecorded) {
		return d.replayInJSON(ctx, x, q, err)
	}
	return resp, err
}

// replayWatch has the cache answer a watch.
func (d *Dispatcher) replayWatch(x *exchange, q *replay.Request) (*http.Response, error) {
	return d.watches.Replay(x.watch(d.Agents), *q)
}

// replayInJSON has the cache answer in JSON where it has no answer, which err says, in the form that
// was asked for.
func (d *Dispatcher) replayInJSON(ctx context.Context, x *exchange, q replay.Request, err error) (*http.Response, error) {
	inJSON, mediaType, ok := q.Info.InJSON()
	if !ok {
		return nil, err
	}
	q.Info = inJSON
	resp, err := x.cache.Answer(ctx, q)
	return d.encode(mediaType, resp, err)
}

// recorded gives an object as the cache has it, in JSON.
func (d *Dispatcher) recorded(ctx context.Context, x *exchange, subject string) ([]byte, error) {
	info := *x.info
	info.Verb, info.Class = request.Get, request.ClassGet
	info.Accept, info.RawAccept = request.ParseAccept(wire.MediaTypeJSON), wire.MediaTypeJSON
	d.flush(ctx, x.cache)
	resp, err := x.cache.Answer(ctx, replay.Request{Principal: subject, Info: info, Path: x.source.Path})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// flush waits until the latest answers of the API server are written. A client must not see an
// older state than it has seen already.
func (d *Dispatcher) flush(ctx context.Context, c *cache.Cache) {
	if c.Flushed() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cache.FlushTimeout)
	defer cancel()
	if err := c.Flush(ctx); err != nil {
		d.Repeated.Write(tally.Line{
			Level:   zap.WarnLevel,
			Message: "cannot write the latest answers in time; answering from what is written",
			Err:     err,
		})
	}
}

// refusal turns an error of an offline answer into a Status that the client understands.
func (d *Dispatcher) refusal(info request.Info, err error) error {
	switch {
	case errors.Is(err, replay.ErrNotRecorded), errors.Is(err, write.ErrNeedsServer), errors.Is(err, cache.ErrClosed):
		return unavailable(err.Error())
	case isStatus(err), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, store.ErrGone): // the recorder has logged it, once
		return unavailable("the file of the cache was lost and there is no new one yet")
	}
	d.Repeated.Write(tally.Line{
		Level: zap.ErrorLevel, Message: "cannot answer from the cache; answering 503",
		Fields: []zap.Field{zap.String("path", info.Path)}, Err: err,
	})
	return unavailable("the cache cannot be read")
}
