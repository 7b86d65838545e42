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
	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// verifier accepts the subject that a token claims, unless the subject is "forged".
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

// harness is a Dispatcher over a link that the test controls and a real cache.
type harness struct {
	*Dispatcher
	t        *testing.T
	db       *store.DB
	dir      string // of db
	link     *upstreamtest.Link
	podToken string // the token in the pod's service-account directory
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	all, err := agent.Parse("*")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	db, err := store.Open(t.Context(), dir, store.Options{})
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
	g := &harness{t: t, db: db, dir: dir, link: upstreamtest.NewLink(), podToken: token("web")}
	g.restart(Options{
		Upstream: g.link, Agents: agent.NewCurrent(all), Verifier: verifier{}, Logger: log,
		Caches:      cache.Caches{Disk: disk, Memory: &cache.Cache{}, MemoryOnly: []schema.GroupResource{{Resource: "secrets"}}},
		Credentials: principal.NewCredentials(func() (string, error) { return g.podToken, nil }, nil),
	})
	return g
}

// restart replaces the Dispatcher by a new one, with an empty memory.
func (g *harness) restart(o Options) {
	g.Dispatcher = New(o)
	g.lookup = lookupTimeout{time.Minute, time.Minute} // long enough for a busy machine
}

// setClock restarts the Dispatcher with a clock.
func (g *harness) setClock(c clock.WithTicker) {
	o := g.Options
	o.Clock = c
	g.restart(o)
}

func (g *harness) request(method, url string) *http.Request {
	r := httptest.NewRequest(method, url, nil).WithContext(g.t.Context())
	r.Header.Set("Authorization", "Bearer "+token("web"))
	return r
}

// do returns the status code and the body of an answer, or the code and message of a Status error.
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
	if errors.Is(err, store.ErrChanged) { // the list was replaced during the read; clients retry
		_ = resp.Body.Close()
		return g.do(r)
	}
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		g.t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// lastRequest returns the latest request that was sent over the link.
func (g *harness) lastRequest() *http.Request {
	all := g.link.Requests()
	return all[len(all)-1]
}

func response(code int, body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}, "Audit-Id": {"1"}}, Body: body, ContentLength: -1}
}

func textResponse(code int, body string) *http.Response {
	return response(code, io.NopCloser(strings.NewReader(body)))
}

// answerAll makes the API server give one answer to all requests.
func (g *harness) answerAll(code int, body string) {
	g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
		return textResponse(code, body), nil
	})
}

// failAll makes all requests over the link fail.
func (g *harness) failAll(err error) {
	g.link.SetAnswer(func(*http.Request) (*http.Response, error) { return nil, err })
}

const (
	path        = "/api/v1/namespaces/shop/configmaps"
	list        = `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"10"},"items":[{"metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"5"}}]}`
	watchFrom10 = path + "?watch=true&resourceVersion=10"
)

// flush waits until all answers so far are recorded.
func (g *harness) flush() {
	g.t.Helper()
	if err := g.Caches.Disk.Flush(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
}

// post returns a POST of a JSON body.
func (g *harness) post(url, body string) *http.Request {
	r := g.request("POST", url)
	r.Header.Set("Content-Type", "application/json")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	return r
}

// write returns a write of a JSON body; a PATCH is a strategic merge patch.
func (g *harness) write(method, url, body string) *http.Request {
	r := g.post(url, body)
	r.Method = method
	if method == "PATCH" {
		r.Header.Set("Content-Type", "application/strategic-merge-patch+json")
	}
	return r
}
