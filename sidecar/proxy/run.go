package proxy

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// errShutdown is the cause of the context of long-running requests when the server stops.
var errShutdown = errors.New("the sidecar is shutting down")

// run is one call of Serve: the contexts of its requests and the number of running handlers.
type run struct {
	ctx      context.Context // of every request; ends when the grace is over
	kill     context.CancelFunc
	stopping context.Context // ends when shutdown begins
	stop     context.CancelFunc

	mu     sync.Mutex
	active int
	idle   chan struct{} // closed when active becomes 0; nil: nobody waits for that
}

// newRun takes the values of ctx but not its cancellation: requests continue during the grace.
func newRun(ctx context.Context) *run {
	r := &run{}
	r.ctx, r.kill = context.WithCancel(context.WithoutCancel(ctx))
	r.stopping, r.stop = context.WithCancel(r.ctx)
	return r
}

// track counts running handlers. http.Server counts connections, and forgets hijacked ones.
func (r *run) track(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.active++
		r.mu.Unlock()
		defer func() {
			r.mu.Lock()
			if r.active--; r.active == 0 && r.idle != nil {
				close(r.idle)
				r.idle = nil
			}
			r.mu.Unlock()
		}()
		handler.ServeHTTP(w, req)
	})
}

// wait returns true when no handler runs, or false when ctx ends first.
func (r *run) wait(ctx context.Context) bool {
	r.mu.Lock()
	if r.active == 0 {
		r.mu.Unlock()
		return true
	}
	if r.idle == nil {
		r.idle = make(chan struct{})
	}
	idle := r.idle
	r.mu.Unlock()
	select {
	case <-idle:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve owns the accepting goroutine and all handlers: when it returns, they have ended.
func (r *run) serve(ctx context.Context, server *http.Server, grace time.Duration, accept func() error) error {
	accepted := make(chan error, 1)
	go func() { accepted <- accept() }()

	var failure error
	select {
	case failure = <-accepted:
		grace = 0 // the listener failed, so no client can send another request
		accepted <- nil
	case <-ctx.Done():
	}
	r.stop()
	graceCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := server.Shutdown(graceCtx); err == nil {
		r.wait(graceCtx)
	}
	r.kill()
	_ = server.Close() // the handlers of the remaining connections end with an error
	<-accepted         //nolint:errcheck // http.ErrServerClosed
	abandonCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonAfter)
	defer cancel()
	if !r.wait(abandonCtx) && failure == nil {
		failure = errors.New("proxy: requests still running after shutdown")
	}
	return failure
}
