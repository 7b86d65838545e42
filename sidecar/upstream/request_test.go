package upstream

import (
	"bufio"
	"compress/gzip"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"rockpool.dev/tests/eventually"
)

func TestRequestsAreNotChanged(t *testing.T) {
	var got *http.Request
	server := newServer(t, true, func(_ http.ResponseWriter, r *http.Request) { got = r })
	entry := server.asServer()
	entry.URL.Path = "/k8s/clusters/c-1/"
	r := newHarness(t, fastOptions(entry))
	request := r.request(http.MethodGet, "/api/v1/namespaces/a%2Fb?x=1&y=a;b", nil)
	request.Header = http.Header{"Authorization": {"Bearer token"}, "User-Agent": nil, "X-A": {"1", "2"}}
	before := request.Clone(request.Context())
	response, err := r.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if diff := cmp.Diff(before.Header, request.Header); diff != "" || *request.URL != *before.URL || request.Host != before.Host {
		t.Errorf("the caller's request is now %+v, header:\n%s", request, diff)
	}
	want := http.Header{"Authorization": {"Bearer token"}, "X-A": {"1", "2"}, "Accept-Encoding": {"gzip"}}
	if diff := cmp.Diff(want, got.Header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if got.RequestURI != "/k8s/clusters/c-1/api/v1/namespaces/a%2Fb?x=1&y=a;b" || got.Host != entry.URL.Host || got.ProtoMajor != 2 {
		t.Errorf("%s %s for %s", got.Proto, got.RequestURI, got.Host)
	}
}

func TestGzipIsDecompressed(t *testing.T) {
	server := newServer(t, true, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, "plain")
		_ = z.Close()
	})
	if got := newHarness(t, fastOptions(server.asServer())).text(http.MethodGet, "/"); got != "plain" {
		t.Errorf("got %q", got)
	}
}

func TestEnvironmentProxyIsNotUsed(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	server := newServer(t, true, respond("ok"))
	entry := server.asServer()
	_, port, _ := net.SplitHostPort(entry.URL.Host)
	// net/http never proxies this or 127.0.0.1: check Proxy too.
	entry.URL.Host = "localhost:" + port
	entry.TLSServerName = "127.0.0.1"
	r := newHarness(t, fastOptions(entry))
	if r.address(0).overHTTP1.Proxy != nil {
		t.Error("a proxy is set")
	}
	if got := r.text(http.MethodGet, "/"); got != "ok" {
		t.Errorf("got %q", got)
	}
}

func TestAddressesAreTriedInOrder(t *testing.T) {
	t.Parallel()
	first, second := newServer(t, true, respond("first")), newServer(t, true, respond("second"))
	r := newHarness(t, fastOptions(first.asServer(), second.asServer())).run()
	if got := r.text(http.MethodGet, "/"); got != "first" {
		t.Errorf("got %q", got)
	}
	first.link.refuse()
	if got := r.text(http.MethodGet, "/"); got != "second" {
		t.Errorf("got %q in the call that found the first down", got)
	}
	eventually.True(t, "the first to be known as down", func() bool { return r.address(0).verdict() == Down })
	if got := r.text(http.MethodGet, "/"); got != "second" {
		t.Errorf("got %q", got)
	}
	first.link.restore()
	eventually.True(t, "the first to be preferred again", func() bool { return r.text(http.MethodGet, "/") == "first" })
	r.stop()
	for _, s := range r.changes {
		if s == Offline {
			t.Errorf("offline though the second answers: %v", r.changes)
		}
	}
}

func TestABlackHoleAtOneAddressDoesNotBlockRequests(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 1)
	first := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/watch" {
			w.(http.Flusher).Flush()
		}
		asked <- struct{}{}
		<-r.Context().Done()
	})
	second := newServer(t, true, respond("second"))
	r := newHarness(t, fastOptions(first.asServer(), second.asServer())).run()
	watch := r.send(http.MethodGet, "/watch")
	<-asked
	got := make(chan string, 1)
	go func() { got <- r.text(http.MethodGet, "/") }()
	eventually.Receive(t, "the first to be asked", asked)
	first.link.blackhole()
	if text := eventually.Receive(t, "the answer", got); text != "second" {
		t.Errorf("got %q", text)
	}
	if _, err := watch.Body.Read(make([]byte, 1)); !IsLinkError(err) {
		t.Errorf("the watch on the first ended with %v", err)
	}
}

