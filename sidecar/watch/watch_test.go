package watch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/tests/eventually"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stream is a body from the API server. It gives only the bytes that the test writes.
type stream struct {
	*io.PipeReader
	server  *io.PipeWriter
	reading atomic.Bool // since the first Read
	closed  atomic.Bool
}

func newStream() *stream {
	r, w := io.Pipe()
	return &stream{PipeReader: r, server: w}
}

func (s *stream) Read(p []byte) (int, error) {
	s.reading.Store(true)
	return s.PipeReader.Read(p)
}

func (s *stream) Close() error {
	s.closed.Store(true)
	return s.PipeReader.Close()
}

// interrupt ends the stream as a broken link does.
func (s *stream) interrupt() { _ = s.server.CloseWithError(upstreamtest.ErrDown) }

// response is a successful answer to a watch.
func (s *stream) response() *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}, "Audit-Id": {"1"}}, Body: s}
}

// harness is a Watches without a cache, over a link that the test controls.
type harness struct {
	*Watches
	link  *upstreamtest.Link
	clock *clocktesting.FakeClock
}

func newHarness(t *testing.T) *harness {
	h := &harness{link: upstreamtest.NewLink(), clock: clocktesting.NewFakeClock(time.Now())}
	h.Watches = New(Options{
		Upstream: h.link, Credentials: principal.NewCredentials(nil, nil), Logger: zaptest.NewLogger(t), Clock: h.clock,
	})
	return h
}

// watchFrom is a client's request for a watch from resourceVersion 10.
func watchFrom(ctx context.Context) Request {
	r := httptest.NewRequest("GET", "/api/v1/namespaces/shop/configmaps?watch=true&resourceVersion=10", nil).WithContext(ctx)
	r.Header.Set("User-Agent", "shop/1")
	return Request{HTTP: r, Info: request.Parse(r), Cache: &cache.Cache{}}
}

// open returns the body of a watch that opens online.
func (h *harness) open(ctx context.Context, first *stream) io.ReadCloser {
	resp := first.response()
	h.Follow(watchFrom(ctx), resp)
	return resp.Body
}

// openOffline returns the body of a watch that waits before its first Read.
func (h *harness) openOffline(t *testing.T) io.ReadCloser {
	t.Helper()
	resp, err := h.Replay(watchFrom(t.Context()), replay.Request{})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Body
}

// members returns how many watches wait, and in how many cohorts.
func (h *harness) members() (watches, positions int) {
	h.cohorts.mu.Lock()
	defer h.cohorts.mu.Unlock()
	return h.cohorts.count, len(h.cohorts.at)
}

func (h *harness) wantMembers(t *testing.T, watches, positions int) {
	t.Helper()
	if w, p := h.members(); w != watches || p != positions {
		t.Errorf("%d watches wait at %d positions, want %d at %d", w, p, watches, positions)
	}
}

// reader is a goroutine that is in Read until the watch ends.
type reader struct {
	got []byte
	err chan error
}

func read(body io.Reader) *reader {
	r := &reader{err: make(chan error, 1)}
	go func() {
		buf := make([]byte, 512)
		for {
			n, err := body.Read(buf)
			r.got = append(r.got, buf[:n]...)
			if err != nil {
				r.err <- err
				return
			}
		}
	}()
	return r
}

// waits are the states in which a Read waits. Each function puts a streaming watch into one state
// and returns a condition that holds once Read waits there.
var waits = map[string]func(h *harness, first, second *stream) func() bool{
	"streaming": func(_ *harness, first, _ *stream) func() bool { return first.reading.Load },
	"waiting for the link": func(h *harness, first, _ *stream) func() bool {
		h.link.Cut()
		first.interrupt()
		return func() bool { return h.link.Waiting() == 1 }
	},
	"waiting before its resumption": func(h *harness, first, _ *stream) func() bool {
		first.interrupt()
		return h.clock.HasWaiters
	},
	"waiting for the answer to its resumption": func(h *harness, first, _ *stream) func() bool {
		h.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		first.interrupt()
		return func() bool { h.clock.Step(spreadMost); return len(h.link.Requests()) == 1 }
	},
	"streaming again, before the first frame": func(h *harness, first, second *stream) func() bool {
		h.link.SetAnswer(func(*http.Request) (*http.Response, error) { return second.response(), nil })
		first.interrupt()
		return func() bool { h.clock.Step(spreadMost); return second.reading.Load() }
	},
}

