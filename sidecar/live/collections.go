package live

import (
	"cmp"
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/store"
)

const (
	// DefaultMost is how many collections may be live at once. Each is an open watch.
	DefaultMost = 32
	// patience bounds the time in which nothing comes that a proof waits for, or half the time that the
	// API server's list is expected to take, if that is longer: many proofs may share a thin link.
	// longestPatience bounds it in any case.
	patience        = 6 * time.Second
	longestPatience = time.Minute
)

var readsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_saved_reads_total",
	Help: "Lists and watches while the link was up, with online.reads=save, by result: checked or proven (answered from the cache), or why the API server has answered: kind (a parameter that is not saved, or a watch without its initial state), unrecorded, version, pages, small (a list is faster than a proof), failed (a proof did not succeed).",
}, []string{"result"})

var collectionsOpen = promauto.NewGauge(prometheus.GaugeOpts{
	Name: "rockpool_live_collections",
	Help: "Recorded collections that a watch of the sidecar's own follows.",
})

// Options of New.
type Options struct {
	// Save has reads answered from the cache, as far as Decide says so.
	Save        bool
	Upstream    http.RoundTripper
	Credentials *principal.Credentials
	// Linger is how long a collection stays live after its last client has gone; 0: not at all.
	Linger time.Duration
	// Most bounds the live collections; 0: DefaultMost.
	Most int
	// Rate is what the link is expected to carry before a list was measured, in bytes a second;
	// 0: 1 Mbit/s.
	Rate   float64
	Logger *zap.Logger
	Clock  clock.WithTicker // nil means the real one
}

// Collections are the collections that are live. Run must be called once, and ends them all.
type Collections struct {
	Options
	pace      *pace
	skipUntil atomic.Int64    // until when the cache is not asked, ns since 1970
	ctx       context.Context // of the collections; ends with Run
	end       context.CancelFunc

	mu      sync.Mutex
	running sync.WaitGroup // the follow of each collection; nobody joins once ctx has ended
	open    map[key]*collection
}

// key names a collection.
type key struct {
	cache *cache.Cache
	store.Scope
}

// New makes a Collections without any.
func New(o Options) *Collections {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Most == 0 {
		o.Most = DefaultMost
	}
	ctx, end := context.WithCancel(context.Background())
	return &Collections{Options: o, ctx: ctx, end: end, pace: newPace(cmp.Or(o.Rate, firstRate)), open: map[key]*collection{}}
}

// Run waits until ctx ends. Then it ends the watches of the collections, and returns when they have.
func (s *Collections) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.end()
	s.mu.Unlock()
	s.running.Wait()
	return nil
}
