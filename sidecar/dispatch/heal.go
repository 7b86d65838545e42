package dispatch

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/record"
)

const (
	// healAfter lets the burst pass in which a collection has lost an event.
	healAfter = time.Second
	// healInterval keeps a collection that loses events all the time from being
	// listed all the time. It doubles, up to healLongest, for one that must be listed as
	// soon as it may: listing does not help it, and the link may be thin.
	healInterval = 30 * time.Second
	healLongest  = time.Hour
	// healPage is how many objects are asked for at once: the recorder is waited for
	// after each page, so that even a slow disk gets all of a list.
	healPage = 500
	// maxTried bounds the collections that are remembered here.
	maxTried = 1000
	// maxCredentials bounds the principals whose tokens are kept in memory.
	maxCredentials = 64
)

var relistsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_relists_total",
	Help: "Collections that were listed in the background because an event of them, or all of them, was lost, or because a watch began with a state that the cache does not have, by result: done, failed.",
}, []string{"result"})

// collection names what is to be listed.
type collection struct{ principal, path, labelSelector, fieldSelector, accept string }

// sick is a collection on its way to be listed.
type sick struct {
	cache Cache
	due   time.Time
}

// tried is when a collection was last listed, and how long it is left alone then.
type tried struct {
	at   time.Time
	wait time.Duration
}

// again is the next of these.
func (t tried) again(now time.Time) tried {
	if t.wait == 0 || now.Sub(t.at) > 2*t.wait {
		return tried{now, healInterval}
	}
	return tried{now, min(2*t.wait, healLongest)}
}

// Run lists collections that are behind what their clients have seen, until ctx ends.
func (f *Dispatcher) Run(ctx context.Context) error {
	disk, memory := staleOf(f.Disk), staleOf(f.Memory)
	waiting := map[collection]sick{}
	last := map[collection]tried{}
	tick := f.Clock.NewTicker(healAfter)
	defer tick.Stop()
	note := func(cache Cache, s record.Stale) {
		info := &s.Source.Info
		key := collection{s.Source.Principal, info.Path, info.LabelSelector, info.FieldSelector, s.Form.AcceptList()}
		if _, ok := waiting[key]; !ok {
			waiting[key] = sick{cache, later(f.Clock.Now().Add(healAfter), last[key].at.Add(last[key].wait))}
		}
	}
	for {
		select {
		case s := <-disk:
			note(f.Disk, s)
		case s := <-memory:
			note(f.Memory, s)
		case <-tick.C():
		case <-ctx.Done():
			return nil
		}
		for key, s := range waiting {
			if !f.Upstream.Online() || f.Clock.Now().Before(s.due) {
				continue
			}
			delete(waiting, key)
			last[key] = last[key].again(f.Clock.Now())
			err := f.heal(ctx, key, s.cache)
			if err == nil {
				relistsTotal.WithLabelValues("done").Inc()
				continue
			}
			s.due = last[key].at.Add(last[key].wait)
			waiting[key] = s
			relistsTotal.WithLabelValues("failed").Inc()
			f.Logger.Warn("a collection that is behind its clients cannot be listed; what is recorded of it stays as it was until that is tried again",
				zap.String("path", key.path), zap.Duration("after", last[key].wait), zap.Error(err))
		}
		if len(last) > maxTried { // the interval of long ago does not matter
			clear(last)
			clear(waiting)
		}
	}
}

func staleOf(c Cache) <-chan record.Stale {
	if c.Recorder == nil {
		return nil
	}
	return c.Recorder.Stale()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// heal lists a collection page by page, as its principal.
func (f *Dispatcher) heal(ctx context.Context, c collection, cache Cache) error {
	seen, ok := f.credentials.get(c.principal)
	if !ok {
		return fmt.Errorf("%s has not asked since the start", c.principal)
	}
	authorization := f.authorization(c.principal, seen)
	for token := ""; ; {
		query := url.Values{"limit": {strconv.Itoa(healPage)}}
		for name, value := range map[string]string{"labelSelector": c.labelSelector, "fieldSelector": c.fieldSelector, "continue": token} {
			if value != "" {
				query.Set(name, value)
			}
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, (&url.URL{Path: c.path, RawQuery: query.Encode()}).String(), http.NoBody)
		if err != nil {
			return err
		}
		r.Header = http.Header{"Accept": {c.accept}, "Authorization": {authorization}, "User-Agent": {"rockpool-sidecar"}}
		if token, err = f.page(r, c.principal); err != nil || token == "" {
			return err
		}
		if err := cache.Recorder.Flush(ctx); err != nil {
			return err
		}
	}
}

// page lists a page and has it recorded; it gives the token of the next one.
func (f *Dispatcher) page(r *http.Request, principal string) (next string, err error) {
	source := f.source(r, request.Parse(r))
	source.Principal = principal
	resp, err := f.Upstream.RoundTrip(r)
	if err != nil {
		return "", err
	}
	// That this client may not list says nothing about what it may watch.
	if resp.StatusCode == http.StatusOK {
		f.record(source, resp)
	}
	head, err := readList(resp, func(wire.ListMeta, []byte) error { return nil })
	return head.Continue, err
}

// authorization is the header for a request on a principal's behalf: the pod's own
// current token if it is the pod's, or else what it was last seen with.
func (f *Dispatcher) authorization(subject, seen string) string {
	own, err := f.Token()
	if err != nil {
		return seen
	}
	bearer := "Bearer " + own
	if _, mine, err := principal.Subject(http.Header{"Authorization": {bearer}}); err == nil && mine == subject {
		return bearer
	}
	return seen
}
