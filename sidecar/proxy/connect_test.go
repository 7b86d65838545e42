package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"rockpool.dev/tests/eventually"
)

// connect starts ServeConnect for the names, and returns its address.
func (r *harness) connect(names ...string) string {
	r.t.Helper()
	address, _ := r.connectStop(names...)
	return address
}

func (r *harness) connectStop(names ...string) (string, func() error) {
	r.t.Helper()
	options := r.server.options
	options.ConnectHosts = names
	server, err := New(options)
	if err != nil {
		r.t.Fatal(err)
	}
	listener := listen(r.t)
	stop := serve(r.t, func(ctx context.Context) error { return server.ServeConnect(ctx, listener) })
	return listener.Addr().String(), stop
}

func TestConnectToTheAPIIsServed(t *testing.T) {
	for _, p := range protocols {
		t.Run("with "+p.name, func(t *testing.T) {
			r := start(t, p.upstream, func(w http.ResponseWriter, req *http.Request) {
				_, _ = io.WriteString(w, req.URL.Path)
			}, nil)
			address := r.connect("kubernetes.default.svc:443")
			transport := r.plainTransport(p.client)
			transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: address})
			for range 2 {
				response, err := (&http.Client{Transport: transport}).Get("https://kubernetes.default.svc/api/v1/pods")
				if err != nil {
					t.Fatal(err)
				}
				if got := readAll(t, response.Body); got != "/api/v1/pods" {
					t.Errorf("%s %q", response.Status, got)
				}
				_ = response.Body.Close()
			}
			if x := r.exchange(1); x.Path != "/api/v1/pods" {
				t.Errorf("observed %+v", x)
			}
		})
	}
}

func TestConnectToAnotherHostIsTunnelled(t *testing.T) {
	// Environment proxies must not be used. This one does not exist.
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	r := start(t, true, nil, nil)
	far := listen(t)
	defer far.Close()
	go func() {
		conn, err := far.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		data, _ := io.ReadAll(conn) // until the client's half is closed
		_, _ = io.WriteString(conn, "far end got "+string(data))
	}()
	near, reader, response := dialConnect(t, r.connect("kubernetes.default.svc"), far.Addr().String(), "early,")
	if response.StatusCode != http.StatusOK {
		t.Fatalf("got %s", response.Status)
	}
	_, _ = io.WriteString(near, "late")
	if err := near.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, reader); got != "far end got early,late" {
		t.Errorf("got %q", got)
	}
	if len(r.observed) != 0 {
		t.Errorf("the tunnel was intercepted: %+v", r.observed)
	}
}

// dialConnect sends CONNECT, with the bytes of early right after it.
func dialConnect(t *testing.T, address, target, early string) (*net.TCPConn, *bufio.Reader, *http.Response) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n"+early)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn), reader, response
}

func TestConnectIsNeverIntercepted(t *testing.T) {
	r := start(t, true, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "upstream itself") }, nil)
	address := r.connect("kubernetes.default.svc")
	transport := r.plainTransport(false)
	transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: address})
	transport.TLSClientConfig.VerifyConnection = func(state tls.ConnectionState) error {
		if !state.PeerCertificates[0].Equal(r.upstream.Certificate()) {
			return errors.New("not the far end's certificate")
		}
		return nil
	}
	response, err := (&http.Client{Transport: transport}).Get(r.upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got := readAll(t, response.Body); got != "upstream itself" || len(r.observed) != 0 {
		t.Errorf("got %q, observed %+v", got, r.observed)
	}
}

