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
	// Params for every pod.
	Params inject.Params
	// Cluster is asked about namespaces and nodes. Nil: nobody is.
	Cluster Cluster
	// Certificate to serve with. Required.
	Certificate *Certificate
	// ShutdownDelay is for how long the server goes on as before after its context has
	// ended, only no longer ready, so that API servers have stopped choosing it when it
	// closes its port. Zero: close at once.
	ShutdownDelay time.Duration
	// ShutdownGrace is for how long reviews under way may take to end after that.
	ShutdownGrace time.Duration
	// Log is required.
	Log *zap.Logger
	// Clock times ShutdownDelay. Nil: the system's.
	Clock clock.Clock
}

// Server serves [Path] and [NamespacePath] over TLS, and nothing else.
type Server struct {
	options Options
	http    *http.Server
	ready   atomic.Bool
}

// New returns a server that does nothing until [Server.Serve].
func New(options Options) *Server {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	mux := http.NewServeMux()
	handler := NewHandler(options.Params, options.Cluster, options.Log)
	mux.Handle(Path, handler)
	mux.Handle(NamespacePath, handler)
	return &Server{options: options, http: &http.Server{
		Handler:   mux,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: options.Certificate.Get},
		ErrorLog:  zap.NewStdLog(options.Log.Named("http")),
		// An API server gives a webhook 30 s at most.
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}}
}

// Serve answers on listener until ctx ends, then shuts down as the options say. It owns
// the listener. The error is nil after an orderly shutdown.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- s.http.ServeTLS(listener, "", "") }()
	s.ready.Store(true)
	defer s.ready.Store(false)

	select {
	case err := <-served:
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	s.ready.Store(false)
	s.options.Log.Info("shutting down", zap.Duration("delay", s.options.ShutdownDelay), zap.Duration("grace", s.options.ShutdownGrace))
	if s.options.ShutdownDelay > 0 {
		<-s.options.Clock.After(s.options.ShutdownDelay)
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.ShutdownGrace)
	defer cancel()
	err := s.http.Shutdown(grace)
	if err != nil {
		err = errors.Join(fmt.Errorf("reviews were still under way after %s: %w", s.options.ShutdownGrace, err), s.http.Close())
	}
	<-served //nolint:errcheck // http.ErrServerClosed
	return err
}

// Ready tells whether the server takes reviews.
func (s *Server) Ready() bool { return s.ready.Load() }
