package outbox

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/tally"
	"rockpool.dev/sidecar/write"
	"rockpool.dev/store"
)

var (
	queuedEvents = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "rockpool_outbox_queued",
		Help: "Events that were accepted offline and are not delivered yet.",
	})
	eventsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_outbox_events_total",
		Help: "Events that were accepted offline (queued; merged: into one that was queued), and what became of those that were queued: delivered, present (the API server had it), superseded (its client has written it since), refused (a 4xx), crowded (dropped as the oldest of offline.events-max-count), aged (dropped after offline.events-max-age), lost (the cache's file was).",
	}, []string{"result"})
)

// Store keeps the queued Events; see store.DB.
type Store interface {
	Enqueue(context.Context, store.Queued) (id int64, err error)
	Queued(ctx context.Context, id int64) (store.Queued, error)
	Outbox(context.Context) ([]store.Queued, error)
	Dequeue(ctx context.Context, id int64) error
}

// Options of New.
type Options struct {
	Store Store
	// MaxCount is how many Events are queued at most; 0 means that none is accepted,
	// while those that were accepted before are still delivered.
	MaxCount int
	// MaxAge is how long an Event waits at most, by the node's clock.
	MaxAge time.Duration
	Logger *zap.Logger
	// Repeated is for lines that each Event may repeat; nil: one of its own.
	Repeated *tally.Log
	Clock    clock.Clock // nil means the real one
}

// Outbox holds Events until they are delivered. Its methods may be called from several
// goroutines.
type Outbox struct {
	Options
	accepting sync.Mutex // held from reading a row until what became of it is in store and index

	mu      sync.Mutex
	entries []*entry // by id, which is in order of acceptance
	wake    chan struct{}
}

var _ write.Acceptor = (*Outbox)(nil)

// key names an Event of a principal.
type key struct{ principal, path, name string }

// entry is a row of the store in the index.
type entry struct {
	key
	id         int64
	at         time.Time
	changes    int  // since the start: tells whether it was changed while it was sent
	superseded bool // its client has written a later state itself
}

// New does nothing yet: call Load when it is known that the store is of the cluster that
// Events are delivered to, and Run.
func New(opts Options) *Outbox {
	opts.Clock = cmp.Or[clock.Clock](opts.Clock, clock.RealClock{})
	if opts.Repeated == nil {
		opts.Repeated = tally.New(opts.Logger, opts.Clock)
	}
	return &Outbox{Options: opts, wake: make(chan struct{}, 1)}
}

// Load takes over what is queued in the store and not known yet. An error means that what was
// queued there before is not delivered.
func (b *Outbox) Load(ctx context.Context) error {
	b.accepting.Lock()
	defer b.accepting.Unlock()
	rows, err := b.Store.Outbox(ctx)
	if err != nil {
		return err
	}
	known := b.snapshot() // accepted meanwhile
	var before []*entry
	for _, q := range rows {
		if !slices.ContainsFunc(known, func(e *entry) bool { return e.id == q.ID }) {
			before = append(before, &entry{key: key{q.Principal, q.Path, q.Name}, id: q.ID, at: q.At})
		}
	}
	if len(before) > 0 {
		b.add(before...)
		b.Logger.Info("Events that were queued before wait for the link", zap.Int("count", len(before)))
	}
	return nil
}

// Handles tells whether a request is a write of an Event that may be queued.
func (b *Outbox) Handles(info *request.Info) bool {
	if b.MaxCount == 0 || info.Class != request.ClassWrite || info.Unrecorded || info.Subresource != "" ||
		info.Resource != "events" || info.Version != "v1" || info.Namespace == "" {
		return false
	}
	switch info.Group {
	case "", "events.k8s.io":
		return info.Verb == request.Create && info.Name == "" || info.Verb == request.Patch && info.Name != ""
	}
	return false
}

// Observe learns that the API server has taken a write of an Event from its client. An older
// state of the Event that is still queued must not replace that. It does not block.
func (b *Outbox) Observe(q write.Request, resp *http.Response) {
	if resp.StatusCode >= http.StatusMultipleChoices {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.entries) == 0 { // nearly always
		return
	}
	if e := b.find(key{q.Principal, pathOf(q.Info), nameOf(q.Info, q.ContentType, q.Body)}); e != nil {
		e.superseded = true
	}
}

// find finds an entry. The lock is held.
func (b *Outbox) find(k key) *entry {
	if i := slices.IndexFunc(b.entries, func(e *entry) bool { return e.key == k }); i >= 0 {
		return b.entries[i]
	}
	return nil
}

func (b *Outbox) lookup(k key) *entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.find(k)
}

func (b *Outbox) snapshot() []*entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.entries)
}

// add notes what is in the store.
func (b *Outbox) add(more ...*entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries = append(b.entries, more...)
	slices.SortFunc(b.entries, func(x, y *entry) int { return cmp.Compare(x.id, y.id) })
	queuedEvents.Set(float64(len(b.entries)))
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// changed notes that a queued Event was changed.
func (b *Outbox) changed(e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.changes, e.superseded = e.changes+1, false
}

// state gives what may change of an entry, and whether it still is one.
func (b *Outbox) state(e *entry) (changes int, superseded, waits bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return e.changes, e.superseded, slices.Contains(b.entries, e)
}

// drop ends an entry; accepting is held. A row that cannot be deleted is sent again after
// a restart, which does no harm.
func (b *Outbox) drop(ctx context.Context, e *entry, result string) {
	if err := b.Store.Dequeue(context.WithoutCancel(ctx), e.id); err != nil {
		b.warn("a queued Event that is done cannot be removed from the cache", e.key, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries = slices.DeleteFunc(b.entries, func(other *entry) bool { return other == e })
	queuedEvents.Set(float64(len(b.entries)))
	eventsTotal.WithLabelValues(result).Inc()
}

// bound drops what is too old or too much; accepting is held.
func (b *Outbox) bound(ctx context.Context) {
	before := b.Clock.Now().Add(-b.MaxAge)
	all := b.snapshot()
	crowded, aged := 0, 0
	for i, e := range all {
		switch {
		case e.at.Before(before):
			b.drop(ctx, e, "aged")
			aged++
		case b.MaxCount > 0 && len(all)-i > b.MaxCount:
			b.drop(ctx, e, "crowded")
			crowded++
		}
	}
	if crowded+aged > 0 {
		b.Repeated.Write(tally.Line{
			Level: zap.WarnLevel, Message: "queued Events were dropped, the oldest first",
			Fields: []zap.Field{zap.Int("beyond offline.events-max-count", crowded), zap.Int("beyond offline.events-max-age", aged)},
		})
	}
}

// warn logs a line about an Event that others may repeat.
func (b *Outbox) warn(message string, k key, err error) {
	b.Repeated.Write(tally.Line{
		Level: zap.WarnLevel, Message: message,
		Fields: []zap.Field{zap.String("path", k.path), zap.String("name", k.name)}, Err: err,
	})
}
