package live

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/store"
	"rockpool.dev/tests/eventually"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const path = "/api/v1/namespaces/shop/configmaps"

// server is an API server with ConfigMaps of one namespace.
type server struct {
	t *testing.T

	mu       sync.Mutex
	revision int
	objects  map[string]int // versions by name
	watches  []*stream
	lists    int // of more than one item
	ones     int // of one item
	opened   []string
	answer   func(*http.Request) *http.Response // instead of the server's own; may give nil
	selects  bool                               // all objects have the labels that a list asks for
}

// stream is an open watch.
type stream struct {
	*io.PipeReader
	w      *io.PipeWriter
	prompt bool
	ctx    context.Context
}

func object(name string, version int) string {
	return fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":%q,"namespace":"shop","uid":%q,"resourceVersion":"%d"}}`, name, name, version)
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answer != nil {
		if resp := s.answer(r); resp != nil {
			return resp, nil
		}
	}
	query := r.URL.Query()
	if query.Get("watch") == "" {
		if _, name, ok := strings.Cut(query.Get("fieldSelector"), "metadata.name="); ok {
			return s.named(name), nil
		}
		return s.list(query.Get("limit") == "1"), nil
	}
	s.opened = append(s.opened, query.Get("resourceVersion"))
	read, write := io.Pipe()
	w := &stream{read, write, query.Get("timeoutSeconds") == "3", r.Context()}
	context.AfterFunc(r.Context(), func() { _ = read.CloseWithError(r.Context().Err()) })
	s.watches = append(s.watches, w)
	return answered(http.StatusOK, w), nil
}

// named is a list of one object, or of none.
func (s *server) named(name string) *http.Response {
	item := ""
	if version, ok := s.objects[name]; ok {
		item = object(name, version)
	}
	return text(http.StatusOK, fmt.Sprintf(`{"kind":"PartialObjectMetadataList","apiVersion":"v1","metadata":{"resourceVersion":"%d"},"items":[%s]}`, s.revision, item))
}

func (s *server) list(one bool) *http.Response {
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range s.objects {
			if !yield(name) {
				return
			}
		}
	})
	kind, more := "ConfigMapList", ""
	if one {
		s.ones++
		if kind = "PartialObjectMetadataList"; len(names) > 1 {
			if more = `,"continue":"c"`; !s.selects {
				more += fmt.Sprintf(`,"remainingItemCount":%d`, len(names)-1)
			}
			names = names[:1]
		}
	} else {
		s.lists++
	}
	var items []string
	for _, name := range names {
		items = append(items, object(name, s.objects[name]))
	}
	return text(http.StatusOK, fmt.Sprintf(`{"kind":%q,"apiVersion":"v1","metadata":{"resourceVersion":"%d"%s},"items":[%s]}`, kind, s.revision, more, strings.Join(items, ",")))
}

func answered(status int, body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: http.Header{"Content-Type": {"application/json"}, "Audit-Id": {"1"}}, Body: body, ContentLength: -1}
}

func text(status int, body string) *http.Response {
	return answered(status, io.NopCloser(strings.NewReader(body)))
}

// set changes an object, and sends the event to a watch.
func (s *server) set(name string, to *stream) {
	s.mu.Lock()
	s.revision++
	s.objects[name] = s.revision
	event := `{"type":"MODIFIED","object":` + object(name, s.revision) + "}\n"
	s.mu.Unlock()
	if to != nil {
		_, _ = io.WriteString(to.w, event)
	}
}

// event sends the event of c at a version. A watch that has been ended takes none.
func (s *server) event(to *stream, version string) {
	_, _ = io.WriteString(to.w, `{"type":"MODIFIED","object":`+strings.ReplaceAll(object("c", 7), `"7"`, strconv.Quote(version))+"}\n")
}

// bookmark sends a bookmark at the present revision.
func (s *server) bookmark(to *stream) {
	s.mu.Lock()
	event := fmt.Sprintf(`{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"%d"}}}`+"\n", s.revision)
	s.mu.Unlock()
	_, _ = io.WriteString(to.w, event)
}

// watch waits for the n-th watch.
func (s *server) watch(n int) (w *stream) {
	s.t.Helper()
	eventually.True(s.t, "watch "+strconv.Itoa(n), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.watches) < n {
			return false
		}
		w = s.watches[n-1]
		return true
	})
	return w
}

// asked waits for the n-th list of one item.
func (s *server) asked(n int) {
	s.t.Helper()
	eventually.True(s.t, "a list of one item", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.ones >= n })
}