func TestOnlySafeRequestsAreSentAgain(t *testing.T) {
	cases := []struct {
		name   string
		method string
		body   string
		broken func(*apiServer) // how the first address fails
		want   string           // "" for a LinkError
	}{
		{"a GET whose connection breaks", http.MethodGet, "", nil, "second"},
		{"a HEAD whose connection breaks", http.MethodHead, "", nil, ""},
		{"a DELETE whose connection breaks may have been executed", http.MethodDelete, "", nil, ""},
		{"a POST whose connection breaks may have been executed", http.MethodPost, "body", nil, ""},
		{"a DELETE that could not be sent", http.MethodDelete, "", refuseLink, "second"},
		{"a POST that could not be sent", http.MethodPost, "body", refuseLink, "second body"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			first := newServer(t, false, nil)
			first.Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, _ *http.Request) { first.link.refuse() })
			second := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
				data, _ := io.ReadAll(r.Body)
				_, _ = io.WriteString(w, strings.TrimSpace("second "+string(data)))
			})
			r := newHarness(t, fastOptions(first.asServer(), second.asServer()))
			if c.broken != nil {
				c.broken(first)
			}
			var body io.Reader
			if c.body != "" {
				body = &closing{Reader: strings.NewReader(c.body)} // cannot be rewound
			}
			response, err := r.RoundTrip(r.request(c.method, "/", body))
			if c.method == http.MethodHead {
				if err != nil {
					t.Fatal(err)
				}
				_ = response.Body.Close()
				return
			}
			if c.want == "" {
				if !IsLinkError(err) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if data, err := io.ReadAll(response.Body); string(data) != c.want || err != nil {
				t.Errorf("got %q, %v", data, err)
			}
		})
	}
}

func refuseLink(s *apiServer) { s.link.refuse() }

func TestGatewayErrors(t *testing.T) {
	status := `{"kind":"Status","apiVersion":"v1","status":"Failure","code":503}`
	cases := []struct {
		name   string
		code   int
		header http.Header
		body   string
		passes bool
	}{
		{"a Status with 503 is an answer", 503, nil, status, true},
		{"a Status with 504 is an answer", 504, nil, status, true},
		{"a Status after white space is an answer", 503, nil, strings.Repeat(" ", 3000) + status, true},
		{"a Status in protobuf is an answer", 503, http.Header{"Content-Type": {"application/vnd.kubernetes.protobuf"}}, "k8s\x00...", true},
		{"plain text with an Audit-Id is an answer", 503, http.Header{"Audit-Id": {"1"}}, "service unavailable", true},
		{"500 in HTML is an answer", 500, nil, "<html>", true},
		{"429 in plain text is an answer", 429, nil, "too many", true},
		{"502 in HTML is a load balancer's", 502, nil, "<html>", false},
		{"503 in plain text is a load balancer's", 503, nil, "no backend", false},
		{"an empty 504 is a load balancer's", 504, nil, "", false},
		{"other JSON is a load balancer's", 503, nil, `{"kind":"Error"}`, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			first := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
				for name, values := range c.header {
					w.Header()[name] = values
				}
				w.WriteHeader(c.code)
				_, _ = io.WriteString(w, c.body)
			})
			second := newServer(t, true, respond("second"))
			r := newHarness(t, fastOptions(first.asServer(), second.asServer()))
			response := r.send(http.MethodGet, "/")
			data, err := io.ReadAll(response.Body)
			want, wantCode := c.body, c.code
			if !c.passes {
				want, wantCode = "second", 200
			}
			if string(data) != want || err != nil || response.StatusCode != wantCode {
				t.Errorf("%s %q, %v", response.Status, data, err)
			}
			if c.passes {
				return
			}
			alone := newHarness(t, fastOptions(first.asServer()))
			_, err = alone.RoundTrip(alone.request(http.MethodPost, "/", strings.NewReader("x")))
			if !IsLinkError(err) || !strings.Contains(err.Error(), fmt.Sprint("answered ", c.code)) {
				t.Errorf("without a second: %v", err)
			}
		})
	}
}

