package filter

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/dispatch"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/store"
)

// verifier accepts the subject that a token claims.
type verifier struct{}

func (verifier) Verify(h http.Header) (string, error) {
	_, subject, err := principal.Subject(h)
	return subject, err
}

// edge is a cluster, a link to it that the test cuts, and a real cache.
type edge struct {
	t    testing.TB
	s    *server
	link *upstreamtest.Link
	disk *cache.Cache
}

func newEdge(t testing.TB) *edge {
	db, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	disk := cache.New(db, "disk", zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel)))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- disk.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, db.Close()); err != nil {
			t.Error(err)
		}
	})
	e := &edge{t: t, s: newServer(t), link: upstreamtest.NewLink(), disk: disk}
	e.link.SetAnswer(e.s.RoundTrip)
	return e
}

// dispatcher returns a Dispatcher as after a restart of the sidecar.
func (e *edge) dispatcher() *dispatch.Dispatcher {
	all, err := agent.Parse("*")
	if err != nil {
		e.t.Fatal(err)
	}
	return dispatch.New(dispatch.Options{
		Upstream: e.link, Agents: agent.NewCurrent(all), Verifier: verifier{}, Logger: zaptest.NewLogger(e.t, zaptest.Level(zap.ErrorLevel)),
		Caches:      cache.Caches{Disk: e.disk, Memory: &cache.Cache{}},
		Credentials: principal.NewCredentials(func() (string, error) { return token, nil }, nil),
	})
}

func (e *edge) cut() {
	e.link.Cut()
	e.link.SetAnswer(func(*http.Request) (*http.Response, error) { return nil, upstreamtest.ErrDown })
	e.s.breakOff()
}

func (e *edge) restore() {
	e.link.SetAnswer(e.s.RoundTrip)
	e.link.Restore()
}

func TestTheRecordIsUnfilteredAndOfflineAnswersAreFiltered(t *testing.T) {
	for _, format := range formats {
		t.Run(format.MediaType(), func(t *testing.T) {
			e := newEdge(t)
			e.s.put(newService("web", topology("kubernetes.io/hostname")))
			e.s.put(newSlice("web-a", "web", nodeName, "edge-2"))
			shows := func(c *client, what string, other bool) {
				t.Helper()
				c.waitFor(what, func() bool {
					held, ok := c.held["shop/web-a"]
					return ok && strings.Contains(held, "10.0.0."+nodeName) && strings.Contains(held, "10.0.0.edge-2") == other
				})
			}
			f := newFilter(t, e.dispatcher())
			online := newClient(t, f, pathSlices, format)
			shows(online, "online", false)
			if err := e.disk.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}

			e.cut()
			code, body := get(t, e.dispatcher(), pathSlices, format.MediaType())
			if code != http.StatusOK || !strings.Contains(body, "10.0.0.edge-2") {
				t.Errorf("the record: %d %q", code, body)
			}
			restarted := newFilter(t, e.dispatcher())
			offline := newClient(t, restarted, pathSlices, format)
			shows(offline, "offline, after a restart", false)
			restarted.Set(choose(t, "-servicetopology"))
			shows(offline, "offline, without the filter", true)
			restarted.Set(choose(t, "servicetopology"))
			shows(offline, "offline, with the filter again", false)

			e.s.put(newService("web", nil)) // in the cloud
			e.restore()
			shows(online, "the watch that outlived the outage", true)
			shows(offline, "the watch that was opened offline", true)
			if online.lists != 1 || offline.lists > 1 {
				t.Errorf("lists: %d and %d", online.lists, offline.lists)
			}
		})
	}
}

func TestAGETIsFilteredOffline(t *testing.T) {
	e := newEdge(t)
	e.s.put(newService("web", map[string]string{"svc.openyurt.io/discard": "true"}))
	f := newFilter(t, e.dispatcher())
	if code, body := get(t, f, pathServices, wire.MediaTypeJSON); code != http.StatusOK || strings.Contains(body, "web") {
		t.Errorf("%d %s", code, body)
	}
	if err := e.disk.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.cut()
	if code, body := get(t, f, "/api/v1/namespaces/shop/services/web", wire.MediaTypeJSON); code != http.StatusNotFound {
		t.Errorf("%d %s", code, body)
	}
	f.Set(choose(t, "-discardcloudservice"))
	if code, body := get(t, f, "/api/v1/namespaces/shop/services/web", wire.MediaTypeJSON); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
}
