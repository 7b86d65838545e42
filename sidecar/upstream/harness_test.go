package upstream

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"rockpool.dev/tests/eventually"
	"rockpool.dev/tests/fakeclock"
)

// TestMain lets many tests run at the same time: they wait for links that do not answer.
func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "16")
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if left := keptBytes.Load(); left != 0 {
			fmt.Fprintf(os.Stderr, "%d bytes of request bodies are still accounted for\n", left)
			code = 1
		}
		os.Exit(code)
	}))
}

const requestTimeout = 20 * time.Second

// apiServer is a real TLS server behind a link that can fail.
type apiServer struct {
	*httptest.Server
	link *link

	mu     sync.Mutex
	probes []string // Authorization of each GET /readyz
	ready  int      // status of GET /readyz
}

// newServer starts a server. Its /readyz answers 200 until ready is changed.
func newServer(t *testing.T, h2 bool, handler http.HandlerFunc) *apiServer {
	t.Helper()
	return newServerWithConfig(t, h2, handler, func(*httptest.Server) {})
}

// newServerWithConfig starts a server that configure changes.
func newServerWithConfig(t *testing.T, h2 bool, handler http.HandlerFunc, configure func(*httptest.Server)) *apiServer {
	t.Helper()
	s := &apiServer{ready: http.StatusOK}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.probes = append(s.probes, r.Header.Get("Authorization"))
			w.WriteHeader(s.ready)
			return
		}
		if handler != nil {
			handler(w, r)
		}
	}))
	s.EnableHTTP2 = h2
	s.Config.ErrorLog = discardLog
	configure(s.Server)
	s.StartTLS()
	t.Cleanup(s.Close)
	s.link = newLink(t, s.Listener.Addr().String())
	return s
}

// newServerWith starts a server with a certificate of its own, and no link in front of it.
func newServerWith(t *testing.T, cert tls.Certificate, handler http.Handler) *url.URL {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = discardLog
	s.StartTLS()
	t.Cleanup(s.Close)
	return &url.URL{Scheme: "https", Host: s.Listener.Addr().String()}
}

func (s *apiServer) setReady(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = status
}

func (s *apiServer) probeCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.probes)
}

// asServer returns the setting that reaches the server over its link.
func (s *apiServer) asServer() Server {
	return Server{URL: &url.URL{Scheme: "https", Host: s.link.address}}
}

// harness is an Upstream under test.
type harness struct {
	*Upstream
	t      *testing.T
	caFile string
	logs   *observer.ObservedLogs
	stop   func()

	mu      sync.Mutex
	changes []State
	reasons []string
}

// fastOptions are options that keep tests short.
func fastOptions(servers ...Server) Options {
	return Options{Settings: Settings{
		Servers:        servers,
		ProbeInterval:  100 * time.Millisecond,
		ProbeTimeout:   500 * time.Millisecond,
		ConnectTimeout: 5 * time.Second,
		RetryInterval:  200 * time.Millisecond,
	}}
}

// newHarness makes an Upstream that trusts the servers' common certificate. run starts it.
func newHarness(t *testing.T, options Options) *harness {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	r := &harness{t: t, logs: logs, caFile: options.CAFile}
	if r.caFile == "" {
		r.caFile = filepath.Join(t.TempDir(), "ca.crt")
		writeCA(t, r.caFile)
		options.CAFile = r.caFile
	}
	options.Logger = zap.New(core)
	if options.IsStream == nil {
		options.IsStream = func(r *http.Request) bool { return r.URL.Path == "/watch" }
	}
	options.OnChange = func(s State, reason string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changes, r.reasons = append(r.changes, s), append(r.reasons, reason)
	}
	u, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	r.Upstream = u
	if _, fake := options.Clock.(fakeclock.Clock); fake {
		for _, a := range u.plan.Load().addresses {
			a.segments = func(net.Conn) segments { return segments{} }
		}
	}
	t.Cleanup(u.stop)
	return r
}

func (r *harness) run() *harness {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := eventually.Receive(r.t, "Run to return", ended); err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(r.stop)
	return r
}

// writeCA writes the certificate that all httptest servers share.
func writeCA(t *testing.T, file string) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *harness) address(i int) *address { return r.plan.Load().addresses[i] }

// states returns the changes of the state so far.
func (r *harness) states() []State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.changes)
}

func (r *harness) fail(i int, err error) { failAddress(r.address(i), err) }

// failAddress makes an address down: as if a dial had failed now, long after the last byte.
func failAddress(a *address, err error) {
	for _, c := range a.all() {
		c.socket.verified.Store(false) // its bytes count no more
		c.end(err)
		a.remove(c)
	}
	a.heard.sinceEpoch.Store(0)
	a.mu.Lock()
	a.tried = a.clock.Now()
	a.mu.Unlock()
	a.dialed(err)
}

func (r *harness) await(want State) {
	r.t.Helper()
	eventually.True(r.t, "the state "+want.String(), func() bool { return r.State() == want })
}

func (r *harness) request(method, path string, body io.Reader) *http.Request {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	r.t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, method, "https://kubernetes.default.svc"+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	return request
}

// send returns the response, or fails the test.
func (r *harness) send(method, path string) *http.Response {
	r.t.Helper()
	response, err := r.RoundTrip(r.request(method, path, nil))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func (r *harness) text(method, path string) string {
	r.t.Helper()
	response := r.send(method, path)
	data, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

// try sends a GET in the background.
func (r *harness) try(path string) chan error {
	failed := make(chan error, 1)
	request := r.request(http.MethodGet, path, nil)
	go func() {
		response, err := r.RoundTrip(request)
		if err == nil {
			_, err = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
		}
		failed <- err
	}()
	return failed
}

// selfSigned returns a certificate for the names, valid around now, and its PEM.
func selfSigned(t *testing.T, names ...string) (tls.Certificate, []byte) {
	t.Helper()
	return certificate(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), names...)
}

func respond(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

var discardLog = newDiscardLog()
