package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/elazarl/goproxy"
	"go.uber.org/zap"
)

// Defaults and limits of the servers.
const (
	// DefaultGrace is how long Serve lets requests finish after its context has ended.
	DefaultGrace = 10 * time.Second

	// readHeaderTimeout bounds the TLS handshake and the reading of a request's header. There is no
	// timeout for writing: a watch lasts as long as the client wants.
	readHeaderTimeout = 30 * time.Second
	// idleTimeout is longer than the 90 seconds after which Go's clients close an idle connection,
	// so that a client rarely sends a request on a connection that the server is just closing.
	idleTimeout = 5 * time.Minute
	// maxHeaderBytes is kube-apiserver's own limit (net/http's default).
	maxHeaderBytes = 1 << 20
	// maxStreams is how many requests one HTTP/2 connection may have open. client-go puts all
	// watches of a process on one connection; a limit below their number would make it open more
	// connections.
	maxStreams = 2000
	// maxReadFrame keeps the read buffer of an HTTP/2 connection small.
	maxReadFrame = 64 << 10
	// abandonAfter bounds the wait for handlers whose connections have been closed. It is reached
	// only if a Transport ignores its request's context.
	abandonAfter = 5 * time.Second
)

// Options configure a Server. Transport and TLS are required.
type Options struct {
	// Transport answers every request that is not an upgrade. It gets path and query as the client
	// sent them. URL.Host and Host are placeholders, which it replaces. It must honour the
	// request's context until the response body is closed, and must not change the request.
	//
	// An error that implements Status() metav1.Status reaches the client as that Status. Any other
	// becomes a 502, or a 504 if it is a timeout.
	Transport http.RoundTripper

	// Front, if not nil, stands before all requests. It may make another request of one, and bring
	// the answer into another form.
	Front func(http.Handler) http.Handler

	// Upgrade answers requests to switch to SPDY or WebSocket (exec, attach, port-forward). It must
	// speak HTTP/1.1 only, and the body of its 101 response must be an io.ReadWriteCloser, as that of
	// http.Transport is. Nil refuses upgrades with 501.
	Upgrade http.RoundTripper

	// TLS has the server's certificate, or a GetCertificate. The Server clones it and sets the
	// protocols.
	TLS *tls.Config

	// ConnectHosts are the names under which clients of ServeConnect know the API: "host" (any
	// port), "host:port", and "*.domain" with or without a port. Connections to other hosts are
	// tunnelled. Options.TLS must have a certificate for each of them.
	ConnectHosts []string

	// LongRunning reports whether a request gets no grace: it ends cleanly as soon as shutdown
	// begins. Nil means IsWatch.
	LongRunning func(*http.Request) bool

	// Buffered is called when the response header has arrived. It reports whether the client can
	// use the response only when it is complete, like an object or a list. Such a response is
	// written as buffers fill, which saves system calls. Any other response without Content-Length
	// is flushed after every read. Nil means that no response is buffered.
	Buffered func(*http.Request) bool

	// Compressed reports whether the answer to a GET may be compressed for a client that asks for it.
	// The Transport then gets "Accept-Encoding: gzip". Otherwise it gets none, and must return
	// a plain body: bytes on loopback cost less than their compression. Nil means never.
	Compressed func(*http.Request) bool

	// Pretty, if not nil, is called when the Transport has failed. It reports whether the Status is
	// indented for the client.
	Pretty func(*http.Request) bool

	// Context, if not nil, derives the context of a request. Observe gets it back as
	// Exchange.Context.
	Context func(context.Context) context.Context

	// Observe, if not nil, is called once for each finished request, on the request's goroutine.
	Observe func(Exchange)

	// Grace is how long requests may take to finish after the context of Serve has ended. Zero
	// means DefaultGrace; negative means no grace.
	Grace time.Duration

	// Logger logs messages of the engine and the servers, at debug and warn level. Nil logs
	// nothing.
	Logger *zap.Logger
}

// Exchange describes one finished request.
type Exchange struct {
	Context   context.Context // as Options.Context made it
	ID        *RequestID      // the client's Audit-Id or X-Request-Id, or a new one; the header Audit-Id of a refusal has it
	AuditID   string          // the header Audit-Id of upstream's answer, or ""
	Method    string
	Path      string // decoded
	Query     string // as sent
	Proto     string // client side, "HTTP/2.0" or "HTTP/1.1"
	UserAgent string
	Upgrade   string        // the protocol asked for in an Upgrade header, or ""
	Status    int           // 0 if the client disconnected before a status was sent
	Bytes     int64         // of the response body as written; not counted after an upgrade
	Start     time.Time     // when the request header had been read
	Duration  time.Duration // until the last byte was written
	// Err is why the response is incomplete, or the cause of its Status. It is nil for a watch that
	// its client has ended.
	Err error
}

// Server proxies one application's API traffic. Use New.
type Server struct {
	options Options
	engine  *goproxy.ProxyHttpServer
	upgrade http.Handler
	logger  *zap.Logger
}

// New checks the options and returns a Server that is not yet serving.
func New(options Options) (*Server, error) {
	if options.Transport == nil {
		return nil, errors.New("proxy: Transport is required")
	}
	if options.TLS == nil {
		return nil, errors.New("proxy: TLS is required")
	}
	if options.LongRunning == nil {
		options.LongRunning = IsWatch
	}
	if options.Buffered == nil {
		options.Buffered = func(*http.Request) bool { return false }
	}
	if options.Grace == 0 {
		options.Grace = DefaultGrace
	}
	if options.Logger == nil {
		options.Logger = zap.NewNop()
	}
	s := &Server{options: options, logger: options.Logger}
	for _, pattern := range options.ConnectHosts {
		if err := checkPattern(pattern); err != nil {
			return nil, err
		}
	}
	s.engine = newEngine(s)
	s.upgrade = newUpgrade(s)
	return s, nil
}

// Serve serves TLS on the listener until ctx ends, then shuts down: it stops accepting, ends
// long-running requests, gives the others Options.Grace, and closes the remaining connections. It
// returns nil after an orderly shutdown, and closes the listener in any case.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	defer listener.Close() // ServeTLS leaves it open if the certificate is unusable
	run := newRun(ctx)
	handler := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.handle(run, w, r) }))
	if s.options.Front != nil {
		handler = s.options.Front(handler)
	}
	server := &http.Server{
		Handler:           run.track(handler),
		TLSConfig:         s.options.TLS.Clone(),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          debugLog(s.logger),
		Protocols:         new(http.Protocols),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReadFrameSize: maxReadFrame},
		BaseContext:       func(net.Listener) context.Context { return run.ctx },
		// Otherwise net/http answers "OPTIONS *" by itself.
		DisableGeneralOptionsHandler: true,
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	return run.serve(ctx, server, s.grace(), func() error { return server.ServeTLS(listener, "", "") })
}

func (s *Server) grace() time.Duration { return max(s.options.Grace, 0) }

// IsWatch reports whether a request asks for a watch: by the API's query parameter, or by one of
// the deprecated /watch/ paths
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
func IsWatch(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	if r.URL.RawQuery == "" {
		return watchPath(r.URL.Path)
	}
	values, ok := r.URL.Query()["watch"]
	return ok && values[0] != "0" && !strings.EqualFold(values[0], "false") || watchPath(r.URL.Path)
}
