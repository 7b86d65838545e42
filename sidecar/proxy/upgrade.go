package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// newUpgrade returns the handler for protocol upgrades. goproxy supports only WebSocket, and leaks
// half of each connection. ReverseProxy supports any protocol and ends both halves.
func newUpgrade(s *Server) http.Handler {
	if s.options.Upgrade == nil {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			writeStatus(w, failure(http.StatusNotImplemented, metav1.StatusReasonMethodNotAllowed,
				"protocol upgrades are not served here"), r.Context().Value(exchangeKey{}).(*exchange).id.String())
		})
	}
	return &httputil.ReverseProxy{
		Transport:     s.options.Upgrade,
		Rewrite:       rewriteUpgrade,
		ErrorHandler:  upgradeFailed,
		ErrorLog:      debugLog(s.logger),
		FlushInterval: -1, // upstream may answer with a stream instead of switching
		BufferPool:    copyBuffers{},
	}
}

// rewriteUpgrade points the request at the placeholder host. It restores what ReverseProxy removes:
// forwarding fields, and query parameters that do not parse. They concern only client and upstream.
func rewriteUpgrade(p *httputil.ProxyRequest) {
	p.Out.URL.Scheme, p.Out.URL.Host = "https", placeholderHost
	p.Out.Host = placeholderHost
	p.Out.URL.RawQuery = p.In.URL.RawQuery
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := p.In.Header[name]; ok {
			p.Out.Header[name] = values
		}
	}
}

// switchProtocol serves an upgrade, and ends both connections when the grace is over. ReverseProxy
// closes only upstream's connection when the context ends, then waits for the client to close its
// own.
func (x *exchange) switchProtocol(r *http.Request) {
	stopClosing := func() bool { return true }
	x.out.conn = func(conn net.Conn) {
		stopClosing = context.AfterFunc(x.run.ctx, func() { _ = conn.Close() })
	}
	defer func() { stopClosing() }()
	x.server.upgrade.ServeHTTP(&x.out, r.WithContext(context.WithValue(x.ctx, exchangeKey{}, x)))
}

// upgradeFailed is called for errors of the transport, and for responses that ReverseProxy cannot
// use.
func upgradeFailed(w http.ResponseWriter, r *http.Request, err error) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	x.err = fmt.Errorf("upgrade: %w", err)
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the client has disconnected or the grace is over
	}
	writeStatus(w, statusOf(err), x.id.String())
}

// copyBuffers lets ReverseProxy use the pool of large buffers.
type copyBuffers struct{}

func (copyBuffers) Get() []byte  { return *largeBuffers.get() }
func (copyBuffers) Put(b []byte) { largeBuffers.put(&b) }
