package record

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

const who = "system:serviceaccount:shop:web"

type harness struct {
	told atomic.Pointer[string] // the last sentence about an eviction
	*Recorder
	t   testing.TB
	db  *store.DB
	now time.Time
}

func newHarness(t *testing.T, maxPending int) *harness {
	t.Helper()
	return newHarnessWithQuota(t, maxPending, 4<<20)
}

func newHarnessWithQuota(t testing.TB, maxPending int, quota int64) *harness {
	t.Helper()
	h := &harness{t: t, now: time.UnixMilli(1_700_000_000_000)}
	db, err := store.Open(t.Context(), t.TempDir(), store.Options{MaxSize: quota, Now: func() time.Time { return h.now }})
	if err != nil {
		t.Fatal(err)
	}
	h.db = db
	h.Recorder = New(Options{DB: db, Logger: zaptest.NewLogger(t), MaxPending: maxPending, Clock: harnessClock{h: h}, Evicted: func(what string) { h.told.Store(&what) }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, db.Close()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// idleHarness is a harness whose recorder writes only when the test calls it.
func idleHarness(t testing.TB, dir string, maxPending int) *harness {
	t.Helper()
	h := &harness{t: t, now: time.UnixMilli(1_700_000_000_000)}
	db, err := store.Open(t.Context(), dir, store.Options{MaxSize: 64 << 20, Now: func() time.Time { return h.now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	h.db = db
	h.Recorder = New(Options{DB: db, Logger: zap.NewNop(), MaxPending: maxPending, Clock: harnessClock{h: h}})
	return h
}

// harnessClock has the harness's time, and real timers.
type harnessClock struct {
	clock.RealClock
	h *harness
}

func (c harnessClock) Now() time.Time { return c.h.now }

func (h *harness) source(url string) Source {
	s := sourceOf(url, h.now)
	s.Asked, s.told = h.db.Next(), h.db.Next()
	return s
}

func sourceOf(url string, at time.Time) Source {
	r := httptest.NewRequest("GET", url, nil)
	return Source{Principal: who, Info: request.Parse(r), Path: r.URL.RequestURI(), Started: at}
}

func (h *harness) flush() {
	h.t.Helper()
	if err := h.Flush(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) list(url, body string) {
	h.t.Helper()
	h.read(h.teeList(h.source(url), wire.JSON, answer(strings.NewReader(body))))
	h.flush()
}

func (h *harness) read(body io.ReadCloser) {
	h.t.Helper()
	_, err := io.Copy(io.Discard, body)
	if err := errors.Join(err, body.Close()); err != nil && !errors.Is(err, iotest.ErrTimeout) {
		h.t.Fatal(err)
	}
}

// recorded returns the stored collections of a resource: "state namespace/selector@version:
// name@version …".
func (h *harness) recorded(resource string) (out []string) {
	h.t.Helper()
	all, err := h.db.Collections(h.t.Context(), who, "", "v1", resource)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, c := range all {
		line := fmt.Sprintf("%s %s/%s@%s:", c.State, c.Namespace, c.LabelSelector, c.ResourceVersion)
		for r, more := (store.Range{}), true; more; more = r.After != nil {
			r.After, err = h.db.List(h.t.Context(), c.ID, c.Revision, r, func(o store.Object) error {
				if !json.Valid(o.Payload) || strings.Contains(string(o.Payload), `"kind":"ConfigMap"`) {
					h.t.Errorf("payload %s", o.Payload)
				}
				line += " " + o.Name + "@" + o.ResourceVersion
				return nil
			})
			if err != nil {
				h.t.Fatal(err)
			}
		}
		out = append(out, line)
	}
	return out
}

func (h *harness) want(want ...string) {
	h.t.Helper()
	h.flush()
	if got := h.recorded("configmaps"); !slices.Equal(got, want) {
		h.t.Fatalf("recorded:\n %s\nwant:\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

// events records the events of a watch, each "TYPE name version".
func (h *harness) events(w *Watch, events ...string) {
	h.t.Helper()
	for _, line := range events {
		var kind, name string
		var rv int
		if _, err := fmt.Sscan(line, &kind, &name, &rv); err != nil {
			h.t.Fatal(err)
		}
		object := cm(name, rv)
		if kind == "END" {
			kind = wire.Bookmark
			object = fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"%d","annotations":{"k8s.io/initial-events-end":"true"}}}`, rv)
		}
		m, err := wire.JSON.ParseMeta([]byte(object))
		if err != nil {
			h.t.Fatal(err)
		}
		w.Event(wire.Event{Type: kind, Object: []byte(object)}, m)
	}
}

// count counts rows with SQL: the store's own reads do not show incomplete collections.
func (h *harness) count(table string) (n int) {
	h.t.Helper()
	db, err := sql.Open("sqlite3", "file:"+h.db.Path()+"?mode=ro")
	if err != nil {
		h.t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
		h.t.Fatal(err)
	}
	return n
}

// blockStore blocks all other transactions until release is called.
func (h *harness) blockStore() (release func()) {
	held, let, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		done <- h.db.Update(context.Background(), func(*store.Tx) error {
			close(held)
			<-let
			return nil
		})
	}()
	<-held
	release = sync.OnceFunc(func() {
		close(let)
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
	h.t.Cleanup(release) // or a test that has failed would hang
	return release
}

// hasResponse reports whether a verbatim response for a request is recorded.
func (h *harness) hasResponse(url string) bool {
	h.t.Helper()
	h.flush()
	_, err := h.db.Response(h.t.Context(), who, url, "")
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		h.t.Fatal(err)
	}
	return err == nil
}

// observed returns what is observed of a ConfigMap, if anything is; without a name, of all.
func (h *harness) observed(name string) (store.Observation, bool) {
	h.t.Helper()
	h.flush()
	return h.known(name)
}

// known is observed, of what is written.
func (h *harness) known(name string) (o store.Observation, ok bool) {
	h.t.Helper()
	key := store.Key{Namespace: "shop", Name: name}
	known, err := h.db.Known(h.t.Context(), store.Resource{Principal: who, Resource: "configmaps"}, key, "", "")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, o := range known.Observations {
		if o.Key == key {
			return o, true
		}
	}
	return o, false
}

const configmaps = "/api/v1/namespaces/shop/configmaps"

func configMap(name string, rv int) string {
	return fmt.Sprintf(`{"metadata":{"name":%q,"namespace":"shop","uid":"u-%s","resourceVersion":"%d"},"data":{"k":"v%d"}}`, name, name, rv, rv)
}

func listOf(rv int, items ...string) string {
	return fmt.Sprintf(`{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"%d"},"items":[%s]}`, rv, strings.Join(items, ","))
}

// page is a list body with a continue token.
func page(rv int, token string, items ...string) string {
	return strings.Replace(listOf(rv, items...), `"resourceVersion"`, fmt.Sprintf(`"continue":%q,"resourceVersion"`, token), 1)
}

func cm(name string, rv int) string {
	return `{"kind":"ConfigMap","apiVersion":"v1",` + configMap(name, rv)[1:]
}

// answer is a response of unknown length.
func answer(body io.Reader) *http.Response {
	return &http.Response{Header: http.Header{}, ContentLength: -1, Body: io.NopCloser(body)}
}

// checkpoint moves the write-ahead log into the database file.
func checkpoint(t testing.TB, path string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// poison is an operation that fails alone.
type poison struct{ base }

func (poison) apply(*group) error { return errors.New("this operation cannot be written") }

// broken is an operation that fails its group as a full disk does.
type broken struct{ poison }

func (broken) apply(*group) error { return fmt.Errorf("no room: %w", store.ErrFull) }

// counter returns the value of a counter or a gauge.
func counter(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}

// mustBeListed counts the collections that are reported as stale, whatever comes meanwhile.
func (h *harness) mustBeListed() int {
	stale := map[store.Scope]bool{}
	for len(h.stale) > 0 {
		if s := <-h.stale; !s.IfOvertaken {
			stale[s.Scope()] = true
		}
	}
	return len(stale)
}
