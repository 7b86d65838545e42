package live

import (
	"context"
	"maps"
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
	// slowTime is for how long the API server answers after an answer broke off: the next one
	// would, too.
	slowTime = 10 * time.Minute
)

var readsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_saved_reads_total",
	Help: "Lists and watches while the link was up, with online.reads=save, by result: checked or proven (answered from the cache), or why the API server has answered: kind (a parameter that is not saved, or a watch without its initial state), unrecorded, version, pages, small (a list is faster than a proof), unmeasured (nothing is known of what the link carries, and this list shows it), slow (an answer broke off, because its client took too long for a collection that changes), failed (a proof did not succeed).",
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
	// 0: nothing is known, and the first list is to show it.
	Rate float64
	// Rates keeps what is measured for the next start; nil: nothing does.
	Rates *cache.Cache
	// Servers are the URLs of the API servers, in the order in which they are chosen: what is
	// measured holds for the way to them.
	Servers []string
	Logger  *zap.Logger
	Clock   clock.WithTicker // nil means the real one
}

// Collections are the collections that are live. Run must be called once, and ends them all.
type Collections struct {
	Options
	pace      atomic.Pointer[pace] // with the present servers
	skipUntil atomic.Int64         // until when the cache is not asked, ns since 1970
	ctx       context.Context      // of the collections; ends with Run
	end       context.CancelFunc

	mu      sync.Mutex
	running sync.WaitGroup // the follow of each collection; nobody joins once ctx has ended
	open    map[key]*collection
	slow    map[key]time.Time // when an answer broke off last
	counted map[key]int64     // when the API server first counted another number of objects, as store.DB.Next
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
	s := &Collections{Options: o, ctx: ctx, end: end, open: map[key]*collection{}, slow: map[key]time.Time{}, counted: map[key]int64{}}
	s.SetServers(o.Servers)
	return s
}

// isEstimate reports whether the API server counts objects only about. The first time that its
// number differs it may be right. If it still differs from a list that was asked for since, it is
// an estimate.
func (s *Collections) isEstimate(k key, c *store.Collection) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first, differed := s.counted[k]
	if !differed {
		s.counted[k] = c.Position().Told
	}
	return differed && c.Asked > first
}

// countsRight notes that the API server has counted as many objects as are recorded. The next time
// that its number differs, it may be right again.
func (s *Collections) countsRight(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.counted, k)
}

// brokenOff notes that an answer broke off while its client read it.
func (s *Collections) brokenOff(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Clock.Now()
	maps.DeleteFunc(s.slow, func(_ key, at time.Time) bool { return now.Sub(at).Abs() > slowTime })
	s.slow[k] = now
}

// isSlow reports whether an answer has broken off of late.
func (s *Collections) isSlow(k key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, broke := s.slow[k]
	return broke && s.Clock.Now().Sub(at).Abs() <= slowTime
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
