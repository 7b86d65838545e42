package dispatch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/sidecar/upstream"
)

// watch opens a watch. Upstream's answer decides whether there is one; when the
// link is down the cache's does.
func (f *Dispatcher) watch(r *http.Request, info request.Info) (*http.Response, error) {
	w := &watch{flow: f, request: r, info: info}
	w.ctx, w.cancel = context.WithCancel(r.Context())
	if info.Timeout > 0 {
		w.deadline = f.Clock.Now().Add(info.Timeout)
	}
	if f.Upstream.Online() {
		source := f.source(r, info)
		resp, err := f.Upstream.RoundTrip(r.WithContext(w.ctx))
		switch {
		case err == nil && streamOf(resp) == nil:
			// Not a stream that can be followed: it is the client's as it is.
			resp.Body = &cancelBody{resp.Body, w.cancel}
			return resp, nil
		case err == nil:
			f.believe(r, source.Principal, resp)
			w.follow(source, resp)
			resp.Body, resp.ContentLength = w, -1
			return resp, nil
		case !upstream.IsLinkError(err):
			w.cancel()
			return nil, err
		}
	}
	resp, err := w.replay()
	if err != nil {
		w.cancel()
	}
	return resp, err
}

// streamOf gives the format of a watch that can be followed, nil if it cannot.
func streamOf(resp *http.Response) wire.Format {
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Encoding") != "" {
		return nil
	}
	return formatOf(resp)
}

// watch is the body of a watch. Its Read runs the loop: it serves what is there,
// reads from upstream, and waits while there is no link. Closing it ends a Read
// that waits.
type watch struct {
	flow    *Dispatcher
	request *http.Request
	info    request.Info
	// ctx ends when the body is closed; it is the watch's own life.
	ctx      context.Context
	cancel   context.CancelFunc
	deadline time.Time // the client's timeoutSeconds; zero: none

	body   io.ReadCloser // upstream; nil: not connected
	form   request.Form  // of the objects, unless the client would rather have Tables
	format wire.Format   // of form
	split  wire.FrameSplitter
	rec    *record.Watch // nil: not recorded
	whose  string        // the subject that is recorded for; empty: none
	state  *replay.State // initial events still to be served from the cache
	out    []byte        // frames for the client
	off    int
	served bool   // from here on the client has the initial state
	last   string // version of the last event that the client has
	accept string // set when upstream must go on in the form that the cache began
	end    error  // what Read gives when out is empty

	company  *company    // nil: it does not wait, and did not
	failures int         // attempts to go on since the last frame, or since the link was down
	resumed  bool        // the next frame is the first behind last
	gone     []byte      // what the server says when it has forgotten last; nil: it has not
	missed   *difference // to be told to the client
	told     int         // changes of missed
}

var _ io.ReadCloser = (*watch)(nil)

// follow begins with a stream from upstream.
func (w *watch) follow(source record.Source, resp *http.Response) {
	w.body = resp.Body
	form := request.Form{Format: formatOf(resp), Representation: request.Object}
	if i := slices.IndexFunc(w.info.Forms(), func(f request.Form) bool { return f.Format == form.Format }); i >= 0 {
		form = w.info.Forms()[i]
	}
	w.speak(form)
	rv := w.info.ResourceVersion
	if !w.info.SendInitialEvents && rv != "" && rv != "0" {
		w.served, w.last = true, rv
	}
	w.record(source)
}

// speak sets the form of the stream to the client.
func (w *watch) speak(form request.Form) {
	w.form, w.format, w.split = form, form.Format, form.Format.NewFrames(w.frame)
}

func (w *watch) record(source record.Source) {
	w.whose = source.Principal
	recorder := w.flow.cache(&w.info).Recorder
	if recorder != nil && source.Principal != "" && !w.info.Unrecorded {
		w.rec = recorder.Watch(source, w.format)
	}
}

// replay begins without a link. A watch that only wants what comes next opens and
// stays quiet; one that wants the present state first needs the cache.
func (w *watch) replay() (*http.Response, error) {
	q, err := w.flow.prove(w.request, w.info)
	if err != nil {
		return nil, err
	}
	source := w.flow.source(w.request, w.info)
	source.Info.SendInitialEvents, source.Replayed = false, true
	form := w.flow.form(w.ctx, q)
	header := http.Header{"Content-Type": {form.Format.WatchMediaType()}, "Cache-Status": {"rockpool; hit"}}
	w.served, w.last = true, w.info.ResourceVersion
	if w.info.SendInitialEvents || w.last == "" || w.last == "0" {
		replayer := w.flow.cache(&w.info).Replayer
		if replayer == nil {
			return nil, noCache()
		}
		if w.state, err = replayer.State(w.ctx, q); err != nil {
			return nil, w.flow.refusal(w.info, err)
		}
		header, form = w.state.Header, w.state.Form
		w.last = w.state.ResourceVersion
	}
	w.speak(form)
	w.accept = w.info.AcceptForm(form)
	source.Info.ResourceVersion = w.last
	w.record(source)
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: w, ContentLength: -1,
	}, nil
}

