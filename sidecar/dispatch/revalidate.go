package dispatch

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/replay"
)

// patience bounds how long a request waits for the cache before it goes upstream, and
// then for a body from there. A disk that takes longer than that is no help.
type patience struct{ etag, body time.Duration }

var defaultPatience = patience{etag: 250 * time.Millisecond, body: 2 * time.Second}

// rest is how long documents are fetched without a look into the cache after it was
// waited for in vain: programs ask for dozens of them one after the other.
const rest = 30 * time.Second

var revalidationsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_revalidations_total",
	Help: "Recorded documents that the API server was asked about, by result: unchanged (it sent no body), changed, lost (unchanged, but the cache could not give it any more), failed (another answer, or none).",
}, []string{"result"})

// conditional are headers by which a client makes a request depend on what it has.
var conditional = []string{"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range", "Range"}

// ask sends a request upstream and has the answer recorded. For a document that is
// recorded it only asks whether it has changed: discovery and OpenAPI are large, many
// clients read them at each start, and the link may be thin.
func (f *Dispatcher) ask(r *http.Request, source record.Source) (*http.Response, error) {
	etag := f.etag(r, source)
	if etag == "" {
		return f.pass(r, source)
	}
	asked := r.Clone(r.Context())
	asked.Header.Set("If-None-Match", etag)
	resp, err := f.Upstream.RoundTrip(asked)
	if err != nil {
		revalidationsTotal.WithLabelValues("failed").Inc()
		return nil, err
	}
	if resp.StatusCode != http.StatusNotModified {
		result := "failed"
		if resp.StatusCode == http.StatusOK {
			result = "changed"
		}
		revalidationsTotal.WithLabelValues(result).Inc()
		f.believe(r, source.Principal, resp)
		f.record(source, resp)
		return resp, nil
	}
	defer resp.Body.Close()
	cache := f.cache(&source.Info)
	whole, err := within(r.Context(), f.patience.body, func(ctx context.Context) (*http.Response, error) {
		return cache.Replayer.Unchanged(ctx, documentOf(source), etag, resp)
	})
	if gone := r.Context().Err(); err != nil && gone != nil {
		return nil, gone // the client, and nobody has lost anything
	}
	if err != nil {
		f.tire(err)
		revalidationsTotal.WithLabelValues("lost").Inc()
		f.Logger.Warn("a document has not changed, but the cache cannot give it; it is fetched again", zap.String("path", source.Info.Path), zap.Error(err))
		return f.pass(r, source)
	}
	revalidationsTotal.WithLabelValues("unchanged").Inc()
	f.believe(r, source.Principal, whole)
	cache.Recorder.Renewed(source, etag)
	return whole, nil
}

// pass sends a request upstream as it is and has the answer recorded.
func (f *Dispatcher) pass(r *http.Request, source record.Source) (*http.Response, error) {
	resp, err := f.Upstream.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	f.believe(r, source.Principal, resp)
	f.record(source, resp)
	return resp, nil
}

// etag gives that of the recorded answer to a request for a document, empty if
// there is none or the client knows better what it has.
func (f *Dispatcher) etag(r *http.Request, source record.Source) string {
	cache := f.cache(&source.Info)
	if cache.Replayer == nil || cache.Recorder == nil || source.Principal == "" ||
		source.Info.Class != request.ClassDiscovery || source.Info.Unrecorded ||
		f.Clock.Now().UnixNano() < f.resting.Load() {
		return ""
	}
	for _, name := range conditional {
		if r.Header.Get(name) != "" {
			return ""
		}
	}
	etag, err := within(r.Context(), f.patience.etag, func(ctx context.Context) (string, error) {
		return cache.Replayer.ETag(ctx, documentOf(source))
	})
	if err != nil {
		if r.Context().Err() == nil {
			f.tire(err)
		}
		return "" // it is fetched, as if it was not recorded
	}
	return etag
}

// tire lets the cache rest when it has used up the patience.
func (f *Dispatcher) tire(err error) {
	if errors.Is(err, context.DeadlineExceeded) {
		f.resting.Store(f.Clock.Now().Add(rest).UnixNano())
	}
}

func documentOf(source record.Source) replay.Request {
	return replay.Request{Principal: source.Principal, Info: source.Info, Path: source.Path}
}

// within gives up waiting for f after a while, also when the disk hangs, which no
// context ends. f ends when the disk does.
func within[T any](ctx context.Context, most time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		defer cancel()
		value, err := f(ctx)
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
	}
	select {
	case o := <-done: // the context ends with f, too
		return o.value, o.err
	default:
		var none T
		return none, ctx.Err()
	}
}
