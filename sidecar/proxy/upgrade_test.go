package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"k8s.io/client-go/rest"
	clientspdy "k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
	serverspdy "k8s.io/streaming/pkg/httpstream/spdy"

	"rockpool.dev/tests/eventually"
)

// echo upgrades to SPDY or WebSocket and echoes. It closes ended when its side of the connection
// ends.
func echo(t *testing.T, ended chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		if got := r.Header.Get("Authorization"); got != "Bearer token" {
			t.Errorf("authorization %q", got)
		}
		if got, ok := r.Header["X-Forwarded-For"]; ok {
			t.Errorf("x-forwarded-for %q was added", got)
		}
		if websocket.IsWebSocketUpgrade(r) {
			upgrader := websocket.Upgrader{Subprotocols: []string{"v5.channel.k8s.io"}}
			conn, err := upgrader.Upgrade(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for {
				kind, data, err := conn.ReadMessage()
				if err != nil || conn.WriteMessage(kind, data) != nil {
					return
				}
			}
		}
		if _, err := httpstream.Handshake(r, w, []string{"v4.channel.k8s.io"}); err != nil {
			t.Error(err)
			return
		}
		conn := serverspdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, replied <-chan struct{}) error {
			go func() {
				<-replied
				_, _ = io.Copy(stream, stream)
				_ = stream.Close()
			}()
			return nil
		})
		if conn == nil {
			t.Error("SPDY upgrade failed")
			return
		}
		<-conn.CloseChan()
	}
}

func (r *harness) spdy() (httpstream.Connection, error) {
	config := &rest.Config{Host: r.url, BearerToken: "token", TLSClientConfig: rest.TLSClientConfig{CAData: r.caPEM()}}
	transport, upgrader, err := clientspdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	target, err := url.Parse(r.url + "/api/v1/namespaces/a/pods/b/exec?command=cat&stdin=true")
	if err != nil {
		return nil, err
	}
	dialer := clientspdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, target)
	conn, protocol, err := dialer.Dial("v4.channel.k8s.io")
	if err == nil && protocol != "v4.channel.k8s.io" {
		err = fmt.Errorf("negotiated protocol %q", protocol)
	}
	return conn, err
}

func (r *harness) websocket() (*websocket.Conn, error) {
	dialer := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: r.roots}, Subprotocols: []string{"v5.channel.k8s.io"}}
	conn, response, err := dialer.Dial(strings.Replace(r.url, "https", "wss", 1)+"/api/v1/namespaces/a/pods/b/exec", http.Header{"Authorization": {"Bearer token"}})
	if err == nil && response.Header.Get("Sec-Websocket-Protocol") != "v5.channel.k8s.io" {
		err = fmt.Errorf("negotiated protocol %q", response.Header)
	}
	return conn, err
}

