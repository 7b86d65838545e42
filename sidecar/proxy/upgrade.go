package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// newUpgrade returns the handler for requests that want to leave HTTP. goproxy passes WebSockets only, and leaks half of
// each; ReverseProxy passes any protocol and ends both halves.
func newUpgrade(s *Server) http.Handler {
	if s.options.Upgrade == nil {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			writeStatus(w, failure(http.StatusNotImplemented, metav1.StatusReasonMethodNotAllowed, "protocol upgrades are not served here"))
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

// rewriteUpgrade points the request at the placeholder and gives back what ReverseProxy has taken for its own purposes:
// forwarding fields and query parameters that do not parse are the client's business and upstream's.
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

// switchProtocol ends both connections when the grace is over. ReverseProxy closes upstream's when the context ends, and
// then waits for the client to close its own.
func (x *exchange) switchProtocol(r *http.Request) {
	unlink := func() bool { return true }
	x.out.conn = func(conn net.Conn) {
		unlink = context.AfterFunc(x.run.ctx, func() { _ = conn.Close() })
	}
	defer func() { unlink() }()
	x.server.upgrade.ServeHTTP(&x.out, r.WithContext(context.WithValue(x.ctx, exchangeKey{}, x)))
}

// upgradeFailed is called for errors of the transport, and for answers that ReverseProxy cannot act on.
func upgradeFailed(w http.ResponseWriter, r *http.Request, err error) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	x.err = fmt.Errorf("upgrade: %w", err)
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the client is gone, or the grace is over
	}
	writeStatus(w, statusOf(err))
}

// copyBuffers lets ReverseProxy use the pool of large buffers.
type copyBuffers struct{}

func (copyBuffers) Get() []byte  { return *largeBuffers.get() }
func (copyBuffers) Put(b []byte) { largeBuffers.put(&b) }
