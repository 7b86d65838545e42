package record

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"

	"rockpool.dev/store"
)

const (
	// DefaultMaxPending bounds the bytes that wait for the store.
	DefaultMaxPending = 8 << 20
	// reserve is what operations without a payload, but for events, may take beyond that,
	// in bytes: most of them say that something recorded is not true any more, or not
	// allowed, and without them the cache would go on saying it. It holds 4096 of them.
	reserve = 1 << 20
	// groupDelay is how long the first operation of a group waits for others.
	groupDelay = 50 * time.Millisecond
	// groupOps and groupBytes end a group early; superseded events may keep it
	// from ending there, see coalesce.go.
	groupOps   = 500
	groupBytes = 1 << 20
	// holdDelay is how long groups are held back while a list comes in, at most: its client waits for
	// the rest of it, and has better use for the CPU and for the disk.
	holdDelay = time.Second
	// overhead is what an operation costs in memory besides its payload.
	overhead = 256
)

// Options of New.
type Options struct {
	DB *store.DB
	// Name tells the cache from others in metrics and logs.
	Name   string
	Logger *zap.Logger
	// MaxPending bounds the bytes that wait for the store, besides a reserve for
	// operations without a payload; 0 means DefaultMaxPending.
	MaxPending int
	Clock      clock.Clock
}

// Recorder takes what is to be recorded and writes it in groups. Its methods may
// be called from any goroutine and do not block.
type Recorder struct {
	db          *store.DB
	name        string
	log         *zap.Logger
	max         int
	clock       clock.Clock
	pages       pages
	openWatches openWatches
	metrics     gauges

	groupOps int // the constant, but in tests
	stale    chan Stale
	buffered atomic.Int64 // bytes of bodies that are kept whole and have not ended

	mu       sync.Mutex
	queue    []operation
	pending  int                    // bytes of queue
	writing  int                    // bytes of the group that is being written
	busy     bool                   // a group is being written
	incoming map[*snapshot]struct{} // are coming in: have items, and neither their end nor that of a page is in the queue yet
	singles  map[singleKey]putSingle
	used     map[int64]time.Time // when the use of a collection was last noted
	urgent   bool                // somebody waits: do not wait for a group
	ended    bool
	wake     chan struct{} // capacity 1
	health   health        // of Run
	orphaned []*snapshot   // of Run: given up in a group that failed, their rows are still there
}

// New makes a Recorder. Nothing is written before Run.
func New(opts Options) *Recorder {
	if opts.MaxPending == 0 {
		opts.MaxPending = DefaultMaxPending
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	return &Recorder{
		db: opts.DB, name: opts.Name, log: opts.Logger.With(zap.String("cache", opts.Name)), max: opts.MaxPending, clock: opts.Clock,
		metrics: gaugesOf(opts.Name), groupOps: groupOps, wake: make(chan struct{}, 1), stale: make(chan Stale, maxStale),
		incoming: map[*snapshot]struct{}{}, singles: map[singleKey]putSingle{}, used: map[int64]time.Time{},
	}
}

// enqueue adds an operation; it reports false when there is no room for it.
// Operations that end what others began take none, and always fit.
func (r *Recorder) enqueue(op operation) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.singles)
	return r.add(op)
}

// enqueueSingle adds a putSingle, unless it repeats one that waits.
func (r *Recorder) enqueueSingle(p putSingle) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := p.key()
	if p.repeats(r.singles[key]) {
		return true
	}
	ok := r.add(p)
	if ok {
		r.singles[key] = p
	}
	return ok
}

// add adds an operation if there is room for it. The lock is held.
func (r *Recorder) add(op operation) bool {
	n, most := op.size(), r.max
	if n <= overhead {
		most += reserve
	}
	if !r.admit(n, most) {
		return false
	}
	r.push(op)
	return true
}

// admit tells whether there is room for so many bytes more. The lock is held.
func (r *Recorder) admit(n, most int) bool {
	if r.ended || (n > 0 && r.pending+r.writing+n > most) {
		droppedTotal.WithLabelValues("queue").Inc()
		return false
	}
	return true
}

// push adds an operation that was admitted. The lock is held.
func (r *Recorder) push(op operation) {
	r.queue = append(r.queue, op)
	r.pending += op.size()
	r.updateGauge()
	if s := op.opens(); s != nil {
		r.incoming[s] = struct{}{}
	}
	closed := op.closes()
	delete(r.incoming, closed)
	if closed != nil || len(r.queue) == 1 || len(r.queue) == r.groupOps || r.pending >= groupBytes || r.urgent {
		r.signal()
	}
}

// updateGauge shows what is pending. The lock is held.
func (r *Recorder) updateGauge() { r.metrics.pending.Set(float64(r.pending + r.writing)) }

// discard makes room by taking the items of a snapshot out of the queue that
// has lost one already.
func (r *Recorder) discard(s *snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = slices.DeleteFunc(r.queue, func(op operation) bool {
		belongs := op.opens() == s
		if belongs {
			r.pending -= op.size()
		}
		return belongs
	})
	delete(r.incoming, s)
	r.updateGauge()
}

// pageRead tells that a page of a snapshot has come in. The next one may never be asked for.
func (r *Recorder) pageRead(s *snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.incoming, s)
	r.signal()
}

func (r *Recorder) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// take removes the next group from the queue. What it has taken before is written,
// or lost.
func (r *Recorder) take() []operation {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, bytes, deferred := 0, 0, 0
	for n < len(r.queue) && (deferred > 0 || (n < r.groupOps && bytes < groupBytes)) {
		bytes += r.queue[n].size()
		deferred += r.queue[n].dequeued()
		n++
	}
	ops := append([]operation(nil), r.queue[:n]...)
	r.queue = append(r.queue[:0], r.queue[n:]...)
	clear(r.queue[len(r.queue):cap(r.queue)]) // let go of the payloads
	r.pending, r.writing = r.pending-bytes, bytes
	if len(r.queue) == 0 {
		r.urgent = false
	}
	r.busy = len(ops) > 0
	clear(r.singles)
	r.updateGauge()
	return ops
}

// groupReady tells that no group should wait any longer.
func (r *Recorder) groupReady() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.urgent || len(r.incoming) == 0 {
		return r.urgent || len(r.queue) >= r.groupOps || r.pending >= groupBytes
	}
	return r.pending >= r.max/4 // the rest is for what comes while that is written
}

// listIncoming tells that a list is coming in.
func (r *Recorder) listIncoming() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.incoming) > 0 && !r.urgent
}

// Flush waits until everything that was taken so far is in the store, so that
// an answer from there is not older than what the client has seen.
func (r *Recorder) Flush(ctx context.Context) error {
	done := make(chan struct{})
	r.mu.Lock()
	if r.ended || len(r.queue) == 0 && !r.busy {
		r.mu.Unlock()
		return nil
	}
	// Together: what is taken in between would end the urgency, and the group be held back.
	r.urgent = true
	clear(r.singles)
	r.push(flush{written: done})
	r.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Link records a change of the link.
func (r *Recorder) Link(state, reason string) { r.enqueue(putLink(state, reason)) }
