package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/sidecar/write"
	"rockpool.dev/store"
	"rockpool.dev/tests/eventually"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	core   = "/api/v1/namespaces/shop/events"
	events = "/apis/events.k8s.io/v1/namespaces/shop/events"
)

// server is the link and the API server. It creates each name once. The test can replace its
// answers.
type server struct {
	*upstreamtest.Link // offline at first
	mu                 sync.Mutex
	events             map[string]write.Object // by path
	sent               []string                // METHOD principal path
	next               []upstreamtest.AnswerFunc
	intercept          upstreamtest.AnswerFunc
}

func newServer() *server {
	s := &server{Link: upstreamtest.NewLink(), events: map[string]write.Object{}}
	s.Cut()
	return s
}

// answerNext replaces the answers to the next requests.
func (s *server) answerNext(next ...upstreamtest.AnswerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = append(s.next, next...)
}

func (s *server) Send(principal string, r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.sent = append(s.sent, r.Method+" "+principal+" "+r.URL.Path)
	f := s.intercept
	if len(s.next) > 0 {
		f, s.next = s.next[0], s.next[1:]
	}
	s.mu.Unlock()
	if f != nil {
		return f(r)
	}
	return s.serve(r)
}

// serve answers as an API server does.
func (s *server) serve(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	o, err := write.Decode(raw)
	if err != nil {
		return nil, err
	}
	switch r.Method {
	case http.MethodPost:
		path := r.URL.Path + "/" + o.Text("metadata", "name")
		if s.events[path] != nil {
			return statusResponse(409, "AlreadyExists"), nil
		}
		s.events[path] = o
		return statusResponse(201, ""), nil
	case http.MethodPatch:
		have := s.events[r.URL.Path]
		if have == nil {
			return statusResponse(404, "NotFound"), nil
		}
		write.Patch(o).Apply(have)
		return statusResponse(200, ""), nil
	}
	return statusResponse(405, "MethodNotAllowed"), nil
}

func statusResponse(code int, reason string) *http.Response {
	body := fmt.Sprintf(`{"kind":"Status","code":%d,"reason":%q,"message":"the-body-of-an-event"}`, code, reason)
	return &http.Response{StatusCode: code, Body: io.NopCloser(strings.NewReader(body))}
}

func respond(code int, reason string) upstreamtest.AnswerFunc {
	return func(*http.Request) (*http.Response, error) { return statusResponse(code, reason), nil }
}

func fail(err error) upstreamtest.AnswerFunc {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

// loseAnswer carries the request out and loses its answer to an error.
func (s *server) loseAnswer(err error) upstreamtest.AnswerFunc {
	return func(r *http.Request) (*http.Response, error) {
		if _, failure := s.serve(r); failure != nil {
			return nil, failure
		}
		return nil, err
	}
}

var errLink = errors.New("the link broke")

type harness struct {
	*Outbox
	t     *testing.T
	db    *store.DB
	dir   string
	clock *clocktesting.FakeClock
	logs  *observer.ObservedLogs
	*server
}

func newHarness(t *testing.T, change ...func(*Options)) *harness {
	t.Helper()
	g := &harness{t: t, dir: t.TempDir(), clock: clocktesting.NewFakeClock(time.UnixMilli(1_700_000_000_000)), server: newServer()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("requests: %q\nlog: %v", g.requests(), g.logs.All())
		}
	})
	g.open(change...)
	return g
}

func (g *harness) open(change ...func(*Options)) {
	g.t.Helper()
	db, err := store.Open(g.t.Context(), g.dir, store.Options{})
	if err != nil {
		g.t.Fatal(err)
	}
	g.db = db
	g.t.Cleanup(func() { _ = db.Close() })
	zapper, logs := observer.New(zap.DebugLevel)
	g.logs = logs
	o := Options{Store: db, MaxCount: 100, MaxAge: time.Hour, Logger: zap.New(zapper), Clock: g.clock}
	for _, f := range change {
		f(&o)
	}
	g.Outbox = New(o)
	if err := g.Load(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
}

// restart replaces the Outbox, as a restart of the sidecar does.
func (g *harness) restart(change ...func(*Options)) {
	g.t.Helper()
	if err := g.db.Close(); err != nil {
		g.t.Fatal(err)
	}
	g.open(change...)
}

// run delivers until the test ends or stop is called.
func (g *harness) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx, g.server) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			g.t.Error(err)
		}
	})
	g.t.Cleanup(stop)
	return stop
}

// retry ends the pause before the next attempt.
func (g *harness) retry() {
	g.t.Helper()
	eventually.True(g.t, "the delivery pauses", g.clock.HasWaiters)
	g.clock.Step(longestRetry)
}

func (g *harness) waitUntilEmpty() {
	g.t.Helper()
	eventually.True(g.t, "the queue is empty", func() bool { return len(g.snapshot()) == 0 })
	if rows, err := g.db.Outbox(g.t.Context()); err != nil || len(rows) > 0 {
		g.t.Errorf("%v are in the store, %v", rows, err)
	}
}

func (g *harness) requests() []string {
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	return slices.Clone(g.sent)
}

func (g *harness) eventAt(path string) write.Object {
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	return g.events[path]
}

// write returns the answer to a write that is offered to the Outbox, or the code and message of
// its error.
func (g *harness) write(method, path, contentType, body string) (code int, answer write.Object, message string) {
	g.t.Helper()
	return g.writeAs("web", method, path, contentType, body)
}

var errNotRecorded = errors.New("not recorded")

func (g *harness) writeAs(principal, method, path, contentType, body string) (code int, answer write.Object, message string) {
	g.t.Helper()
	info := request.Parse(httptest.NewRequest(method, path, nil))
	if !g.Handles(&info) {
		g.t.Fatalf("%s %s is not handled", method, path)
	}
	resp, err := g.Accept(g.t.Context(), write.Request{Principal: principal, Info: &info, ContentType: contentType, Body: []byte(body),
		Recorded: func(context.Context) ([]byte, error) {
			if strings.HasSuffix(path, "/recorded") {
				return []byte(`{"kind":"Event","apiVersion":"v1","metadata":{"namespace":"shop","name":"recorded","uid":"u","resourceVersion":"7","creationTimestamp":"2024-01-01T00:00:00Z","managedFields":[]},"count":1,"reason":"Began"}`), nil
			}
			return nil, errNotRecorded
		}})
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, write.ErrNeedsServer):
		return 503, nil, err.Error()
	case errors.As(err, &status):
		return int(status.Status().Code), nil, status.Status().Message
	case err != nil:
		g.t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(raw, &answer)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return resp.StatusCode, answer, ""
}

const strategic = "application/strategic-merge-patch+json"

func event(name string) string {
	return fmt.Sprintf(`{"kind":"Event","apiVersion":"v1","metadata":{"namespace":"shop","name":%q},"count":1}`, name)
}

// queue queues Events of these names.
func (g *harness) queue(names ...string) {
	g.t.Helper()
	for _, name := range names {
		if code, _, message := g.write("POST", core, "application/json", event(name)); code != 201 {
			g.t.Fatalf("%s: %d %s", name, code, message)
		}
	}
}

func (g *harness) patch(name string, count int) (code int, answer write.Object) {
	g.t.Helper()
	code, answer, message := g.write("PATCH", core+"/"+name, strategic, fmt.Sprintf(`{"count":%d}`, count))
	if message != "" {
		g.t.Log(message)
	}
	return code, answer
}
