package socket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"rockpool.dev/sidecar/proxy"
	"rockpool.dev/tests/eventually"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for an event that should happen at once.
const patience = 10 * time.Second

// path is that of a watch.
const path = "/api/v1/namespaces/shop/configmaps?watch=true&resourceVersion=5"

// harness is the sidecar's proxy with sockets, in front of a watch that the test writes.
type harness struct {
	t     *testing.T
	url   string
	roots *x509.CertPool
	stop  func() error // ends the proxy and returns its error

	asked   chan *http.Request // the ordinary requests
	passed  chan *http.Request // the upgrades
	answer  func(*http.Request) (*http.Response, error)
	content string // Content-Type of the watch
	body    *io.PipeWriter
	stream  *io.PipeReader
}

func start(t *testing.T) *harness { return startWithGrace(t, patience) }

// startWithGrace starts a proxy that gives requests a grace when it stops.
func startWithGrace(t *testing.T, grace time.Duration) *harness {
	t.Helper()
	h := &harness{t: t, roots: x509.NewCertPool(), asked: make(chan *http.Request, 8), passed: make(chan *http.Request, 8), content: "application/json"}
	h.stream, h.body = io.Pipe()
	h.answer = h.watch
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	certified.Close()
	h.roots.AddCert(certified.Certificate())
	server, err := proxy.New(proxy.Options{
		Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) { h.asked <- r; return h.answer(r) }),
		Upgrade: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			h.passed <- r
			return respond(http.StatusTeapot, "text/plain", "passed"), nil
		}),
		Front: Handler, TLS: &tls.Config{Certificates: certified.TLS.Certificates}, Grace: grace,
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.url = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener); close(ended) }()
	h.stop = func() error { cancel(); return eventually.Receive(t, "the proxy's end", ended) }
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Error(err)
		}
	})
	return h
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func respond(status int, contentType, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
}

// watch answers with what the test writes to the body.
func (h *harness) watch(r *http.Request) (*http.Response, error) {
	context.AfterFunc(r.Context(), func() { _ = h.stream.CloseWithError(r.Context().Err()) })
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {h.content}}, Body: h.stream, ContentLength: -1}, nil
}

// write has the watch send bytes.
func (h *harness) write(text string) {
	h.t.Helper()
	if _, err := io.WriteString(h.body, text); err != nil {
		h.t.Fatal(err)
	}
}

// left waits until the watch is not wanted any more.
func (h *harness) left() {
	h.t.Helper()
	r := eventually.Receive(h.t, "the watch", h.asked)
	eventually.Receive(h.t, "the end of the watch", r.Context().Done())
}

// dial opens a WebSocket. The response is the answer to the handshake.
func (h *harness) dial(target string, header http.Header, protocols ...string) (*websocket.Conn, *http.Response, error) {
	h.t.Helper()
	dialer := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: h.roots}, HandshakeTimeout: patience, Subprotocols: protocols}
	if header == nil {
		header = http.Header{"Origin": {"https://elsewhere.example"}, "Authorization": {"Bearer secret"}}
	}
	conn, response, err := dialer.Dial("wss://"+h.url+target, header)
	if err == nil {
		h.t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetReadDeadline(time.Now().Add(patience))
	}
	return conn, response, err
}

// open opens a WebSocket that must open.
func (h *harness) open() *websocket.Conn {
	h.t.Helper()
	conn, response, err := h.dial(path, nil)
	if err != nil {
		h.t.Fatal(err, response)
	}
	return conn
}

// message reads a message.
func (h *harness) message(conn *websocket.Conn) (kind int, text string) {
	h.t.Helper()
	kind, data, err := conn.ReadMessage()
	if err != nil {
		h.t.Fatal(err)
	}
	return kind, string(data)
}

// closed reads to the end of a connection, and returns the code of the close message; 1006: none.
func (h *harness) closed(conn *websocket.Conn) int {
	h.t.Helper()
	for {
		var end *websocket.CloseError
		switch _, _, err := conn.ReadMessage(); {
		case err == nil:
		case errors.As(err, &end):
			return end.Code
		default:
			h.t.Logf("closed: %v", err)
			return websocket.CloseAbnormalClosure
		}
	}
}

// send sends a handshake byte by byte.
func (h *harness) send(header string) net.Conn {
	h.t.Helper()
	conn, err := tls.Dial("tcp", h.url, &tls.Config{RootCAs: h.roots})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"+header+"\r\n")
	return conn
}

// raw opens a WebSocket byte by byte, and returns the connection behind the answer.
func (h *harness) raw(header string) (net.Conn, string) {
	h.t.Helper()
	conn := h.send(header)
	var head strings.Builder
	for !strings.HasSuffix(head.String(), "\r\n\r\n") {
		var b [1]byte
		if _, err := io.ReadFull(conn, b[:]); err != nil {
			h.t.Fatalf("%v after %q", err, head.String())
		}
		head.WriteByte(b[0])
	}
	return conn, head.String()
}

// handshaken is a complete handshake.
const handshaken = "Origin: https://elsewhere.example\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
