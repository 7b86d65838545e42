package dispatch

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/replay"
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
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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

type rig struct {
	*Dispatcher
	t    *testing.T
	db   *store.DB
	link *link
	own  string
}

func newRig(t *testing.T) *rig {
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
	recorder := record.New(record.Options{DB: db, Logger: log})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- recorder.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, db.Close()); err != nil {
			t.Error(err)
		}
	})
	g := &rig{t: t, db: db, link: &link{up: true, changed: make(chan struct{})}, own: token("web")}
	g.Dispatcher = New(Options{Upstream: g.link, Disk: Cache{recorder, replay.New(db, nil, recorder.Used)}, MemoryOnly: []schema.GroupResource{{Resource: "secrets"}}, Agents: agent.NewCurrent(all), Verifier: verifier{}, Logger: log,
		Token: func() (string, error) { return g.own, nil }})
	g.patience.etag, g.patience.body = time.Minute, time.Minute // whatever the machine is busy with
	return g
}

func (g *rig) request(method, url string) *http.Request {
	r := httptest.NewRequest(method, url, nil).WithContext(g.t.Context())
	r.Header.Set("Authorization", "Bearer "+token("web"))
	return r
}

// do gives the status and body of an answer, or the code of a refusal.
func (g *rig) do(r *http.Request) (int, string) {
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
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: body, ContentLength: -1}
}

// says makes upstream give one answer to everything.
func (g *rig) says(code int, body string) {
	g.link.mu.Lock()
	defer g.link.mu.Unlock()
	g.link.answer = func(*http.Request) (*http.Response, error) {
		return response(code, io.NopCloser(strings.NewReader(body))), nil
	}
}

func (g *rig) fails(err error) {
	g.link.mu.Lock()
	defer g.link.mu.Unlock()
	g.link.answer = func(*http.Request) (*http.Response, error) { return nil, err }
}

const (
	path  = "/api/v1/namespaces/shop/configmaps"
	list  = `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"10"},"items":[{"metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"5"}}]}`
	quiet = path + "?watch=true&resourceVersion=10"
)

func TestWhatWasReadOnlineIsAnsweredOffline(t *testing.T) {
	for name, cut := range map[string]func(*rig){
		"once the link is known to be down": func(g *rig) { g.link.set(false) },
		"at the first request that fails":   func(g *rig) { g.fails(errDown) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.says(200, list)
			if code, body := g.do(g.request("GET", path)); code != 200 || body != list {
				t.Fatalf("online: %d %s", code, body)
			}
			cut(g)
			r := g.request("GET", path)
			r = r.WithContext(WithRoute(r.Context()))
			code, body := g.do(r)
			if code != 200 || !json.Valid([]byte(body)) || !strings.Contains(body, `"name":"a"`) || !RouteOf(r.Context()).Offline {
				t.Fatalf("offline: %d %s", code, body)
			}
			if code, _ := g.do(g.request("GET", path+"/a")); code != 200 {
				t.Fatalf("an object of the list: %d", code)
			}
			if code, _ := g.do(g.request("GET", path+"/b")); code != 404 {
				t.Fatalf("an object that is not in the list: %d", code)
			}
			if code, message := g.do(g.request("GET", "/api/v1/namespaces/shop/services/b")); code != 503 || !strings.Contains(message, "not recorded") {
				t.Fatalf("an object of a resource that was never listed: %d %s", code, message)
			}
		})
	}
}

func TestThePodsOwnLastWriteIsReadOffline(t *testing.T) {
	const object = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"12"},"data":{"by":"me"}}`
	g := newRig(t)
	g.says(200, list)
	g.do(g.request("GET", path))
	write := func(method, url string, code int, body string) {
		t.Helper()
		g.link.set(true)
		g.says(code, body)
		if got, answer := g.do(g.request(method, url)); got != code || answer != body {
			t.Fatalf("%s: %d %s", method, got, answer)
		}
		g.link.set(false)
	}
	write("PATCH", path+"/a", 200, object)
	if code, body := g.do(g.request("GET", path+"/a")); code != 200 || body != object {
		t.Errorf("after a patch: %d %s", code, body)
	}
	write("PATCH", path+"/a?dryRun=All", 200, strings.Replace(object, "12", "13", 1))
	if code, body := g.do(g.request("GET", path+"/a")); code != 200 || body != object {
		t.Errorf("after a patch that was only tried: %d %s", code, body)
	}
	write("POST", path, 201, strings.Replace(object, `"a"`, `"new"`, 1))
	if code, _ := g.do(g.request("GET", path+"/new")); code != 200 {
		t.Errorf("after a create: %d", code)
	}
	write("DELETE", path+"/new", 200, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"new","kind":"configmaps","uid":"u"}}`)
	if code, _ := g.do(g.request("GET", path+"/new")); code != 404 {
		t.Errorf("after a delete: %d", code)
	}
	write("PATCH", path+"/a", 409, `{"kind":"Status","apiVersion":"v1","code":409}`)
	if code, body := g.do(g.request("GET", path+"/a")); code != 200 || body != object {
		t.Errorf("after a conflict: %d %s", code, body)
	}
}

