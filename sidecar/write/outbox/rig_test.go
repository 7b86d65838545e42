package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/sidecar/write"
	"rockpool.dev/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	core   = "/api/v1/namespaces/shop/events"
	events = "/apis/events.k8s.io/v1/namespaces/shop/events"
)

// server stands for the link and the API server behind it. It has Events by path, takes
// each name once, and does to the next requests what the test says.
type server struct {
	*upstreamtest.Link // offline at first
	mu                 sync.Mutex
	events             map[string]write.Object
	asked              []string // METHOD principal path
	next               []func(*http.Request) (*http.Response, error)
	each               func(*http.Request) (*http.Response, error)
}

func newServer() *server {
	s := &server{Link: upstreamtest.NewLink(), events: map[string]write.Object{}}
	s.Cut()
	return s
}

// will does these to the next requests, in place of what it does by itself.
func (s *server) will(next ...func(*http.Request) (*http.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = append(s.next, next...)
}

func (s *server) Send(principal string, r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+principal+" "+r.URL.Path)
	f := s.each
	if len(s.next) > 0 {
		f, s.next = s.next[0], s.next[1:]
	}
	s.mu.Unlock()
	if f != nil {
		return f(r)
	}
	return s.serve(r)
}

// serve is what an API server does.
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
			return answer(409, "AlreadyExists"), nil
		}
		s.events[path] = o
		return answer(201, ""), nil
	case http.MethodPatch:
		have := s.events[r.URL.Path]
		if have == nil {
			return answer(404, "NotFound"), nil
		}
		write.Patch(o).Apply(have)
		return answer(200, ""), nil
	}
	return answer(405, "MethodNotAllowed"), nil
}

func answer(code int, reason string) *http.Response {
	body := fmt.Sprintf(`{"kind":"Status","code":%d,"reason":%q,"message":"the-body-of-an-event"}`, code, reason)
	return &http.Response{StatusCode: code, Body: io.NopCloser(strings.NewReader(body))}
}

func says(code int, reason string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) { return answer(code, reason), nil }
}

func fails(err error) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

// arrivesAnd carries the request out, but its answer is lost.
func (s *server) arrivesAnd(err error) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		if _, bad := s.serve(r); bad != nil {
			return nil, bad
		}
		return nil, err
	}
}

var errLink = errors.New("the link broke")

type rig struct {
	*Outbox
	t     *testing.T
	db    *store.DB
	dir   string
	clock *clocktesting.FakeClock
	logs  *observer.ObservedLogs
	*server
}

func newRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	g := &rig{t: t, dir: t.TempDir(), clock: clocktesting.NewFakeClock(time.UnixMilli(1_700_000_000_000)), server: newServer()}
	g.open(change...)
	return g
}

func (g *rig) open(change ...func(*Options)) {
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

// again is what a restart of the sidecar leaves.
func (g *rig) again(change ...func(*Options)) {
	g.t.Helper()
	if err := g.db.Close(); err != nil {
		g.t.Fatal(err)
	}
	g.open(change...)
}

// run delivers for as long as the test goes, or until the function that it gives is called.
func (g *rig) run() (stop func()) {
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

func (g *rig) until(what string, f func() bool) {
	g.t.Helper()
	err := wait.PollUntilContextTimeout(g.t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) { return f(), nil })
	if err != nil {
		g.t.Fatalf("%s: %v\nasked: %q\nlogs: %v", what, err, g.requests(), g.logs.All())
	}
}

// retry lets the wait before the next attempt pass.
func (g *rig) retry() {
	g.t.Helper()
	g.until("it waits before it tries again", g.clock.HasWaiters)
	g.clock.Step(longestRetry)
}

func (g *rig) empty() {
	g.t.Helper()
	g.until("the queue is empty", func() bool { return len(g.snapshot()) == 0 })
	if rows, err := g.db.Outbox(g.t.Context()); err != nil || len(rows) > 0 {
		g.t.Errorf("in the store are %v, %v", rows, err)
	}
}

func (g *rig) requests() []string {
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	return append([]string(nil), g.asked...)
}

func (g *rig) has(path string) write.Object {
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	return g.events[path]
}

// write asks for acceptance and gives the answer, or the code of the refusal.
func (g *rig) write(method, path, contentType, body string) (code int, answer write.Object, message string) {
	g.t.Helper()
	return g.writeAs("web", method, path, contentType, body)
}

var errNotRecorded = errors.New("not recorded")

func (g *rig) writeAs(principal, method, path, contentType, body string) (code int, answer write.Object, message string) {
	g.t.Helper()
	info := request.Parse(httptest.NewRequest(method, path, nil))
	if !g.Handles(&info) {
		g.t.Fatalf("%s %s is not taken", method, path)
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

// post queues Events of these names.
func (g *rig) post(names ...string) {
	g.t.Helper()
	for _, name := range names {
		if code, _, message := g.write("POST", core, "application/json", event(name)); code != 201 {
			g.t.Fatalf("%s: %d %s", name, code, message)
		}
	}
}

func (g *rig) patch(name string, count int) (code int, answer write.Object) {
	g.t.Helper()
	code, answer, message := g.write("PATCH", core+"/"+name, strategic, fmt.Sprintf(`{"count":%d}`, count))
	if message != "" {
		g.t.Log(message)
	}
	return code, answer
}