// form is the form of a watch that opens before the server can choose one: that
// of the list behind which it watches, so that what comes next is recorded with
// it; else JSON, which the server has for every resource.
func (f *Dispatcher) form(ctx context.Context, q replay.Request) request.Form {
	forms := q.Info.Forms()
	if replayer := f.cache(&q.Info).Replayer; replayer != nil {
		if form, ok := replayer.Form(ctx, q); ok {
			return form
		}
	}
	for _, form := range forms {
		if form.Format == wire.JSON {
			return form
		}
	}
	return forms[0]
}

// Read gives whole frames: a frame that broke off with the link is left out, the
// next connection sends it again.
func (w *watch) Read(p []byte) (int, error) {
	for w.off == len(w.out) {
		if w.off = 0; cap(w.out) > keepBuffer {
			w.out = nil
		}
		w.out = w.out[:0]
		if w.end != nil {
			return 0, w.end
		}
		w.end = w.step()
	}
	n := copy(p, w.out[w.off:])
	w.off += n
	return n, nil
}

// step makes the next progress: some frames, a change of where they come from,
// or the end.
func (w *watch) step() (err error) {
	if w.state != nil {
		var last bool
		if w.out, last, err = w.state.AppendEvents(w.out); last {
			w.state = nil
		}
		return err
	}
	if w.missed != nil {
		w.tell()
		return nil
	}
	if w.body == nil {
		return w.reconnect()
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	n, err := w.body.Read(*buf)
	if _, bad := w.split.Write((*buf)[:n]); bad != nil {
		return bad
	}
	switch {
	case w.gone != nil:
		w.disconnect()
		return w.regain()
	case err == nil:
		return nil
	case errors.Is(err, io.EOF) && !w.split.Partial():
		return io.EOF // the server has ended the watch
	case w.ctx.Err() != nil:
		return w.ctx.Err()
	case !w.served:
		return err // part of the initial state is with the client; it must begin again
	}
	w.flow.Logger.Debug("watch waits for the link", zap.String("path", w.info.Path), zap.String("resourceVersion", w.last), zap.Error(err))
	w.disconnect()
	return nil
}

// disconnect leaves the stream, and forgets the frame that it broke off in.
func (w *watch) disconnect() {
	_ = w.body.Close() // it is of no use any more
	w.body = nil
	w.speak(w.form)
}

// frame takes a whole frame from upstream.
func (w *watch) frame(raw []byte) error {
	e, err := w.format.ParseEvent(raw)
	if w.resumed {
		w.resumed = false
		if err == nil && e.Type == wire.Error && w.saysGone(e.Object) {
			w.gone = bytes.Clone(e.Object)
			return nil
		}
		w.settled()
		w.failures = 0
		resumptions.WithLabelValues("resumed").Inc()
	}
	w.out = w.format.AppendFrame(w.out, raw)
	if err == nil && e.Type == wire.Error {
		return nil // the server ends the watch behind it
	}
	var m wire.Meta
	if err == nil {
		m, err = w.format.ParseMeta(e.Object)
	}
	if err != nil {
		// It passes, but nobody can say any more where the client is.
		w.flow.Logger.Warn("watch cannot be followed", zap.String("path", w.info.Path), zap.Error(err))
		w.served = false
		w.forget()
		return nil
	}
	// Without sendInitialEvents nothing marks the end of the initial state, but
	// all of it is ADDED.
	if (e.Type == wire.Bookmark && m.InitialEventsEnd) || (e.Type != wire.Added && !w.info.SendInitialEvents && m.ResourceVersion != "") {
		w.served = true
	}
	if w.served && m.ResourceVersion != "" {
		w.last = m.ResourceVersion
	}
	if w.rec != nil {
		w.rec.Event(e, m)
	}
	return nil
}

func (w *watch) forget() {
	if w.rec != nil {
		w.rec.Close()
		w.rec = nil
	}
}

// Close ends the watch.
func (w *watch) Close() error {
	w.cancel()
	w.settled()
	w.forget()
	if w.body != nil {
		return w.body.Close()
	}
	return nil
}

// keepBuffer is the largest buffer, in bytes, that a quiet watch holds on to.
const keepBuffer = 64 << 10

// buffers holds what is read from upstream until it is cut into frames.
var buffers = sync.Pool{New: func() any {
	buf := make([]byte, 16<<10)
	return &buf
}}

// cancelBody lets go of its context when it is closed.
type cancelBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *cancelBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