func TestTheServersRefusalsArePassedOn(t *testing.T) {
	g := newRig(t)
	g.says(200, list)
	g.do(g.request("GET", path))
	for _, code := range []int{401, 403, 404, 409, 410, 422, 429, 500, 503} {
		g.says(code, `{"kind":"Status"}`)
		if got, body := g.do(g.request("GET", path)); got != code || body != `{"kind":"Status"}` {
			t.Errorf("%d became %d %s", code, got, body)
		}
	}
	g.fails(context.Canceled)
	if _, err := g.RoundTrip(g.request("GET", path)); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that left got %v", err)
	}
}

func TestOfflineNothingIsFakedAndNobodyIsBelieved(t *testing.T) {
	g := newRig(t)
	g.says(200, list)
	g.do(g.request("GET", path))
	g.link.set(false)
	with := func(method, url string, change func(http.Header)) *http.Request {
		r := g.request(method, url)
		change(r.Header)
		return r
	}
	none := func(http.Header) {}
	tests := []struct {
		name    string
		r       *http.Request
		code    int
		message string
	}{
		{"a create", with("POST", path, none), 503, "nothing is written"},
		{"a patch", with("PATCH", path+"/a", none), 503, "nothing is written"},
		{"a delete", with("DELETE", path+"/a", none), 503, "nothing is written"},
		{"no token", with("GET", path, func(h http.Header) { h.Del("Authorization") }), 401, "no bearer token"},
		{"a forged token", with("GET", path, func(h http.Header) { h.Set("Authorization", "Bearer "+token("forged")) }), 401, "signature"},
		{"a write without a token", with("POST", path, func(h http.Header) { h.Del("Authorization") }), 401, "no bearer token"},
		{"a watch without a token", with("GET", quiet, func(h http.Header) { h.Del("Authorization") }), 401, "no bearer token"},
		{"another principal", with("GET", path, func(h http.Header) { h.Set("Authorization", "Bearer "+token("other")) }), 503, "not recorded"},
		{"impersonation", with("GET", path, func(h http.Header) { h.Set("Impersonate-User", "root") }), 503, "impersonation"},
		{"health", with("GET", "/healthz", none), 503, "not recorded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if code, message := g.do(tt.r); code != tt.code || !strings.Contains(message, tt.message) {
				t.Fatalf("%d %q, want %d %q", code, message, tt.code, tt.message)
			}
		})
	}
}

func TestACollectionThatLostAnEventIsListedAgain(t *testing.T) {
	g := newRig(t)
	page := func(token, name string) string {
		return strings.NewReplacer(`"resourceVersion":"10"`, `"resourceVersion":"20","continue":"`+token+`"`, `"a"`, `"`+name+`"`).Replace(list)
	}
	up := newStream()
	g.link.answer = func(r *http.Request) (*http.Response, error) {
		body := list
		switch q := r.URL.Query(); {
		case q.Has("watch"):
			return response(200, up), nil
		case q.Get("limit") == "500" && q.Get("continue") == "":
			body = page("more", "b")
		case q.Get("limit") == "500":
			body = page("", "c")
		}
		return response(200, io.NopCloser(strings.NewReader(body))), nil
	}
	g.heals()
	g.do(g.request("GET", path))
	c := g.open(g.request("GET", path+"?watch=true&resourceVersion=15")) // and what was between 10 and 15?
	go up.send(t, event("ADDED", "z", 16))
	c.want(event("ADDED", "z", 16))

	healed := func() bool {
		g.link.set(false)
		defer g.link.set(true)
		_, body := g.do(g.request("GET", path))
		return strings.Contains(body, `"resourceVersion":"20"`) && strings.Contains(body, `"b"`) && strings.Contains(body, `"c"`) && !strings.Contains(body, `"z"`)
	}
	if err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) { return healed(), nil }); err != nil {
		t.Fatal(err)
	}
	for _, r := range g.link.asked {
		if r.Header.Get("Authorization") != "Bearer "+g.own {
			t.Errorf("%s was asked with another token", r.URL)
		}
	}
}