// testWaits lets a Read wait in each state, ends the watch, and checks that nothing of it is left.
func testWaits(t *testing.T, end func(t *testing.T, body io.Closer, cancel func())) {
	for name, enter := range waits {
		t.Run(name, func(t *testing.T) {
			h, first, second := newHarness(t), newStream(), newStream()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			body := h.open(ctx, first)
			r := read(body)
			eventually.True(t, "Read waits", enter(h, first, second))
			end(t, body, cancel)
			if err := eventually.Receive(t, "the end of Read", r.err); !errors.Is(err, context.Canceled) {
				t.Errorf("Read returned %v", err)
			}
			h.wantMembers(t, 0, 0)
			if !first.closed.Load() || second.reading.Load() && !second.closed.Load() {
				t.Error("a body from the API server is open")
			}
			if err := body.Close(); err != nil {
				t.Error(err)
			}
			if n, err := body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, context.Canceled) {
				t.Errorf("Read after Close returned %d, %v", n, err)
			}
		})
	}
}

func TestCloseEndsAReadThatWaits(t *testing.T) {
	testWaits(t, func(t *testing.T, body io.Closer, _ func()) {
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestTheEndOfTheClientsRequestEndsAReadThatWaits(t *testing.T) {
	testWaits(t, func(_ *testing.T, _ io.Closer, cancel func()) { cancel() })
}

func TestCloseBeforeTheFirstReadClosesTheStream(t *testing.T) {
	h, first := newHarness(t), newStream()
	body := h.open(t.Context(), first)
	if err := body.Close(); err != nil || !first.closed.Load() {
		t.Errorf("closed: %v, %v", first.closed.Load(), err)
	}
}

func TestASecondCloseLeavesTheCohortToItsOtherWatch(t *testing.T) {
	h := newHarness(t)
	h.link.Cut()
	one, two := h.openOffline(t), h.openOffline(t)
	h.wantMembers(t, 2, 1)
	for range 2 {
		if err := one.Close(); err != nil {
			t.Error(err)
		}
		h.wantMembers(t, 1, 1)
	}
	if err := two.Close(); err != nil {
		t.Error(err)
	}
	h.wantMembers(t, 0, 0)
}

func TestCloseOfAResumedWatchWithoutAFrameLeavesItsCohort(t *testing.T) {
	h, second := newHarness(t), newStream()
	w := h.openOffline(t).(*watch)
	w.phase = newStreaming(w, second, w.phase.(*waiting))
	h.wantMembers(t, 1, 1)
	if err := w.Close(); err != nil || !second.closed.Load() {
		t.Errorf("closed: %v, %v", second.closed.Load(), err)
	}
	h.wantMembers(t, 0, 0)
}

func TestAResumedWatchLeavesItsCohortAtItsFirstFrame(t *testing.T) {
	const frame = `{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"11"}}}` + "\n"
	h, first, second := newHarness(t), newStream(), newStream()
	body := h.open(t.Context(), first)
	r := read(body)
	eventually.True(t, "the watch streams again", waits["streaming again, before the first frame"](h, first, second))
	h.wantMembers(t, 1, 1)
	if _, err := io.Copy(second.server, strings.NewReader(frame)); err != nil {
		t.Error(err)
	}
	eventually.True(t, "the watch leaves its cohort", func() bool { watches, _ := h.members(); return watches == 0 })
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	eventually.Receive(t, "the end of Read", r.err)
	h.wantMembers(t, 0, 0)
	if string(r.got) != frame {
		t.Errorf("the client got %q", r.got)
	}
}

func TestWatchesAreCountedByWhatTheyDo(t *testing.T) {
	h := newHarness(t)
	open, waiting := testutil.ToFloat64(watchCount.WithLabelValues("open")), testutil.ToFloat64(watchCount.WithLabelValues("waiting"))
	want := func(when string, moreOpen, moreWaiting float64) {
		t.Helper()
		eventually.True(t, when, func() bool {
			return testutil.ToFloat64(watchCount.WithLabelValues("open")) == open+moreOpen && testutil.ToFloat64(watchCount.WithLabelValues("waiting")) == waiting+moreWaiting
		})
	}
	first := newStream()
	body := h.open(t.Context(), first)
	want("one is open", 1, 0)
	other := h.openOffline(t)
	want("another waits", 1, 1)
	h.link.Cut()
	read := make(chan struct{})
	go func() { defer close(read); _, _ = io.Copy(io.Discard, body) }()
	first.interrupt()
	want("both wait", 0, 2)
	for _, o := range h.Opened() {
		if o.State != "waiting" || o.Path != "/api/v1/namespaces/shop/configmaps?watch=true&resourceVersion=10" || o.Agent != "shop/1" {
			t.Errorf("%+v is open", o)
		}
	}
	if n := len(h.Opened()); n != 2 {
		t.Errorf("%d are open", n)
	}
	for _, b := range []io.Closer{body, body, other} {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	<-read
	want("both are closed", 0, 0)
	if all := h.Opened(); len(all) > 0 {
		t.Errorf("%+v is open", all)
	}
}