func (s *server) counts() (lists, ones, watches int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists, s.ones, len(s.watches)
}

// harness has live collections over a server and a real cache.
type harness struct {
	*Collections
	t      *testing.T
	server *server
	cache  *cache.Cache
	clock  *clocktesting.FakeClock
	stop   func() // ends Run
}

func newHarness(t *testing.T, change ...func(*Options)) *harness {
	t.Helper()
	db, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := zaptest.NewLogger(t)
	h := &harness{
		t: t, server: &server{t: t, revision: 10, objects: map[string]int{"a": 5, "b": 6, "c": 7}},
		cache: cache.New(db, "disk", log), clock: clocktesting.NewFakeClock(time.Now()),
	}
	o := Options{Save: true, Upstream: h.server, Linger: time.Minute, Rate: 1, Logger: log, Clock: h.clock}
	o.Credentials = principal.NewCredentials(func() (string, error) { return "", errors.New("none") }, nil)
	for _, f := range change {
		f(&o)
	}
	h.Collections = New(o)
	recording, end := context.WithCancel(context.Background())
	live, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = h.cache.Run(recording) })
	ended := make(chan struct{})
	go func() { defer close(ended); _ = h.Run(live) }()
	h.stop = func() { stop(); <-ended }
	t.Cleanup(func() {
		h.stop()
		end()
		running.Wait()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	h.record()
	return h
}

func (h *harness) get(query string) Read {
	r := httptest.NewRequest(http.MethodGet, path+query, nil).WithContext(h.t.Context())
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"web"}`))
	r.Header.Set("Authorization", "Bearer e30."+claims+".c2ln")
	r.Header.Set("Accept", "application/json")
	return Read{HTTP: r, Info: request.Parse(r), Cache: h.cache, Principal: "web"}
}

// record has the server's list recorded, as when its client has read it.
func (h *harness) record() { h.t.Helper(); h.recordAs("") }

func (h *harness) recordAs(query string) {
	h.t.Helper()
	if err := h.cache.Flush(h.t.Context()); err != nil { // a list that is compared with one that is being forgotten is given up
		h.t.Fatal(err)
	}
	read := h.get(query)
	source := record.Source{Principal: "web", Info: read.Info, Path: path + query, Started: h.clock.Now(), Asked: h.cache.Ask()}
	h.server.mu.Lock()
	resp := h.server.list(false)
	h.server.lists = 0
	h.server.mu.Unlock()
	h.cache.Record(&source, resp)
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		h.t.Fatal(err)
	}
	if err := h.cache.Flush(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// answers is a list that waits for its proof.
type answers struct {
	t    *testing.T
	done chan *http.Response
}

func (h *harness) list(query string) answers {
	return h.listAs(h.t.Context(), h.get(query))
}

func (h *harness) listAs(ctx context.Context, read Read) answers {
	a := answers{h.t, make(chan *http.Response, 1)}
	go func() { a.done <- h.List(ctx, read) }()
	return a
}

// saved checks that the cache has answered with these objects, by name and version.
func (a answers) saved(version int, want ...string) {
	a.t.Helper()
	resp := <-a.done
	if resp == nil {
		a.t.Fatal("the API server is to answer")
	}
	raw, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		a.t.Fatal(err)
	}
	for _, one := range want {
		name, version, _ := strings.Cut(one, "@")
		n, _ := strconv.Atoi(version)
		if !strings.Contains(string(raw), object(name, n)[len(`{"kind":"ConfigMap","apiVersion":"v1",`):]) {
			a.t.Errorf("the answer lacks %s: %s", one, raw)
		}
	}
	if n := strings.Count(string(raw), `"uid"`); n != len(want) || !strings.Contains(string(raw), fmt.Sprintf(`"resourceVersion":"%d"`, version)) {
		a.t.Errorf("the answer has %d objects, want %d at version %d: %s", n, len(want), version, raw)
	}
	if resp.Header.Get("Age") != "0" || resp.Header.Get("Audit-Id") != "1" || resp.Header.Get("Cache-Status") == "" {
		a.t.Errorf("header %v", resp.Header)
	}
}

// passed checks that the API server is to answer.
func (a answers) passed() {
	a.t.Helper()
	if resp := <-a.done; resp != nil {
		_ = resp.Body.Close()
		a.t.Errorf("the cache has answered %d", resp.StatusCode)
	}
}

// isEnded waits until no collection is live.
func (h *harness) isEnded() {
	h.t.Helper()
	eventually.True(h.t, "nothing is live", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return len(h.open) == 0 })
}