func TestWhatIsWatchedIsListedAgainWhenTheCachesFileIsLost(t *testing.T) {
	g := newRig(t)
	up := newStream()
	g.link.answer = func(r *http.Request) (*http.Response, error) {
		if r.URL.Query().Has("watch") {
			return response(200, up), nil
		}
		return response(200, io.NopCloser(strings.NewReader(list))), nil
	}
	g.heals()
	g.do(g.request("GET", path))
	c := g.open(g.request("GET", path+"?watch=true&resourceVersion=10"))
	if err := g.Disk.Recorder.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(g.db.Path()); err != nil {
		t.Fatal(err)
	}
	go up.send(t, event("ADDED", "z", 16)) // is in the lost file, and the client has it
	c.want(event("ADDED", "z", 16))
	again := func() bool {
		g.link.set(false)
		defer g.link.set(true)
		code, body := g.do(g.request("GET", path))
		return code == 200 && strings.Contains(body, `"resourceVersion":"10"`)
	}
	if err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) { return again(), nil }); err != nil {
		t.Fatal(err)
	}
}

func TestAWriteDuringWhichTheLinkBreaksMayHaveBeenDone(t *testing.T) {
	g := newRig(t)
	g.fails(&upstream.LinkError{Sent: true})
	if code, message := g.do(g.request("POST", path)); code != 504 || !strings.Contains(message, "may have been carried out") {
		t.Errorf("%d %s", code, message)
	}
	g.fails(&upstream.LinkError{})
	if code, message := g.do(g.request("POST", path)); code != 503 || !strings.Contains(message, "nothing is written") {
		t.Errorf("%d %s", code, message)
	}
}

func TestWhatTheServerForbidsIsNotAnsweredOffline(t *testing.T) {
	g := newRig(t)
	g.says(200, list)
	g.do(g.request("GET", path))
	g.says(403, `{"kind":"Status","code":403}`)
	g.do(g.request("GET", path+"?limit=500"))
	g.link.set(false)
	if code, _ := g.do(g.request("GET", path)); code != 503 {
		t.Fatalf("%d", code)
	}
}

func TestWithoutKeysTheCallerIsNotToBlame(t *testing.T) {
	g := newRig(t)
	g.Verifier = keyless{}
	g.link.set(false)
	if code, message := g.do(g.request("GET", path)); code != 503 || !strings.Contains(message, principal.ErrNoKeys.Error()) {
		t.Fatalf("%d %s", code, message)
	}
}

type keyless struct{}

func (keyless) Verify(http.Header) (string, error) { return "", principal.ErrNoKeys }

