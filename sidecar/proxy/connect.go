package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/elazarl/goproxy"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// dialTimeout bounds the connection of a tunnel to its target.
const dialTimeout = 10 * time.Second

// ServeConnect serves CONNECT requests on the listener until ctx ends, for clients that reach the
// API through HTTPS_PROXY. Connections to Options.ConnectHosts end in a TLS server like Serve's.
// All others are tunnelled unchanged, and never intercepted. Shutdown is like Serve's; tunnels get
// the grace. The listener is for this pod only: it must be on loopback.
func (s *Server) ServeConnect(ctx context.Context, listener net.Listener) error {
	apiConns := newHandover(listener.Addr())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, apiConns) }()

	tunnels := newTunnels()
	front := &connectFront{engine: newConnectEngine(s, apiConns, tunnels), tunnels: tunnels}
	run := newRun(ctx)
	server := &http.Server{
		Handler:           run.track(http.HandlerFunc(front.handle)),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          debugLog(s.logger),
		Protocols:         new(http.Protocols),
		BaseContext:       func(net.Listener) context.Context { return run.ctx },

		DisableGeneralOptionsHandler: true,
	}
	server.Protocols.SetHTTP1(true)
	err := run.serve(ctx, server, s.grace(), func() error { return server.Serve(listener) })
	_ = apiConns.Close()
	graceCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.grace())
	defer cancel()
	if err != nil {
		cancel()
	}
	tunnels.drain(graceCtx)
	if apiErr := <-served; err == nil && ctx.Err() != nil {
		err = apiErr
	}
	return err
}

// connectFront checks CONNECT requests before goproxy sees them.
type connectFront struct {
	engine  *goproxy.ProxyHttpServer
	tunnels *tunnels
}

func (f *connectFront) handle(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		writeStatus(w, failure(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed,
			"only CONNECT is served here: plain HTTP is not proxied"), "")
		return
	}
	if host, port, err := net.SplitHostPort(r.URL.Host); err != nil || host == "" || port == "" {
		writeStatus(w, failure(http.StatusBadRequest, metav1.StatusReasonBadRequest,
			"the target of CONNECT must be host:port"), "") // RFC 9110 §9.3.6
		return
	}
	f.engine.ServeHTTP(&connectWriter{ResponseWriter: w, tunnels: f.tunnels}, r)
}

// newConnectEngine returns a goproxy that hands connections to the API's names to apiConns, and
// tunnels the rest. It decides for every CONNECT, so goproxy's default actions with their built-in
// CA are never used.
func newConnectEngine(s *Server, apiConns *handover, tunnels *tunnels) *goproxy.ProxyHttpServer {
	engine := goproxy.NewProxyHttpServer()
	engine.Logger = engineLog{s.logger}
	engine.Tr = &http.Transport{Proxy: nil, DialContext: tunnels.dial}
	// NewProxyHttpServer takes it from the environment, where HTTPS_PROXY may name this very
	// listener.
	engine.ConnectDial = nil
	hijack := &goproxy.ConnectAction{
		Action: goproxy.ConnectHijack,
		Hijack: func(_ *http.Request, client net.Conn, _ *goproxy.ProxyCtx) {
			if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
				_ = client.Close()
				return
			}
			apiConns.push(client)
		},
	}
	tunnel := &goproxy.ConnectAction{Action: goproxy.ConnectAccept}
	engine.OnRequest().HandleConnectFunc(func(host string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		if matchAny(s.options.ConnectHosts, host) {
			return hijack, host
		}
		return tunnel, host
	})
	return engine
}

// connectWriter hijacks connections without losing bytes. goproxy drops the bytes that the server
// has already read from a client that did not wait for the 200.
type connectWriter struct {
	http.ResponseWriter
	tunnels *tunnels
}

func (w *connectWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early := make([]byte, buffered.Reader.Buffered())
	if _, err := io.ReadFull(buffered.Reader, early); err != nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("read early bytes: %w", err)
	}
	tracked := w.tunnels.add(conn, early)
	return tracked, buffered, nil
}

// checkPattern rejects patterns that can never match.
func checkPattern(pattern string) error {
	host, _ := splitPattern(pattern)
	if host == "" || strings.Contains(strings.TrimPrefix(host, "*."), "*") {
		return fmt.Errorf("proxy: connect host %q: want host, host:port or *.domain", pattern)
	}
	return nil
}

func splitPattern(pattern string) (host, port string) {
	if host, port, err := net.SplitHostPort(pattern); err == nil {
		return host, port
	}
	return strings.Trim(pattern, "[]"), ""
}

// matchAny reports whether one of the patterns matches target, a host:port.
func matchAny(patterns []string, target string) bool {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return false
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, pattern := range patterns {
		wantHost, wantPort := splitPattern(strings.ToLower(pattern))
		if wantPort != "" && wantPort != port {
			continue
		}
		if suffix, ok := strings.CutPrefix(wantHost, "*"); ok && strings.HasSuffix(host, suffix) || host == wantHost {
			return true
		}
	}
	return false
}