// TestAnAnswerWithoutABodyIsTheAPIServersIfItSaysSo: that to a HEAD has nothing else to tell by.
func TestAnAnswerWithoutABodyIsTheAPIServersIfItSaysSo(t *testing.T) {
	for _, audited := range []bool{true, false} {
		first := newServer(t, true, func(w http.ResponseWriter, _ *http.Request) {
			if audited {
				w.Header().Set("Audit-Id", "1")
			}
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		second := newServer(t, true, respond("second"))
		r := newHarness(t, fastOptions(first.asServer(), second.asServer()))
		want := map[bool]int{true: http.StatusServiceUnavailable, false: http.StatusOK}[audited]
		if got := r.send(http.MethodHead, "/").StatusCode; got != want {
			t.Errorf("with Audit-Id: %t: %d", audited, got)
		}
	}
}

func TestUpgradesGoOverHTTP1(t *testing.T) {
	server := newServer(t, true, nil)
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(conn, buffered)
	})
	for _, down := range []bool{false, true} {
		t.Run(fmt.Sprintf("and end with the address: %t", down), func(t *testing.T) {
			r := newHarness(t, fastOptions(server.asServer()))
			request := r.request(http.MethodGet, "/exec", nil)
			request.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"echo"}}
			response, err := r.HTTP1().RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			conn, ok := response.Body.(io.ReadWriteCloser)
			if !ok || response.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%s with a %T", response.Status, response.Body)
			}
			defer conn.Close()
			reader := bufio.NewReader(conn)
			for range 2 {
				_, _ = io.WriteString(conn, "hello\n")
				if line, err := reader.ReadString('\n'); line != "hello\n" || err != nil {
					t.Errorf("got %q, %v", line, err)
				}
			}
			if down {
				for _, c := range r.address(0).all() {
					c.end(errors.New("down"))
				}
				if _, err := reader.ReadByte(); err == nil {
					t.Error("the connection is open")
				}
			}
		})
	}
}

// TestEachConnectionHasTheProtocolThatTheServerChose: a gateway may learn or forget HTTP/2.
func TestEachConnectionHasTheProtocolThatTheServerChose(t *testing.T) {
	t.Parallel()
	var speaksHTTP2 atomic.Bool
	server := newServerWithConfig(t, true, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	}, func(s *httptest.Server) {
		s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			config := s.TLS.Clone()
			if !speaksHTTP2.Load() {
				config.NextProtos = []string{"http/1.1"}
			}
			return config, nil
		}}
	})
	r := newHarness(t, fastOptions(server.asServer()))
	for i, want := range []string{"HTTP/1.1", "HTTP/2.0", "HTTP/1.1", "HTTP/2.0"} {
		speaksHTTP2.Store(want == "HTTP/2.0")
		for _, c := range r.address(0).all() {
			_ = c.Close()
		}
		for range 2 {
			if got := r.text(http.MethodGet, "/"); got != want {
				t.Errorf("with connection %d: %s, want %s", i, got, want)
			}
		}
		if response, err := r.HTTP1().RoundTrip(r.request(http.MethodGet, "/", nil)); err != nil || response.ProtoMajor != 1 {
			t.Errorf("an upgrade: %v", err)
		} else {
			_ = response.Body.Close()
		}
	}
	if diff := cmp.Diff([]State{Online}, r.states()); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func TestInvalidServersAreRefused(t *testing.T) {
	parse := func(s string) *url.URL { u, _ := url.Parse(s); return u }
	cases := []struct {
		name    string
		servers []Server
		want    string
	}{
		{"none", nil, "upstream: no servers: set upstream.servers, or run in a cluster"},
		{"no URL", []Server{{}}, "upstream: server without a URL"},
		{"plain HTTP", []Server{{URL: parse("http://a:80")}}, `upstream: server "http://a:80": the scheme must be https`},
		{"no host", []Server{{URL: parse("https://:443")}}, `upstream: server "https://:443": no host`},
		{"a password", []Server{{URL: parse("https://u:secret@a")}}, `upstream: server "https://u:xxxxx@a": must not have a user, query or fragment`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if _, err := New(Options{Settings: Settings{Servers: c.servers}}); err == nil || err.Error() != c.want {
				t.Errorf("got %v", err)
			}
		})
	}
}
