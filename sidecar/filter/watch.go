package filter

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/filter/rule"
)

// isWatch reports whether an answer is a stream of events that can be cut out of it.
func isWatch(resp *http.Response) bool {
	return resp.StatusCode == http.StatusOK && resp.Header.Get("Content-Encoding") == "" &&
		wire.FormatOf(resp.Header.Get("Content-Type")) != nil
}

// watch answers a WATCH. A client that watches from a list goes on with its past; a client that gets
// the present state first has none.
func (q *query) watch() (*http.Response, error) {
	f := q.filter
	version := q.info.ResourceVersion
	p := &past{scope: q.scope(), view: q.view, hidden: map[uint64]struct{}{}}
	initial := q.info.SendInitialEvents || version == "" || version == "0"
	if !initial {
		before := f.pasts.find(p.scope, func(p *past) bool { return p.at(version) })
		if before == nil {
			unknownPast.Inc()
			return nil, expired("the list from which to watch was not read through this sidecar, or too long ago")
		}
		p = before.copy()
		p.position, p.version = number(version), version // what came after it comes again
	}
	resp, err := f.Next.RoundTrip(q.cuttable())
	if err != nil || !isWatch(resp) {
		return resp, err
	}
	w := &watch{
		query: q, past: p, format: wire.FormatOf(resp.Header.Get("Content-Type")), body: resp.Body,
		chunks: make(chan chunk), taken: make(chan struct{}), woken: make(chan struct{}, 1),
		initial: q.info.SendInitialEvents,
	}
	if initial && !q.info.SendInitialEvents {
		w.sent = map[uint64]struct{}{}
	}
	w.form = request.Form{Format: w.format, Representation: request.Object}
	for _, form := range q.info.Forms() {
		if form.Format == w.format {
			w.form = form
			break
		}
	}
	w.open()
	resp.Body = w
	changed(resp)
	return resp, nil
}

// watch is the body of a filtered watch. A goroutine of its own reads the body below, so that Read can
// also answer to changes of the view. Close ends both.
type watch struct {
	*query
	past   *past
	format wire.Format
	form   request.Form // of the objects
	body   io.ReadCloser
	split  wire.FrameSplitter

	chunks chan chunk
	taken  chan struct{} // Read is done with the chunk
	woken  chan struct{} // the view may have changed
	ctx    context.Context
	cancel context.CancelFunc
	done   func() bool // stops the waiting for the end of the request
	pump   sync.WaitGroup

	// initial tells that the initial events are not complete. The view does not change meanwhile.
	initial bool
	// sent has the keys of objects that were sent or hidden, for a client that gets the present
	// state first and no word of its end; nil: every object up to the position is known.
	sent map[uint64]struct{}

	reading    sync.Mutex // held by Read, and by Close when it tidies up
	correction *correction
	retry      clock.Timer // of a correction that failed; nil: none
	failures   int
	out        []byte
	off        int
	err        error
}

// chunk is bytes of the body below.
type chunk struct {
	data []byte
	err  error
}

