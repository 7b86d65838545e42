package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/dispatch"
	"rockpool.dev/sidecar/meter"
	"rockpool.dev/sidecar/proxy"
)

// serveMetrics serves /metrics, with what from has, until ctx ends.
func serveMetrics(ctx context.Context, l net.Listener, from prometheus.Gatherer) error {
	return serveUntil(ctx, l, metricsHandler(from))
}

func metricsHandler(from prometheus.Gatherer) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(from, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	return mux
}

// serveAdmin serves /metrics until ctx ends, and the status page where only the pod itself, and kubectl
// port-forward, can ask for it.
func (s *sidecar) serveAdmin(ctx context.Context, l net.Listener) error {
	mux := metricsHandler(s.metrics())
	if at, ok := l.Addr().(*net.TCPAddr); ok && at.IP.IsLoopback() {
		s.page.Register(mux)
	}
	return serveUntil(ctx, l, mux)
}

// serveUntil serves HTTP until ctx ends.
func serveUntil(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // a scrape that is cut is made again
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// metrics gathers those of all packages, and those of this sidecar.
func (s *sidecar) metrics() prometheus.Gatherer {
	own := prometheus.NewRegistry()
	own.MustRegister(s.meter, &meter.State{
		Link: s.upstream, Caches: []*cache.Cache{s.caches.Disk, s.caches.Memory}, Version: programVersion(), Started: s.started, Now: time.Now,
	})
	return prometheus.Gatherers{prometheus.DefaultGatherer, own}
}

// withTrace gives the context of a request what the dispatcher and the meter fill in.
func (s *sidecar) withTrace(ctx context.Context) context.Context {
	return s.meter.With(dispatch.WithTrace(ctx))
}

// observer counts and logs the requests that have ended.
func (s *sidecar) observer() func(proxy.Exchange) {
	log := accessLog(s.log, s.repeated)
	return func(x proxy.Exchange) {
		trace := dispatch.TraceOf(x.Context)
		info := trace.Info
		if info.Path == "" { // an upgrade, or the proxy has rejected it
			parsed := request.Parse(&http.Request{Method: x.Method, URL: &url.URL{Path: x.Path, RawQuery: x.Query}})
			info = &parsed
		}
		s.meter.Request(meter.Exchange{
			Context: x.Context, Method: x.Method, Info: info, Status: x.Status, Source: sourceOf(trace.Offline, &x, info), Duration: x.Duration,
			Stream: x.Upgrade != "" || info.Verb == request.Watch || info.Subresource == "log" || x.Status == 0,
		})
		if x.Status >= http.StatusInternalServerError && x.Err != nil {
			s.recent.Note(time.Now(), fmt.Sprintf("%s %s was answered with %d: %v", x.Method, x.Path, x.Status, x.Err))
		}
		log(x)
	}
}

// sourceOf says who has answered. offline means that it was not the API server.
func sourceOf(offline bool, x *proxy.Exchange, info *request.Info) meter.Source {
	failed := x.Status == 0 || x.Status == http.StatusUnauthorized || x.Status >= http.StatusInternalServerError
	switch {
	case !offline && (x.Err == nil || !failed):
		return meter.Upstream
	case failed:
		return meter.Refused
	case info.IsRead() || info.Class == request.ClassReview:
		return meter.Cache
	}
	return meter.Accepted
}
