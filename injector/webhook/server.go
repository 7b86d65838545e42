package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"

	"rockpool.dev/injector/inject"
)

// Options of a [Server].
type Options struct {
	// Params returns the present settings for all pods. An error means that they are unknown, and
	// that the server is not ready. Required.
	Params func() (inject.Params, error)
	// Injected is called with the namespace of every pod that is created with Rockpool. It must
	// not block. Nil: no call.
	Injected func(namespace string)
	// ExcludedNamespaces are those about which API servers send no reviews. Reviews about them are
	// refused: another program has sent them.
	ExcludedNamespaces []string
	// Clients are the callers that may send reviews. Nil: everybody who reaches the port.
	Clients *Clients
	// Lookup provides facts about namespaces and nodes. Nil: all are unknown.
	Lookup Lookup
	// Certificate chooses the certificate of each handshake. Required.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Trusted returns nil if API servers trust that certificate, and otherwise the reason. Nil:
	// not checked, because another program sets the caBundle.
	Trusted func() error
	// ShutdownDelay is how long the server keeps serving, but is not ready, after its context has
	// ended. Meanwhile API servers stop choosing it. Zero: close the port at once.
	ShutdownDelay time.Duration
	// ShutdownGrace is how long reviews in progress may take after that.
	ShutdownGrace time.Duration
	// Log is required.
	Log *zap.Logger
	// Clock times ShutdownDelay. Nil: the system's.
	Clock clock.Clock
}

// ReadyPath is the path that says whether the server accepts reviews. It is on the same port, so
// that a probe includes a handshake with the certificate that API servers get.
const ReadyPath = "/readyz"

// Server serves [Path], [NamespacePath] and [ReadyPath] over TLS, and nothing else.
type Server struct {
	options Options
	http    *http.Server
	serving atomic.Bool
}

// New returns a server that does nothing until [Server.Serve].
func New(options Options) *Server {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	s := &Server{options: options}
	mux := http.NewServeMux()
	handler := NewHandler(options)
	mux.Handle(Path, handler)
	mux.Handle(NamespacePath, handler)
	mux.HandleFunc("GET "+ReadyPath, s.serveReady)
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: options.Certificate}
	if options.Clients != nil {
		// A probe of the kubelet has no certificate.
		config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, options.Clients.CAs
	}
	// API servers call webhooks by HTTP/1.1. By HTTP/2, each connection could have the server keep
	// a MiB of bodies that nobody reads.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	s.http = &http.Server{
		Handler:   mux,
		TLSConfig: config,
		Protocols: protocols,
		ErrorLog:  zap.NewStdLog(options.Log.Named("http")),
		// An API server waits at most 30 s for a webhook.
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	return s
}

// Serve answers on listener until ctx ends, and then shuts down as the options say. It owns the
// listener. The error is nil after an orderly shutdown.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- s.http.ServeTLS(listener, "", "") }()
	s.serving.Store(true)
	defer s.serving.Store(false)

	select {
	case err := <-served:
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	s.serving.Store(false)
	s.options.Log.Info("shutting down", zap.Duration("delay", s.options.ShutdownDelay),
		zap.Duration("grace", s.options.ShutdownGrace))
	if s.options.ShutdownDelay > 0 {
		<-s.options.Clock.After(s.options.ShutdownDelay)
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.ShutdownGrace)
	defer cancel()
	err := s.http.Shutdown(grace)
	if err != nil {
		err = fmt.Errorf("reviews were still in progress after %s: %w", s.options.ShutdownGrace, err)
		err = errors.Join(err, s.http.Close())
	}
	<-served //nolint:errcheck // http.ErrServerClosed
	return err
}

// Ready returns nil while the server accepts reviews and API servers can send them.
func (s *Server) Ready() error {
	if !s.serving.Load() {
		return errors.New("the webhook accepts no reviews: starting or shutting down")
	}
	if _, err := s.options.Params(); err != nil {
		return err
	}
	if s.options.Trusted == nil {
		return nil
	}
	return s.options.Trusted()
}

func (s *Server) serveReady(w http.ResponseWriter, _ *http.Request) {
	if err := s.Ready(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}