func TestSPDYIsForwardedInBothDirections(t *testing.T) {
	ended := make(chan struct{})
	r := start(t, false, echo(t, ended), nil)
	conn, err := r.spdy()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := conn.CreateStream(http.Header{"Streamtype": {"stdin"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		sent := fmt.Sprintf("line %d", i)
		if _, err := io.WriteString(stream, sent); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(stream, got); err != nil || string(got) != sent {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	eventually.Receive(t, "upstream's end to be closed", ended)
	if x := r.exchange(0); x.Status != http.StatusSwitchingProtocols || x.Upgrade != "SPDY/3.1" || x.Err != nil {
		t.Errorf("observed %+v", x)
	}
}

func TestWebSocketIsForwardedInBothDirections(t *testing.T) {
	ended := make(chan struct{})
	r := start(t, false, echo(t, ended), nil)
	conn, err := r.websocket()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		sent := fmt.Sprintf("message %d", i)
		if err := conn.WriteMessage(websocket.BinaryMessage, []byte(sent)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := conn.ReadMessage(); err != nil || string(got) != sent {
			t.Errorf("got %q, %v", got, err)
		}
	}
	_ = conn.Close()
	eventually.Receive(t, "upstream's end to be closed", ended)
	if x := r.exchange(0); x.Status != http.StatusSwitchingProtocols || x.Upgrade != "websocket" {
		t.Errorf("observed %+v", x)
	}
}

func TestShutdownEndsUpgrades(t *testing.T) {
	ended := make(chan struct{})
	r := start(t, false, echo(t, ended), func(o *Options) { o.Grace = -1 })
	conn, err := r.websocket()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	eventually.Receive(t, "upstream's end to be closed", ended)
	if _, _, err := conn.ReadMessage(); err == nil {
		t.Error("the client's end is open")
	}
}

func TestShutdownEndsUpgradesWhoseClientKeepsItsHalfOpen(t *testing.T) {
	r := start(t, false, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbye")
		_ = conn.Close()
	}, func(o *Options) { o.Grace = -1 })
	conn, err := tls.Dial("tcp", strings.TrimPrefix(r.url, "https://"), &tls.Config{RootCAs: r.roots, ServerName: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if got := readAll(t, conn); !strings.HasPrefix(got, "HTTP/1.1 101 ") || !strings.HasSuffix(got, "\r\n\r\nbye") {
		t.Errorf("got %q", got)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

func TestUpgradesGetTheGrace(t *testing.T) {
	ended := make(chan struct{})
	r := start(t, false, echo(t, ended), func(o *Options) { o.Grace = 3 * patience })
	conn, err := r.websocket()
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	eventually.True(t, "the port to be closed", func() bool {
		probe, err := net.Dial("tcp", strings.TrimPrefix(r.url, "https://"))
		if err == nil {
			_ = probe.Close()
		}
		return err != nil
	})
	if err := conn.WriteMessage(websocket.TextMessage, []byte("still there")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.ReadMessage(); err != nil || string(got) != "still there" {
		t.Errorf("got %q, %v", got, err)
	}
	if len(stopped) != 0 {
		t.Error("Serve has returned")
	}
	_ = conn.Close()
	if err := eventually.Receive(t, "Serve to return", stopped); err != nil {
		t.Error(err)
	}
}

func TestARefusedUpgradeIsForwarded(t *testing.T) {
	r := start(t, false, func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Upgrade") != "SPDY/3.1" || req.URL.RawQuery != "command=a;b&%zz" {
			t.Errorf("upgrade %q, query %q", req.Header.Get("Upgrade"), req.URL.RawQuery)
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"kind":"Status"}`)
	}, nil)
	request := r.request(http.MethodPost, "/api/v1/namespaces/a/pods/b/exec?command=a;b&%zz", nil)
	request.Header.Set("Connection", "upgrade")
	request.Header.Set("Upgrade", "SPDY/3.1")
	response := r.do(false, request)
	if got := readAll(t, response.Body); response.StatusCode != http.StatusForbidden || got != `{"kind":"Status"}` {
		t.Errorf("%s %q", response.Status, got)
	}
}

func TestAnUpgradeToAnotherProtocolIsAnOrdinaryRequest(t *testing.T) {
	for _, protocol := range []string{"h2c", "TLS/1.0", "spdyish", "websocket/2"} {
		r := start(t, true, func(w http.ResponseWriter, req *http.Request) {
			if len(req.Header["Upgrade"])+len(req.Header["Connection"])+len(req.Header["Http2-Settings"]) > 0 {
				t.Errorf("%s: header %v", protocol, req.Header)
			}
			_, _ = io.WriteString(w, "ordinary")
		}, func(o *Options) { o.Upgrade = nil })
		response := r.raw("GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: " + protocol + "\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
		if got := readAll(t, response.Body); response.StatusCode != http.StatusOK || got != "ordinary" {
			t.Errorf("%s: %s %q", protocol, response.Status, got)
		}
		if x := r.exchange(0); x.Upgrade != "" {
			t.Errorf("observed an upgrade to %q", x.Upgrade)
		}
	}
}

func TestTheUpgradeOfADisconnectedClientEndsUpstream(t *testing.T) {
	asked, ended := make(chan struct{}), make(chan struct{})
	r := start(t, false, func(_ http.ResponseWriter, req *http.Request) {
		close(asked)
		<-req.Context().Done()
		close(ended)
	}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	request := r.request(http.MethodGet, "/exec", nil).WithContext(ctx)
	request.Header.Set("Connection", "upgrade")
	request.Header.Set("Upgrade", "websocket")
	failed := make(chan error, 1)
	go func() {
		response, err := r.client(false).Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		failed <- err
	}()
	eventually.Receive(t, "the request", asked)
	cancel()
	eventually.Receive(t, "upstream's end", ended)
	if err := eventually.Receive(t, "the client's end", failed); err == nil {
		t.Error("the client got an answer")
	}
}
