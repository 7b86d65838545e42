package upstream

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"rockpool.dev/tests/fakeclock"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"
)

func TestEachFailureOfAServerIsLoggedOnce(t *testing.T) {
	listening := func(t *testing.T, server *httptest.Server) string {
		t.Cleanup(server.Close)
		server.Config.ErrorLog = discardLog
		return server.Listener.Addr().String()
	}
	withCertificate := func(t *testing.T, from, to time.Time, name string) (string, []byte) {
		cert, ca := certificate(t, from, to, name)
		server := httptest.NewUnstartedServer(nil)
		server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		server.StartTLS()
		return listening(t, server), ca
	}
	now := time.Now()
	cases := []struct {
		name  string
		setup func(t *testing.T) (address string, ca []byte)
		check string // in the log line
	}{
		{"a certificate of another CA", func(t *testing.T) (string, []byte) {
			address, _ := withCertificate(t, now.Add(-time.Hour), now.Add(time.Hour), "127.0.0.1")
			_, other := selfSigned(t, "127.0.0.1")
			return address, other
		}, "not signed by a CA in "},
		{"a certificate for another name", func(t *testing.T) (string, []byte) {
			return withCertificate(t, now.Add(-time.Hour), now.Add(time.Hour), "api.example")
		}, "upstream.tls-server-name"},
		{"a certificate that has expired", func(t *testing.T) (string, []byte) {
			return withCertificate(t, now.Add(-2*time.Hour), now.Add(-time.Hour), "127.0.0.1")
		}, "clock"},
		{"plain HTTP", func(t *testing.T) (string, []byte) {
			_, ca := selfSigned(t, "127.0.0.1")
			return listening(t, httptest.NewServer(nil)), ca
		}, "does not speak TLS"},
		{"something that is neither HTTP nor TLS", func(t *testing.T) (string, []byte) {
			_, ca := selfSigned(t, "127.0.0.1")
			return notHTTP(t), ca
		}, "does not speak TLS"},
		{"a closed port", func(t *testing.T) (string, []byte) {
			_, ca := selfSigned(t, "127.0.0.1")
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			_ = listener.Close()
			return listener.Addr().String(), ca
		}, "nothing listens there"},
		{"a CA file without certificates", func(t *testing.T) (string, []byte) {
			return withoutCA(withCertificate(t, now.Add(-time.Hour), now.Add(time.Hour), "127.0.0.1"))
		}, "holds the cluster's CA certificates"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			address, ca := c.setup(t)
			options := fastOptions(Server{URL: &url.URL{Scheme: "https", Host: address}})
			options.CAFile = filepath.Join(t.TempDir(), "ca.crt")
			if err := os.WriteFile(options.CAFile, ca, 0o600); err != nil {
				t.Fatal(err)
			}
			options.Clock = fakeclock.New()
			r := newHarness(t, options)
			for range 3 {
				r.reach(0)
			}
			if r.State() != Offline {
				t.Errorf("the state is %s", r.State())
			}
			_, err := r.RoundTrip(r.request(http.MethodGet, "/", nil))
			if !IsLinkError(err) {
				t.Errorf("a request fails with %v", err)
			}
			lines := r.logs.FilterLevelExact(zapcore.WarnLevel).All()
			if len(lines) != 1 {
				t.Fatalf("%d warnings: %+v", len(lines), lines)
			}
			fields := lines[0].ContextMap()
			if fields["server"] != "https://"+address || !strings.Contains(fields["check"].(string), c.check) || fields["error"] == "" {
				t.Errorf("the warning says %v", fields)
			}
		})
	}
}

func withoutCA(address string, _ []byte) (string, []byte) { return address, []byte("nothing") }

// notHTTP starts a server that greets like SSH.
func notHTTP(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { _ = listener.Close(); <-ended })
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "SSH-2.0-x\r\n")
			_, _ = conn.Read(make([]byte, 1024)) // so that Close does not reset the connection
			_ = conn.Close()
		}
	}()
	return listener.Addr().String()
}

