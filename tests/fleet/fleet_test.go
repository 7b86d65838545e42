// Package fleet has many sidecars come back to one API server after an outage, in one process and
// on a clock that the test moves.
package fleet

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/upstream"
	"rockpool.dev/sidecar/watch"
	"rockpool.dev/tests/eventually"
	"rockpool.dev/tests/fakeclock"
)

const (
	sidecars = 300
	watches  = 3 // of each sidecar
	outage   = 10 * time.Minute
	step     = 250 * time.Millisecond
	// caughtUp is how soon all watches must be back: half a minute for the connection, half a minute
	// for the turn, and the steps of the clock.
	caughtUp = 65 * time.Second
)

// apiServer answers watches with streams that stay silent, and counts.
type apiServer struct {
	*httptest.Server
	listener    *gate
	connections atomic.Int64
	requests    atomic.Int64
	open        atomic.Int64 // streams
}

// gate is a listener that can refuse connections.
type gate struct {
	net.Listener
	refused atomic.Int64
	mu      sync.Mutex
	shut    bool
	conns   map[net.Conn]struct{}
}

func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g.mu.Lock()
		shut := g.shut
		if !shut {
			g.conns[c] = struct{}{}
		}
		g.mu.Unlock()
		if !shut {
			return c, nil
		}
		g.refused.Add(1)
		reset(c)
	}
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// close resets all connections and refuses new ones.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for c := range g.conns {
		reset(c)
	}
	clear(g.conns)
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
}

func newAPIServer(t *testing.T) *apiServer {
	s := &apiServer{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Audit-Id", "1")
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, `{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"10"}}}`+"\n")
		_ = http.NewResponseController(w).Flush()
		s.open.Add(1)
		defer s.open.Add(-1)
		<-r.Context().Done()
	}))
	s.listener = &gate{Listener: s.Listener, conns: map[net.Conn]struct{}{}}
	s.Listener = s.listener
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// TestSidecarsComeBackSpreadAfterAnOutage: the peak of connections and requests per second decides
// whether an API server survives the return of a fleet.
func TestSidecarsComeBackSpreadAfterAnOutage(t *testing.T) {
	server := newAPIServer(t)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	pemBytes := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, pemBytes, 0o600); err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	clock := fakeclock.New()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	var offline atomic.Int64
	for range sidecars {
		var down atomic.Bool
		u, err := upstream.New(upstream.Options{
			Settings: upstream.Settings{Servers: []upstream.Server{{URL: at}}}, CAFile: ca, Clock: clock,
			IsStream: func(*http.Request) bool { return true },
			OnChange: func(state upstream.State, _ string) {
				if is := state == upstream.Offline; down.Swap(is) != is {
					offline.Add(map[bool]int64{true: 1, false: -1}[is])
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() { _ = u.Run(ctx) })
		w := watch.New(watch.Options{Upstream: u, Credentials: principal.NewCredentials(noToken, nil), Logger: zap.NewNop(), Clock: clock})
		for range watches {
			running.Go(func() { follow(ctx, t, u, w) })
		}
	}
	all := int64(sidecars * watches)
	eventually.True(t, "all watches to be open", func() bool { return server.open.Load() == all })

	server.listener.close()
	var refused int64 // before the last minute
	for left := outage; left > 0; left -= time.Second {
		if left == time.Minute {
			refused = server.listener.refused.Load()
		}
		clock.Step(time.Second)
		settle(server)
	}
	// Twice for each sidecar; more if each wait was a random part of the interval.
	tries := server.listener.refused.Load() - refused
	t.Logf("%d attempts in the last minute of the outage", tries)
	if tries > sidecars*5/2 {
		t.Errorf("%d attempts in a minute", tries)
	}
	eventually.True(t, "all links to be offline", func() bool { clock.Step(step); return offline.Load() == sidecars })

	server.listener.open()
	var connections, requests []int64
	for back := time.Duration(0); back <= caughtUp && server.open.Load() < all; back += time.Second {
		c, r := server.connections.Load(), server.requests.Load()
		for range time.Second / step {
			clock.Step(step)
			settle(server)
		}
		connections, requests = append(connections, server.connections.Load()-c), append(requests, server.requests.Load()-r)
	}
	t.Logf("%d sidecars with %d watches each, connections a second: %v", sidecars, watches, connections)
	t.Logf("requests a second: %v", requests)
	if n := server.open.Load(); n != all {
		t.Errorf("%d of %d watches are back after %s", n, all, caughtUp)
	}
	// The mean of a second is a 30th of the sidecars, and at most a 30th of all watches.
	if peak := maxOf(connections); peak > sidecars/10 {
		t.Errorf("%d connections in one second", peak)
	}
	if peak := maxOf(requests); peak > all/15 {
		t.Errorf("%d requests in one second", peak)
	}
}

// settle waits until the requests and connections that a step of the clock causes have reached the
// server: until none has come for some milliseconds.
func settle(server *apiServer) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for last, quiet := int64(-1), 0; quiet < 5; quiet++ {
		<-tick.C
		if now := server.requests.Load() + server.connections.Load() + server.listener.refused.Load(); now != last {
			last, quiet = now, 0
		}
	}
}

func maxOf(all []int64) (most int64) {
	for _, n := range all {
		most = max(most, n)
	}
	return most
}

func noToken() (string, error) { return "", errors.New("none") }

// follow is a program's watch.
func follow(ctx context.Context, t *testing.T, u *upstream.Upstream, w *watch.Watches) {
	r := httptest.NewRequest(http.MethodGet, "/api/v1/namespaces/shop/configmaps?watch=true&resourceVersion=10", nil).WithContext(ctx)
	r.RequestURI = ""
	resp, err := u.RoundTrip(r)
	if err != nil {
		t.Error(err)
		return
	}
	w.Follow(watch.Request{HTTP: r, Info: request.Parse(r), Cache: &cache.Cache{}}, resp)
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("a watch has ended: %v", err)
	}
}
