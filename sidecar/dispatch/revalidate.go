package dispatch

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/origin"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/sidecar/tally"
)

// lookupTimeout bounds how long a request waits for the cache before it goes upstream, and
// then for a body from the cache. A slower disk is no help.
type lookupTimeout struct{ etag, body time.Duration }

var defaultLookupTimeout = lookupTimeout{etag: 250 * time.Millisecond, body: 2 * time.Second}

// skipCacheFor is how long documents are fetched without a look into the cache after a lookup
// has timed out. Programs ask for dozens of documents one after the other.
const skipCacheFor = 30 * time.Second

var revalidationsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_revalidations_total",
	Help: "Conditional requests for recorded documents, by result: unchanged (the API server sent no body), changed, lost (unchanged, but the cache could not give the body any more), failed (another answer, or none).",
}, []string{"result"})

// conditional are headers by which a client makes a request depend on what it has.
var conditional = []string{"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range", "Range"}

// recordedETag gives the ETag of the recorded answer to a request for a document. It is empty if
// there is none, or the request has a condition of its own.
func (d *Dispatcher) recordedETag(x *exchange) string {
	if x.info.Class != request.ClassDiscovery || x.info.Unrecorded || x.source.Principal == "" || d.Clock.Now().UnixNano() < d.skipUntil.Load() {
		return ""
	}
	if slices.ContainsFunc(conditional, func(name string) bool { return x.request.Header.Get(name) != "" }) {
		return ""
	}
	etag, err := cache.Within(x.request.Context(), d.lookup.etag, func(ctx context.Context) (string, error) {
		return x.cache.ETag(ctx, x.document())
	}, nil)
	if err != nil {
		if x.request.Context().Err() == nil {
			d.skipCacheAfter(err)
		}
		return "" // it is fetched as if it were not recorded
	}
	return etag
}

// revalidate asks the API server whether a recorded document has changed. If it has not, the
// client gets the recorded body.
func (d *Dispatcher) revalidate(x *exchange, etag string) (*http.Response, error) {
	ctx := x.request.Context()
	r := x.request.Clone(ctx)
	r.Header.Set("If-None-Match", etag)
	resp, err := d.Upstream.RoundTrip(r)
	if err != nil {
		revalidationsTotal.WithLabelValues("failed").Inc()
		return nil, err
	}
	switch {
	case resp.StatusCode != http.StatusNotModified:
		result := "failed"
		if resp.StatusCode == http.StatusOK {
			result = "changed"
		}
		revalidationsTotal.WithLabelValues(result).Inc()
		d.answered(x, resp)
		return resp, nil
	case !origin.FromAPIServer(resp): // what it says is unchanged may be its own page
		resp.Body.Close()
		revalidationsTotal.WithLabelValues("failed").Inc()
		return d.forward(x)
	}
	defer resp.Body.Close()
	recorded, err := cache.Within(ctx, d.lookup.body, func(ctx context.Context) (*http.Response, error) {
		return x.cache.Unchanged(ctx, x.document(), etag, resp)
	}, nil)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err() // the client has left; the cache has lost nothing
	case err != nil:
		d.skipCacheAfter(err)
		revalidationsTotal.WithLabelValues("lost").Inc()
		d.Repeated.Write(tally.Line{
			Level: zap.WarnLevel, Message: "cannot read an unchanged document from the cache; fetching it again",
			Fields: []zap.Field{zap.String("path", x.info.Path)}, Err: err,
		})
		return d.forward(x)
	}
	revalidationsTotal.WithLabelValues("unchanged").Inc()
	d.Credentials.Observe(x.request.Header, x.source.Principal, x.info.IsResource, recorded.StatusCode)
	x.cache.Renewed(x.source, etag)
	return recorded, nil
}

// skipCacheAfter has documents fetched without a look into the cache for a while, when a lookup
// has timed out.
func (d *Dispatcher) skipCacheAfter(err error) {
	if errors.Is(err, context.DeadlineExceeded) {
		d.skipUntil.Store(d.Clock.Now().Add(skipCacheFor).UnixNano())
	}
}

// document is the recorded answer to the identical request.
func (x *exchange) document() replay.Request {
	return replay.Request{Principal: x.source.Principal, Info: *x.info, Path: x.source.Path}
}