func (w *watch) open() {
	// Further requests are not the client's own, so they have none of the values of its context.
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.done = context.AfterFunc(w.request.Context(), w.cancel)
	w.split = w.format.NewFrames(w.frame)
	w.past.live = true
	w.filter.pasts.add(w.past)
	w.filter.mu.Lock()
	w.filter.watches[w] = struct{}{}
	w.filter.mu.Unlock()
	if w.follower != nil {
		w.follower.subscribe(w)
	}
	w.wake() // the view of the past may be an old one
	w.pump.Go(func() {
		buf := make([]byte, 8<<10)
		for {
			n, err := w.body.Read(buf)
			select {
			case w.chunks <- chunk{buf[:n], err}:
			case <-w.ctx.Done():
				return
			}
			select {
			case <-w.taken:
			case <-w.ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
}

// wake has the watch look at its view again.
func (w *watch) wake() {
	select {
	case w.woken <- struct{}{}:
	default: // it is woken already
	}
}

// Read gives whole frames.
func (w *watch) Read(p []byte) (int, error) {
	w.reading.Lock()
	defer w.reading.Unlock()
	for w.off == len(w.out) {
		w.off, w.out = 0, wire.Reuse(w.out)
		if w.err != nil {
			return 0, w.err
		}
		w.step()
	}
	n := copy(p, w.out[w.off:])
	w.off += n
	return n, nil
}

// step makes the next progress. While the watch is corrected it takes nothing from below.
func (w *watch) step() {
	if w.correction != nil {
		w.correct()
		return
	}
	var retry <-chan time.Time
	if w.retry != nil {
		retry = w.retry.C()
	}
	select {
	case c := <-w.chunks:
		_, err := w.split.Write(c.data)
		if w.err = c.err; err != nil {
			w.filter.failed("", w.resource, err)
			w.err = err // what follows cannot be cut into events
		}
		if w.err == nil {
			select {
			case w.taken <- struct{}{}:
			case <-w.ctx.Done(): // the pump has ended
			}
		}
	case <-w.woken:
		w.look()
	case <-retry:
		w.retry = nil
		w.look()
	case <-w.ctx.Done():
		w.err = w.ctx.Err()
	}
}

// frame takes an event from below.
func (w *watch) frame(raw []byte) error {
	event, err := w.format.ParseEvent(raw)
	if err == nil && event.Type != wire.Error {
		err = w.event(raw, event)
	} else {
		w.out = w.format.AppendFrame(w.out, raw)
	}
	if err != nil {
		w.filter.failed("", w.resource, err)
		w.out = w.format.AppendFrame(w.out, raw)
	}
	return nil
}

// event sends what an event means to the client. It has sent nothing if it returns an error.
func (w *watch) event(raw []byte, event wire.Event) error {
	inner, err := w.format.Inner(event.Object)
	if err != nil {
		return err
	}
	table := isTable(w.format, inner)
	if table {
		if inner, err = firstRow(inner); err != nil {
			return err
		}
	}
	if event.Type == wire.Bookmark {
		return w.bookmark(raw, event, inner)
	}
	if inner == nil { // a row without object
		w.out = w.format.AppendFrame(w.out, raw)
		return nil
	}
	o := rule.Object{Format: w.format, Resource: w.resource, Raw: inner}
	key, version, err := o.Identity()
	if err != nil {
		return err
	}
	p := w.past
	edited, keep := w.apply(&p.view, &o)
	hash := w.filter.pasts.hash(key)
	p.mu.Lock()
	kind, told := p.tell(event.Type, hash, keep)
	if !w.initial && number(version) >= p.position {
		p.position, p.version = number(version), version
	}
	// From here on, hidden is not what it was for a client at an older version: it would be told
	// of an object twice, or not at all.
	if kind != event.Type && told || event.Type == wire.Deleted && !told {
		p.floor = p.position
	}
	p.mu.Unlock()
	if w.sent != nil {
		w.sent[hash] = struct{}{}
	}
	switch {
	case !told:
		hiddenObjects.WithLabelValues(w.resource.String()).Inc()
	case !keep || same(edited, inner):
		if kind == event.Type {
			w.out = w.format.AppendFrame(w.out, raw)
		} else {
			w.out = w.format.AppendEvent(w.out, kind, event.Object)
		}
	default:
		changedObjects.WithLabelValues(w.resource.String()).Inc()
		if table {
			edited, _ = w.table(&p.view, event.Object)
		} else {
			edited = wrap(w.format, event.Object, edited)
		}
		w.out = w.format.AppendEvent(w.out, kind, edited)
	}
	return nil
}

// tell returns the type of the event that the client is sent, and false if it is sent none.
func (p *past) tell(event string, key uint64, keep bool) (kind string, told bool) {
	_, hidden := p.hidden[key]
	switch {
	case event == wire.Deleted:
		delete(p.hidden, key)
		return event, !hidden
	case keep && hidden:
		delete(p.hidden, key)
		return wire.Added, true
	case keep:
		return event, true
	}
	p.hidden[key] = struct{}{}
	return wire.Deleted, !hidden && event != wire.Added
}

// bookmark passes a bookmark.
func (w *watch) bookmark(raw []byte, event wire.Event, inner []byte) error {
	m, err := w.format.ParseMeta(event.Object)
	if inner != nil && err == nil && m.ResourceVersion == "" { // a Table has it in its row
		o := rule.Object{Format: w.format, Raw: inner}
		_, m.ResourceVersion, err = o.Identity()
	}
	if err != nil {
		return err
	}
	w.out = w.format.AppendFrame(w.out, raw)
	if w.initial && m.InitialEventsEnd {
		w.initial = false
		w.past.set(m.ResourceVersion)
		w.wake()
		return nil
	}
	w.past.mu.Lock()
	defer w.past.mu.Unlock()
	if !w.initial && m.ResourceVersion != "" {
		w.past.position, w.past.version = number(m.ResourceVersion), m.ResourceVersion
	}
	return nil
}

// Close ends the watch.
func (w *watch) Close() error {
	w.done()
	w.cancel()
	err := w.body.Close()
	w.pump.Wait()
	w.reading.Lock()
	defer w.reading.Unlock()
	if w.correction != nil {
		w.correction.close()
		w.correction = nil
	}
	if w.retry != nil {
		w.retry.Stop()
	}
	w.err = context.Canceled
	w.filter.mu.Lock()
	delete(w.filter.watches, w)
	w.filter.mu.Unlock()
	if w.follower != nil {
		w.follower.unsubscribe(w)
	}
	w.filter.pasts.end(w.past)
	w.release()
	return err
}