func TestWithoutACacheRequestsPassThrough(t *testing.T) {
	g := newRig(t)
	g.Disk = Cache{}
	g.says(200, list)
	if code, body := g.do(g.request("GET", path)); code != 200 || body != list {
		t.Fatalf("online: %d %s", code, body)
	}
	g.link.set(false)
	if code, message := g.do(g.request("GET", path)); code != 503 || !strings.Contains(message, "cache could not be opened") {
		t.Fatalf("offline: %d %s", code, message)
	}
	resp, err := g.RoundTrip(g.request("GET", quiet))
	if err != nil {
		t.Fatalf("a watch for what comes next needs no cache: %v", err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestACacheThatWasLostIsNobodysErrorButSaysSo(t *testing.T) {
	core, log := observer.New(zap.WarnLevel)
	f := New(Options{Logger: zap.New(core)})
	err := f.refusal(request.Info{Path: "/api/v1/pods"}, fmt.Errorf("list collections: %w", store.ErrGone))
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Code != http.StatusServiceUnavailable || !strings.Contains(status.Status().Message, "lost") {
		t.Errorf("the client hears %v", err)
	}
	if n := log.Len(); n != 0 { // the recorder has said it, once
		t.Errorf("%d log lines for a request", n)
	}
}

func TestOnlyChosenClientsAreRecorded(t *testing.T) {
	g := newRig(t)
	app, err := agent.Parse("app")
	if err != nil {
		t.Fatal(err)
	}
	g.Agents.Set(app)
	g.says(200, list)
	for _, client := range []string{"kubectl/v1.36", "app/v2"} {
		g.link.set(true)
		r := g.request("GET", path)
		r.Header.Set("User-Agent", client)
		g.do(r)
		g.link.set(false)
		want := 503
		if client == "app/v2" {
			want = 200
		}
		if code, _ := g.do(g.request("GET", path)); code != want {
			t.Errorf("after %s has read: %d, want %d", client, code, want)
		}
	}
}

func TestWhatIsForMemoryOnlyNeverGoesToTheDisk(t *testing.T) {
	const secrets = "/api/v1/namespaces/shop/secrets"
	const accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	body := strings.ReplaceAll(list, "ConfigMap", "Secret")
	g := newRig(t)
	disk := g.Disk
	g.Memory = newRig(t).Disk
	g.says(200, body)
	g.do(g.request("GET", secrets))
	g.do(g.request("GET", secrets+"/a"))
	asTable := g.request("GET", secrets)
	asTable.Header.Set("Accept", accept)
	g.do(asTable)
	g.link.set(false)
	if code, _ := g.do(g.request("GET", secrets)); code != 200 {
		t.Fatalf("from memory: %d", code)
	}
	g.Memory = disk // what would the disk have said?
	for _, url := range []string{secrets, secrets + "/a"} {
		if code, _ := g.do(g.request("GET", url)); code != 503 {
			t.Errorf("%s from the disk: %d", url, code)
		}
	}
	asTable = g.request("GET", secrets)
	asTable.Header.Set("Accept", accept)
	if code, _ := g.do(asTable); code != 503 {
		t.Errorf("a table from the disk: %d", code)
	}
}

func TestAnAnswerThatIsCompressedOrNotJSONIsNotRecorded(t *testing.T) {
	g := newRig(t)
	for name, header := range map[string]http.Header{
		"protobuf": {"Content-Type": {"application/vnd.kubernetes.protobuf"}},
		"gzip":     {"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}},
	} {
		g.link.set(true)
		g.link.answer = func(*http.Request) (*http.Response, error) {
			resp := response(200, io.NopCloser(strings.NewReader(list)))
			resp.Header = header
			return resp, nil
		}
		g.do(g.request("GET", path))
		g.link.set(false)
		if code, _ := g.do(g.request("GET", path)); code != 503 {
			t.Errorf("%s: %d", name, code)
		}
	}
}

// stream is a watch body from upstream that the test feeds.
type stream struct {
	*io.PipeReader
	w *io.PipeWriter
}

func newStream() stream {
	r, w := io.Pipe()
	return stream{r, w}
}

func (s stream) send(t *testing.T, raw string) {
	t.Helper()
	if _, err := io.WriteString(s.w, raw); err != nil {
		t.Error(err)
	}
}

// streams makes upstream answer each request with the next of these; *http.Response or error.
func (g *rig) streams(answers ...any) {
	g.link.mu.Lock()
	defer g.link.mu.Unlock()
	g.link.answer = func(*http.Request) (*http.Response, error) {
		g.link.mu.Lock()
		defer g.link.mu.Unlock()
		if len(answers) == 0 {
			return nil, errDown
		}
		next := answers[0]
		answers = answers[1:]
		switch x := next.(type) {
		case stream:
			return response(200, x), nil
		case *http.Response:
			return x, nil
		default:
			return nil, next.(error)
		}
	}
}

func event(kind, name string, rv int) string {
	return fmt.Sprintf(`{"type":%q,"object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":%q,"namespace":"shop","uid":"u","resourceVersion":"%d"}}}`, kind, name, rv) + "\n"
}

const end = `{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"10","annotations":{"k8s.io/initial-events-end":"true"}}}}` + "\n"

// client reads a watch.
type client struct {
	t    *testing.T
	body io.ReadCloser
	buf  *bytes.Buffer
}

func (g *rig) open(r *http.Request) *client {
	g.t.Helper()
	resp, err := g.RoundTrip(r)
	if err != nil {
		g.t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		g.t.Fatalf("status %d", resp.StatusCode)
	}
	g.t.Cleanup(func() { _ = resp.Body.Close() })
	return &client{g.t, resp.Body, &bytes.Buffer{}}
}

// want reads until the client has all of text, and fails on anything else.
func (c *client) want(text string) {
	c.t.Helper()
	buf := make([]byte, 4096)
	for c.buf.Len() < len(text) {
		n, err := c.body.Read(buf)
		c.buf.Write(buf[:n])
		if err != nil && c.buf.Len() < len(text) {
			c.t.Fatalf("%v behind %q", err, c.buf)
		}
	}
	if got := string(c.buf.Next(len(text))); got != text {
		c.t.Fatalf("got %q, want %q", got, text)
	}
}

func (c *client) ends(want error) {
	c.t.Helper()
	raw, err := io.ReadAll(io.MultiReader(c.buf, c.body))
	if err == nil {
		err = io.EOF
	}
	if len(raw) > 0 || !errors.Is(err, want) {
		c.t.Fatalf("%q %v, want the end with %v", raw, err, want)
	}
}

func TestAWatchOutlivesTheLink(t *testing.T) {
	g := newRig(t)
	first, second := newStream(), newStream()
	g.streams(first, errDown, second)
	c := g.open(g.request("GET", quiet+"&timeoutSeconds=600"))
	go first.send(t, event("ADDED", "b", 11))
	c.want(event("ADDED", "b", 11))

	g.own = token("web") + "cm90YXRlZA" // a new signature
	done := make(chan struct{})
	go func() {
		defer close(done)
		first.send(t, event("MODIFIED", "b", 12)+event("MODIFIED", "b", 13)[:20])
		_ = first.w.CloseWithError(errDown) // in the middle of a frame
		second.send(t, event("MODIFIED", "b", 13))
	}()
	c.want(event("MODIFIED", "b", 12) + event("MODIFIED", "b", 13))
	<-done
	r := g.link.asked[len(g.link.asked)-1]
	if q := r.URL.Query(); q.Get("resourceVersion") != "12" || q.Get("watch") != "true" || q.Get("timeoutSeconds") == "" {
		t.Fatalf("it went on with %s", r.URL.RawQuery)
	}
	if got := r.Header.Get("Authorization"); got != "Bearer "+g.own {
		t.Fatal("it went on with the old token")
	}
	go second.w.Close()
	c.ends(io.EOF)
}

func TestAWatchWithoutAVersionOutlivesTheLinkOnceItsStateIsThere(t *testing.T) {
	g := newRig(t)
	first, second := newStream(), newStream()
	g.streams(first, second)
	c := g.open(g.request("GET", path+"?watch=true"))
	go func() {
		first.send(t, event("ADDED", "a", 9)+event("ADDED", "b", 5)+event("MODIFIED", "b", 12))
		_ = first.w.CloseWithError(errDown)
		second.send(t, event("ADDED", "c", 13))
	}()
	c.want(event("ADDED", "a", 9) + event("ADDED", "b", 5) + event("MODIFIED", "b", 12) + event("ADDED", "c", 13))
	if q := g.link.asked[1].URL.Query(); q.Get("resourceVersion") != "12" {
		t.Fatalf("it went on with %v", q)
	}
}

func TestAWatchOfAnotherPrincipalKeepsItsToken(t *testing.T) {
	g := newRig(t)
	first, second := newStream(), newStream()
	g.streams(first, second)
	r := g.request("GET", quiet)
	r.Header.Set("Authorization", "Bearer "+token("other"))
	c := g.open(r)
	go func() {
		_ = first.w.CloseWithError(errDown)
		second.send(t, event("ADDED", "b", 11))
	}()
	c.want(event("ADDED", "b", 11))
	if got := g.link.asked[1].Header.Get("Authorization"); got != "Bearer "+token("other") {
		t.Fatal("it went on with the pod's token")
	}
}

func TestAWatchOpensOfflineAndGoesOnOnline(t *testing.T) {
	g := newRig(t)
	g.link.set(false)
	up := newStream()
	g.streams(up)
	c := g.open(g.request("GET", quiet))
	g.link.set(true)
	go up.send(t, event("ADDED", "b", 11))
	c.want(event("ADDED", "b", 11))
	if q := g.link.asked[0].URL.Query(); q.Get("resourceVersion") != "10" {
		t.Fatalf("it went on with %v", q)
	}
}

func TestAWatchListIsServedOfflineAndGoesOnOnline(t *testing.T) {
	g := newRig(t)
	g.says(200, list)
	g.do(g.request("GET", path))
	g.link.set(false)
	r := g.request("GET", path+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")
	c := g.open(r)
	c.want(event("ADDED", "a", 5) + strings.Replace(end, `"resourceVersion":"10",`, `"resourceVersion":"10","creationTimestamp":null,`, 1))
	up := newStream()
	g.streams(up)
	g.link.set(true)
	go up.send(t, event("DELETED", "a", 11))
	c.want(event("DELETED", "a", 11))
	if q := g.link.asked[len(g.link.asked)-1].URL.Query(); q.Get("resourceVersion") != "10" || q.Has("sendInitialEvents") || q.Has("resourceVersionMatch") {
		t.Fatalf("it went on with %v", q)
	}
	go up.w.Close()
	c.ends(io.EOF)

	g.link.set(false) // and what came after was recorded, too
	if code, body := g.do(g.request("GET", path)); code != 200 || strings.Contains(body, `"name":"a"`) || !strings.Contains(body, `"resourceVersion":"11"`) {
		t.Fatalf("%d %s", code, body)
	}
}

func TestAWatchListThatWasRecordedOnlineIsServedOffline(t *testing.T) {
	g := newRig(t)
	up := newStream()
	g.streams(up)
	c := g.open(g.request("GET", watchlist))
	go up.send(t, event("ADDED", "a", 5)+end+event("ADDED", "b", 11))
	c.want(event("ADDED", "a", 5) + end + event("ADDED", "b", 11))
	g.link.set(false)
	offline := g.open(g.request("GET", watchlist))
	offline.want(event("ADDED", "a", 5) + event("ADDED", "b", 11))
}

func TestAWatchOfWhatWasNeverListedIsRefusedOffline(t *testing.T) {
	g := newRig(t)
	g.link.set(false)
	for _, query := range []string{"?watch=true", "?watch=true&resourceVersion=0", "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"} {
		if code, message := g.do(g.request("GET", path+query)); code != 503 || !strings.Contains(message, "not recorded") {
			t.Errorf("%s: %d %s", query, code, message)
		}
	}
}

func TestInitialEventsThatBreakOffAreNotPatchedUp(t *testing.T) {
	g := newRig(t)
	up := newStream()
	g.streams(up)
	c := g.open(g.request("GET", path+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"))
	go func() {
		up.send(t, event("ADDED", "a", 5))
		_ = up.w.CloseWithError(errDown)
	}()
	c.want(event("ADDED", "a", 5))
	c.ends(errDown)
}

func TestGoneReachesTheClientAsTheServerWouldSendIt(t *testing.T) {
	g := newRig(t)
	const gone = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old","reason":"Expired","code":410}`
	first := newStream()
	g.streams(first, response(410, io.NopCloser(strings.NewReader(gone+"\n"))))
	c := g.open(g.request("GET", quiet))
	go first.w.CloseWithError(errDown)
	c.want(`{"type":"ERROR","object":` + gone + "}\n")
	c.ends(io.EOF)
}

func TestAWatchThatIsRefusedAtItsReturnEnds(t *testing.T) {
	g := newRig(t)
	first := newStream()
	g.streams(first, response(403, io.NopCloser(strings.NewReader(`{"kind":"Status"}`))))
	c := g.open(g.request("GET", quiet))
	go first.w.CloseWithError(errDown)
	c.ends(io.EOF) // the client asks again and hears it itself
}

func TestTheClientsTimeoutHoldsOffline(t *testing.T) {
	g := newRig(t)
	g.link.set(false)
	start := time.Now()
	c := g.open(g.request("GET", quiet+"&timeoutSeconds=1"))
	c.ends(io.EOF)
	if d := time.Since(start); d < 900*time.Millisecond {
		t.Fatalf("it ended after %v", d)
	}
}

func TestAWatchWhoseClientLeftEnds(t *testing.T) {
	g := newRig(t)
	g.link.set(false)
	ctx, cancel := context.WithCancel(t.Context())
	c := g.open(g.request("GET", quiet).WithContext(ctx))
	go cancel()
	c.ends(context.Canceled)
}

func TestAFrameThatNobodyUnderstandsIsPassedOn(t *testing.T) {
	g := newRig(t)
	up := newStream()
	g.streams(up)
	c := g.open(g.request("GET", quiet))
	go up.send(t, `{"new":"kind of frame"}`+"\n"+event("ADDED", "b", 11))
	c.want(`{"new":"kind of frame"}` + "\n" + event("ADDED", "b", 11))
}
