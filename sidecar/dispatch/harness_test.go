package dispatch

import (
	"context"
	"encoding/base64"
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
	"go.uber.org/zap/zaptest"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/upstream"
	"rockpool.dev/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// link stands for the way upstream: what it answers, and whether it is up, is
// the test's to say. The real one is driven in tests/e2e.
type link struct {
	mu      sync.Mutex
	up      bool
	changed chan struct{}
	answer  func(*http.Request) (*http.Response, error)
	asked   []*http.Request
	waiting int // callers of WaitOnline
}

var errDown = &upstream.LinkError{Servers: []upstream.ServerError{{URL: "https://203.0.113.10:6443", Err: errors.New("connection refused")}}}

func (l *link) set(up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up = up
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *link) Online() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}

func (l *link) WaitOnline(ctx context.Context) error {
	for {
		l.mu.Lock()
		up, changed := l.up, l.changed
		l.mu.Unlock()
		if up {
			return nil
		}
		l.wait(1)
		select {
		case <-changed:
			l.wait(-1)
		case <-ctx.Done():
			l.wait(-1)
			return ctx.Err()
		}
	}
}

func (l *link) wait(more int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting += more
}

func (l *link) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	l.asked = append(l.asked, r)
	answer := l.answer
	l.mu.Unlock()
	return answer(r)
}

// verifier believes the subject that the token claims, unless it is a forgery.
type verifier struct{}

func (verifier) Verify(h http.Header) (string, error) {
	_, subject, err := principal.Subject(h)
	if err == nil && subject == "forged" {
		err = principal.ErrSignature
	}
	return subject, err
}

func token(subject string) string {
	claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"sub":%q}`, subject))
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." + claims + ".c2ln"
}

// harness is a Dispatcher over a fake link and a real cache.
type harness struct {
	*Dispatcher
	t    *testing.T
	db   *store.DB
	link *link
	own  string // the pod's own token
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	all, err := agent.Parse("*")
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := zaptest.NewLogger(t)
	disk := cache.New(db, "disk", log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- disk.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, db.Close()); err != nil {
			t.Error(err)
		}
	})
	g := &harness{t: t, db: db, link: &link{up: true, changed: make(chan struct{})}, own: token("web")}
	g.restart(Options{
		Upstream: g.link, Agents: agent.NewCurrent(all), Verifier: verifier{}, Logger: log,
		Caches:      cache.Caches{Disk: disk, Memory: &cache.Cache{}, MemoryOnly: []schema.GroupResource{{Resource: "secrets"}}},
		Credentials: principal.NewCredentials(func() (string, error) { return g.own, nil }, nil),
	})
	return g
}

// restart begins with a new Dispatcher, which remembers nothing.
func (g *harness) restart(o Options) {
	g.Dispatcher = New(o)
	g.lookup = lookupTimeout{time.Minute, time.Minute} // whatever the machine is busy with
}

// at sets the clock.
func (g *harness) at(c clock.WithTicker) {
	o := g.Options
	o.Clock = c
	g.restart(o)
}

func (g *harness) request(method, url string) *http.Request {
	r := httptest.NewRequest(method, url, nil).WithContext(g.t.Context())
	r.Header.Set("Authorization", "Bearer "+token("web"))
	return r
}

// do gives the status and body of an answer, or the code of a refusal.
func (g *harness) do(r *http.Request) (int, string) {
	g.t.Helper()
	resp, err := g.RoundTrip(r)
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return int(status.Status().Code), status.Status().Message
	}
	if err != nil {
		g.t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if errors.Is(err, store.ErrChanged) { // the list was recorded anew meanwhile; clients ask again
		_ = resp.Body.Close()
		return g.do(r)
	}
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		g.t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

func response(code int, body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}, "Audit-Id": {"1"}}, Body: body, ContentLength: -1}
}

// says makes upstream give one answer to everything.
func (g *harness) says(code int, body string) {
	g.link.mu.Lock()
	defer g.link.mu.Unlock()
	g.link.answer = func(*http.Request) (*http.Response, error) {
		return response(code, io.NopCloser(strings.NewReader(body))), nil
	}
}

func (g *harness) fails(err error) {
	g.link.mu.Lock()
	defer g.link.mu.Unlock()
	g.link.answer = func(*http.Request) (*http.Response, error) { return nil, err }
}

const (
	path  = "/api/v1/namespaces/shop/configmaps"
	list  = `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"10"},"items":[{"metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"5"}}]}`
	quiet = path + "?watch=true&resourceVersion=10"
)
