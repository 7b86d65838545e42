package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rockpool.dev/tests/eventually"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for an event that should happen at once.
const patience = 10 * time.Second

// harness is a proxy between a real server and real clients, with TLS on both sides.
type harness struct {
	t        *testing.T
	upstream *httptest.Server
	server   *Server
	url      string // of the proxy
	roots    *x509.CertPool
	stop     func() error // ends Serve and returns its error

	mu       sync.Mutex
	observed []Exchange
}

// protocols are the four combinations of HTTP versions.
var protocols = []struct {
	name             string
	client, upstream bool // HTTP/2
}{
	{"HTTP/1.1 client and HTTP/1.1 upstream", false, false},
	{"HTTP/1.1 client and HTTP/2 upstream", false, true},
	{"HTTP/2 client and HTTP/1.1 upstream", true, false},
	{"HTTP/2 client and HTTP/2 upstream", true, true},
}

// start starts an upstream with the handler, and a proxy in front of it.
func start(t *testing.T, upstreamH2 bool, handler http.HandlerFunc, adjust func(*Options)) *harness {
	t.Helper()
	r := &harness{t: t, roots: x509.NewCertPool()}
	r.upstream = httptest.NewUnstartedServer(handler)
	r.upstream.EnableHTTP2 = upstreamH2
	r.upstream.StartTLS()
	t.Cleanup(r.upstream.Close)
	r.roots.AddCert(r.upstream.Certificate())

	options := Options{
		Transport: r.transport(upstreamH2),
		Upgrade:   r.transport(false),
		TLS:       &tls.Config{Certificates: r.upstream.TLS.Certificates},
		Grace:     time.Second,
		Observe: func(x Exchange) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.observed = append(r.observed, x)
		},
	}
	if adjust != nil {
		adjust(&options)
	}
	server, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	r.server = server
	listener := listen(t)
	r.url = "https://" + listener.Addr().String()
	r.stop = serve(t, func(ctx context.Context) error { return server.Serve(ctx, listener) })
	return r
}

// serve calls run in a goroutine, and ends it when stop is called or the test ends.
func serve(t *testing.T, run func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			return fmt.Errorf("still serving")
		}
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return stop
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// transport sends every request to the upstream, for any host.
func (r *harness) transport(h2 bool) http.RoundTripper {
	base := r.plainTransport(h2)
	target, _ := url.Parse(r.upstream.URL)
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		// Clone would copy the trailers before they have arrived.
		out := req.WithContext(req.Context())
		to := *req.URL
		to.Scheme, to.Host = target.Scheme, target.Host
		out.URL, out.Host = &to, target.Host
		return base.RoundTrip(out)
	})
}

func (r *harness) plainTransport(h2 bool) *http.Transport {
	transport := &http.Transport{
		TLSClientConfig:       &tls.Config{RootCAs: r.roots, ServerName: "127.0.0.1"},
		Protocols:             new(http.Protocols),
		ExpectContinueTimeout: patience,
	}
	transport.Protocols.SetHTTP1(!h2)
	transport.Protocols.SetHTTP2(h2)
	r.t.Cleanup(transport.CloseIdleConnections)
	return transport
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (r *harness) client(h2 bool) *http.Client { return &http.Client{Transport: r.plainTransport(h2)} }

// get sends a request without a body.
func (r *harness) get(h2 bool, path string) *http.Response {
	r.t.Helper()
	return r.do(h2, r.request(http.MethodGet, path, nil))
}

func (r *harness) request(method, path string, body io.Reader) *http.Request {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	r.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	return req
}

func (r *harness) do(h2 bool, req *http.Request) *http.Response {
	r.t.Helper()
	response, err := r.client(h2).Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// raw sends bytes over TLS and returns the response.
func (r *harness) raw(text string) *http.Response {
	r.t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(r.url, "https://"), &tls.Config{RootCAs: r.roots, ServerName: "127.0.0.1"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, text); err != nil {
		r.t.Fatal(err)
	}
	return readResponse(r.t, conn)
}

// exchange waits for the nth request to end and returns what was observed.
func (r *harness) exchange(n int) Exchange {
	r.t.Helper()
	var got Exchange
	eventually.True(r.t, "an observed exchange", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.observed) <= n {
			return false
		}
		got = r.observed[n]
		return true
	})
	return got
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read: %v after %q", err, data)
	}
	return string(data)
}

func (r *harness) caPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.upstream.Certificate().Raw})
}