func TestConnectRefusals(t *testing.T) {
	closed := listen(t)
	_ = closed.Close()
	cases := []struct {
		name   string
		text   string
		status int
	}{
		{"plain HTTP through the proxy", "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 405},
		{"a path", "GET /api HTTP/1.1\r\nHost: example.com\r\n\r\n", 405},
		{"a target without a port", "CONNECT example.com HTTP/1.1\r\nHost: example.com\r\n\r\n", 400},
		{"a target that does not answer", "CONNECT " + closed.Addr().String() + " HTTP/1.1\r\nHost: x\r\n\r\n", 502},
	}
	r := start(t, true, nil, nil)
	address := r.connect("kubernetes.default.svc")
	for _, c := range cases {
		t.Run(c.name+" is refused", func(t *testing.T) {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(conn, c.text)
			if response := readResponse(t, conn); response.StatusCode != c.status {
				t.Errorf("got %s", response.Status)
			}
		})
	}
}

func TestShutdownEndsTunnels(t *testing.T) {
	r := start(t, true, nil, func(o *Options) { o.Grace = -1 })
	far := listen(t)
	defer far.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if conn, err := far.Accept(); err == nil {
			accepted <- conn
		}
	}()
	address, stop := r.connectStop("kubernetes.default.svc")
	_, tunnel, _ := dialConnect(t, address, far.Addr().String(), "")
	_, handed, _ := dialConnect(t, address, "kubernetes.default.svc:443", "")
	conn := eventually.Receive(t, "the tunnel", accepted)
	defer conn.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
	for name, reader := range map[string]io.Reader{"near": tunnel, "far": conn, "API": handed} {
		if n, err := reader.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s end: %d bytes, %v", name, n, err)
		}
	}
}

func TestConnectHostPatterns(t *testing.T) {
	cases := []struct {
		name     string
		patterns []string
		target   string
		want     bool
	}{
		{"a host matches any port", []string{"kubernetes"}, "kubernetes:6443", true},
		{"a host with port matches that port", []string{"kubernetes:443"}, "kubernetes:443", true},
		{"a host with port does not match another", []string{"kubernetes:443"}, "kubernetes:22", false},
		{"case and a trailing dot do not matter", []string{"Kubernetes.default.svc"}, "kubernetes.DEFAULT.svc.:443", true},
		{"a wildcard matches a name with this suffix", []string{"*.svc:443"}, "kubernetes.default.svc:443", true},
		{"a wildcard does not match the domain itself", []string{"*.svc"}, "svc:443", false},
		{"a suffix does not match without a wildcard", []string{"default.svc"}, "kubernetes.default.svc:443", false},
		{"an IPv6 address matches", []string{"[fd00::1]:443"}, "[fd00::1]:443", true},
		{"an IPv6 address matches any port", []string{"[fd00::1]"}, "[fd00::1]:6443", true},
		{"without a pattern no name matches", nil, "kubernetes:443", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := matchAny(c.patterns, c.target); got != c.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestInvalidOptionsAreRefused(t *testing.T) {
	transport := roundTripFunc(nil)
	cases := []struct {
		name    string
		options Options
		want    string
	}{
		{"no transport", Options{TLS: &tls.Config{}}, "proxy: Transport is required"},
		{"no TLS", Options{Transport: transport}, "proxy: TLS is required"},
		{"an empty name", Options{Transport: transport, TLS: &tls.Config{}, ConnectHosts: []string{":443"}},
			`proxy: connect host ":443": want host, host:port or *.domain`},
		{"a star in the middle", Options{Transport: transport, TLS: &tls.Config{}, ConnectHosts: []string{"a.*.b"}},
			`proxy: connect host "a.*.b": want host, host:port or *.domain`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if _, err := New(c.options); err == nil || err.Error() != c.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestServeWithoutACertificateFails(t *testing.T) {
	server, err := New(Options{Transport: roundTripFunc(nil), TLS: &tls.Config{}})
	if err != nil {
		t.Fatal(err)
	}
	listener := listen(t)
	if err := server.Serve(context.Background(), listener); err == nil {
		t.Error("no error")
	}
	if _, err := listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}

func TestIsWatch(t *testing.T) {
	cases := []struct {
		method, target string
		want           bool
	}{
		{"GET", "/api/v1/pods?watch=true", true},
		{"GET", "/api/v1/pods?watch=1&resourceVersion=5", true},
		{"GET", "/api/v1/pods?watch", true},
		{"GET", "/api/v1/pods?watch=false", false},
		{"GET", "/api/v1/pods?watch=0", false},
		{"GET", "/api/v1/pods", false},
		{"DELETE", "/api/v1/pods?watch=true", false},
		{"GET", "/api/v1/watch/pods", true},
		{"GET", "/api/v1/watch/pods?watch=false", true},
		{"GET", "/apis/apps/v1/watch/deployments", true},
		{"GET", "/apis/watch/v1/deployments", false},
		{"GET", "/api/v1/namespaces/watch/pods", false},
	}
	for _, c := range cases {
		r, err := http.NewRequest(c.method, "https://x"+c.target, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := IsWatch(r); got != c.want {
			t.Errorf("%s %s: got %t", c.method, c.target, got)
		}
	}
}