// reach dials an address and waits for the end of that.
func (r *harness) reach(i int) {
	a := r.address(i)
	a.mu.Lock()
	d := a.connect()
	a.mu.Unlock()
	<-d.done
}

func TestAFailureOfAnotherKindIsLogged(t *testing.T) {
	server := newServer(t, true, nil)
	options := fastOptions(server.asServer())
	options.Clock = fakeclock.New()
	r := newHarness(t, options)
	badCA := func() {
		if err := os.WriteFile(r.caFile, []byte("nothing"), 0o600); err != nil {
			t.Fatal(err)
		}
		r.address(0).trust.roots = nil
	}
	steps := []func(){
		func() {},                       // info
		server.link.refuse,              // warning
		func() {},                       // same kind, no line
		badCA,                           // warning
		func() {},                       // same kind, no line
		func() { writeCA(t, r.caFile) }, // warning: refused again
		server.link.restore,             // info
		func() {},                       // up already, no line
	}
	for _, step := range steps {
		step()
		for _, c := range r.address(0).all() {
			_ = c.Close()
		}
		r.reach(0)
	}
	var got []string
	for _, line := range r.logs.All() {
		if line.ContextMap()["server"] != nil {
			got = append(got, line.Level.String())
		}
	}
	if want := "info warn warn warn info"; strings.Join(got, " ") != want {
		t.Errorf("log lines about the server: %v, want %s", got, want)
	}
}

func TestARotatedCAIsLoaded(t *testing.T) {
	first, firstCA := selfSigned(t, "127.0.0.1")
	second, secondCA := selfSigned(t, "127.0.0.1")
	current := make(chan tls.Certificate, 1)
	current <- first
	server := httptest.NewUnstartedServer(respond("ok"))
	server.Config.ErrorLog = discardLog
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		cert := <-current
		current <- cert
		return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}, SessionTicketsDisabled: true}, nil
	}}
	server.StartTLS()
	defer server.Close()

	options := fastOptions(Server{URL: &url.URL{Scheme: "https", Host: server.Listener.Addr().String()}})
	options.CAFile = filepath.Join(t.TempDir(), "ca.crt")
	options.Clock = fakeclock.New()
	r := newHarness(t, options) // the file does not exist yet
	if _, err := r.RoundTrip(r.request(http.MethodGet, "/", nil)); !IsLinkError(err) || !strings.Contains(err.Error(), "read CA file") {
		t.Errorf("without a CA file: %v", err)
	}
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(options.CAFile, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r.lookAround(t.Context())
		r.reach(0) // as it is tried again
	}
	write(firstCA)
	if got := r.text(http.MethodGet, "/"); got != "ok" {
		t.Errorf("with the first CA: %q", got)
	}
	<-current
	current <- second
	for _, c := range r.address(0).all() {
		_ = c.Close()
	}
	if _, err := r.RoundTrip(r.request(http.MethodGet, "/", nil)); !IsLinkError(err) {
		t.Errorf("with a certificate of another CA: %v", err)
	}
	write(secondCA)
	if got := r.text(http.MethodGet, "/"); got != "ok" {
		t.Errorf("with the second CA: %q", got)
	}
	write([]byte("garbage"))
	if got := r.text(http.MethodGet, "/"); got != "ok" {
		t.Errorf("with a file that has become garbage: %q", got)
	}
}

func TestTheConfiguredServerNameIsVerified(t *testing.T) {
	cert, ca := selfSigned(t, "kubernetes.default.svc")
	server := httptest.NewUnstartedServer(respond("ok"))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.StartTLS()
	defer server.Close()
	options := fastOptions(Server{
		URL:           &url.URL{Scheme: "https", Host: server.Listener.Addr().String()},
		TLSServerName: "kubernetes.default.svc",
	})
	options.CAFile = filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(options.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := newHarness(t, options).text(http.MethodGet, "/"); got != "ok" {
		t.Errorf("got %q", got)
	}
}
