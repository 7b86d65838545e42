package relist

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/origin"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/record"
)

const (
	// relistDelay lets the burst pass in which a collection has lost an event.
	relistDelay = time.Second
	// relistInterval is the least time between two lists of a collection. It doubles, up to
	// relistLongest, for a collection that must be listed again as soon as it may: a list does
	// not help it, and the link may be thin.
	relistInterval = 30 * time.Second
	relistLongest  = time.Hour
	// maxBackoffs bounds the collections whose last list is remembered.
	maxBackoffs = 1000
)

var relistsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_relists_total",
	Help: "Background lists of collections, by result: done, failed. A collection is listed again when the cache has lost an event of it or all of it, or when a watch began with a state that the cache does not have.",
}, []string{"result"})

// Refresher lists collections again that are behind their clients.
type Refresher struct {
	Upstream interface {
		http.RoundTripper
		Online() bool
	}
	Caches      cache.Caches
	Credentials *principal.Credentials
	Logger      *zap.Logger
	Clock       clock.WithTicker
}

// collection names the list to be read.
type collection struct{ principal, path, labelSelector, fieldSelector, accept string }

// pendingRelist is a collection that waits to be listed.
type pendingRelist struct {
	cache *cache.Cache
	stale record.Stale
	due   time.Time
}

// backoff is when a collection was last listed, and the least time until the next list.
type backoff struct {
	at   time.Time
	wait time.Duration
}

// next is the backoff after a list at a time.
func (b backoff) next(now time.Time) backoff {
	if b.wait == 0 || now.Sub(b.at) > 2*b.wait {
		return backoff{now, relistInterval}
	}
	return backoff{now, min(2*b.wait, relistLongest)}
}

// earliest is when the next list may be read.
func (b backoff) earliest() time.Time { return b.at.Add(b.wait) }

// Run lists collections that are behind their clients, until ctx ends.
func (r *Refresher) Run(ctx context.Context) error {
	pending := map[collection]pendingRelist{}
	last := map[collection]backoff{}
	// It ticks only while a list is pending: an idle sidecar should not wake the processor.
	var tick clock.Ticker
	var ticks <-chan time.Time
	stop := func() {
		if tick != nil {
			tick.Stop()
			tick, ticks = nil, nil
		}
	}
	defer stop()
	add := func(c *cache.Cache, s record.Stale) {
		info := &s.Source.Info
		key := collection{s.Source.Principal, info.Path, info.LabelSelector, info.FieldSelector, s.Form.AcceptList()}
		if p, ok := pending[key]; ok {
			p.stale.IfOvertaken = p.stale.IfOvertaken && s.IfOvertaken
			pending[key] = p
			return
		}
		due := r.Clock.Now().Add(relistDelay)
		if earliest := last[key].earliest(); earliest.After(due) {
			due = earliest
		}
		pending[key] = pendingRelist{c, s, due}
	}
	for {
		switch {
		case len(pending) == 0:
			stop()
		case tick == nil:
			tick = r.Clock.NewTicker(relistDelay)
			ticks = tick.C()
		}
		select {
		case s := <-r.Caches.Disk.Stale():
			add(r.Caches.Disk, s)
		case s := <-r.Caches.Memory.Stale():
			add(r.Caches.Memory, s)
		case <-r.Caches.Disk.Opened(): // from now on it has something to tell
		case <-r.Caches.Memory.Opened():
		case <-ticks:
		case <-ctx.Done():
			return nil
		}
		for key, p := range pending {
			if !r.Upstream.Online() || r.Clock.Now().Before(p.due) {
				continue
			}
			delete(pending, key)
			if p.stale.IfOvertaken {
				overtaken, err := p.cache.Overtaken(ctx, p.stale)
				if err == nil && !overtaken {
					continue // the event of a watch has come meanwhile
				}
			}
			last[key] = last[key].next(r.Clock.Now())
			err := r.relist(ctx, key, p.cache)
			if err == nil {
				relistsTotal.WithLabelValues("done").Inc()
				continue
			}
			p.due = last[key].earliest()
			pending[key] = p
			relistsTotal.WithLabelValues("failed").Inc()
			r.Logger.Warn("cannot relist a stale collection; keeping the recorded one until the next attempt",
				zap.String("path", key.path), zap.Duration("after", last[key].wait), zap.Error(err))
		}
		if len(last) > maxBackoffs { // the oldest of them do not matter
			clear(last)
			clear(pending)
		}
	}
}

// relist lists a collection page by page, as its principal, and has the pages recorded. That the
// resource is not served any more is recorded as well, and is no error: there is nothing to list
// until a client has asked for it again.
func (r *Refresher) relist(ctx context.Context, c collection, to *cache.Cache) error {
	seen, ok := r.Credentials.Seen(c.principal)
	if !ok {
		return fmt.Errorf("%s has made no request since the start", c.principal)
	}
	query := url.Values{}
	for name, value := range map[string]string{"labelSelector": c.labelSelector, "fieldSelector": c.fieldSelector} {
		if value != "" {
			query.Set(name, value)
		}
	}
	list, err := http.NewRequest(http.MethodGet, (&url.URL{Path: c.path, RawQuery: query.Encode()}).String(), http.NoBody)
	if err != nil {
		return err
	}
	list.Header = http.Header{"Accept": {c.accept}, "User-Agent": {"rockpool-sidecar"}}
	p := pages{
		request: func(ctx context.Context) *http.Request {
			page := list.Clone(ctx)
			page.Header.Set("Authorization", r.Credentials.Authorization(c.principal, seen))
			return page
		},
		send: func(page *http.Request) (*http.Response, error) {
			source := record.Source{Principal: c.principal, Info: request.Parse(page), Path: page.URL.RequestURI(), Started: r.Clock.Now(), Asked: to.Ask(), Background: true}
			resp, err := r.Upstream.RoundTrip(page)
			if err == nil && origin.FromAPIServer(resp) {
				to.Record(&source, resp)
			}
			return resp, err
		},
		// Waiting for the recorder between pages lets even a slow disk take a whole list.
		ended: func(ctx context.Context, list wire.ListMeta) error {
			if list.Continue == "" {
				return nil
			}
			return to.Flush(ctx)
		},
	}
	if err := p.read(ctx); !errors.Is(err, errNotServed) {
		return err
	}
	return nil
}
