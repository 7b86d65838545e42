package record

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/exclude"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/pod/processors"
	"rockpool.dev/store"
)

const (
	// DefaultMaxPending bounds the bytes that wait for the store.
	DefaultMaxPending = 8 << 20
	// reserve is how many bytes operations without a payload, other than events, may take beyond
	// that. Most of them drop something outdated or forbidden, which the cache would otherwise go
	// on answering. It holds 4096 of them.
	reserve = 1 << 20
	// groupDelay is how long the first operation of a group waits for others.
	groupDelay = 50 * time.Millisecond
	// groupOps and groupBytes end a group early, unless superseded events extend it (coalesce.go).
	groupOps   = 500
	groupBytes = 1 << 20
	// holdDelay is the longest that groups are held back while a list is incoming: its client needs
	// the CPU and the disk for the rest of the list.
	holdDelay = time.Second
	// manyBytes is how many bytes wait when more processors are used: the writer must keep up with
	// lists that come in, or they are not recorded.
	manyBytes = 128 << 10
	// overhead is the memory that an operation takes besides its payload, in bytes.
	overhead = 256
)

// Options are the settings of a Recorder.
type Options struct {
	DB *store.DB
	// Name identifies the cache in metrics and logs.
	Name string
	// Setting is the name of the setting that bounds the cache's size.
	Setting string
	// Rebuilt and Evicted, if not nil, are called with a sentence when an empty file has taken the
	// place of a lost one, and when recordings were evicted because the cache is full. They must
	// return soon.
	Rebuilt, Evicted func(string)
	Logger           *zap.Logger
	// MaxPending bounds the bytes that wait for the store. There is a reserve beyond it for
	// operations without a payload. 0 means DefaultMaxPending.
	MaxPending int
	// Exclude says what is never recorded; nil: nothing.
	Exclude *exclude.Current
	// Budget bounds what is written to the disk.
	Budget Budget
	// Processors are used while the store writes, and while much waits for it; nil: those that there
	// are.
	Processors *processors.Processors
	Clock      clock.Clock
}

// Recorder records responses and writes them in groups. Its methods may be called from any
// goroutine and do not block.
type Recorder struct {
	db          *store.DB
	name        string
	setting     string
	rebuilt     func(string) // nil: nobody is told
	evicted     func(string) // likewise
	log         *zap.Logger
	max         int
	exclude     *exclude.Current
	processors  *processors.Processors
	clock       clock.Clock
	pages       pages
	oversized   oversized
	openWatches openWatches
	metrics     gauges

	groupOps int // the constant, except in tests
	stale    chan Stale
	buffered atomic.Int64           // bytes of all bodyBuffers
	linked   atomic.Pointer[linked] // the last one; nil: none was recorded
	doubts   doubts
	rate     atomic.Pointer[store.Rate] // to be written with the next group; nil: none

	mu       sync.Mutex
	queue    []operation
	pending  int                    // bytes of queue
	awake    bool                   // queue has had an operation that is not lazy since it was empty
	writing  int                    // bytes of the group that is being written
	busy     bool                   // a group is being written
	incoming map[*snapshot]struct{} // have items in the queue, but not yet the end of the list or page
	singles  map[singleKey]*putSingle
	polls    map[poll]*putSingle // those of singles that a GET showed, and perhaps some from before
	// confirmed are the scopes of which a list was queued, and no news since.
	confirmed map[store.Scope]struct{}
	used      map[int64]time.Time // when the use of a collection was last recorded
	urgent    bool                // somebody waits in Flush: hold no group back
	fewer     func()              // when the queue is empty again; nil: no more processors are used
	ended     bool
	wake      chan struct{}          // capacity 1
	health    health                 // of Run
	pace      pace                   // of Run
	open      map[*snapshot]struct{} // of Run: have rows, but are not committed
	orphaned  []*snapshot            // of Run: lost their end with a failed group; their rows are still there
}

// New makes a Recorder. It writes nothing before Run.
func New(opts Options) *Recorder {
	r := &Recorder{
		db: opts.DB, name: opts.Name, setting: opts.Setting, rebuilt: opts.Rebuilt, evicted: opts.Evicted, log: opts.Logger.With(zap.String("cache", opts.Name)),
		max: cmp.Or(opts.MaxPending, DefaultMaxPending), exclude: opts.Exclude, processors: opts.Processors, groupOps: groupOps,
		clock: cmp.Or[clock.Clock](opts.Clock, clock.RealClock{}), metrics: gaugesOf(opts.Name),
		openWatches: openWatches{open: map[store.Scope]*openWatch{}},
		oversized:   oversized{cache: opts.Name, of: map[store.Scope]int64{}},
		open:        map[*snapshot]struct{}{},
		wake:        make(chan struct{}, 1), stale: make(chan Stale, maxStale),
		incoming: map[*snapshot]struct{}{}, singles: map[singleKey]*putSingle{}, polls: map[poll]*putSingle{}, confirmed: map[store.Scope]struct{}{},
		used: map[int64]time.Time{}, doubts: doubts{of: map[doubt]lost{}}, pace: pace{Budget: opts.Budget},
	}
	for _, u := range r.db.Unfinished() {
		r.doubt(u.Scope.Of(), store.Key{Namespace: u.Scope.Namespace}, u.Told, "")
	}
	return r
}

// enqueue adds an operation and reports whether there was room for it.
func (r *Recorder) enqueue(op operation) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.singles)
	return r.add(op)
}

// enqueueSingle adds a putSingle. If it repeats a queued one, that is only said later now.
func (r *Recorder) enqueueSingle(p *putSingle) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := p.key()
	if queued := r.singles[key]; p.repeats(queued) {
		queued.again(p.object.Asked, p.object.Told, p.object.UpdatedAt)
		return true
	}
	ok := r.add(p)
	if ok {
		if len(r.singles) == 0 {
			clear(r.polls)
		}
		r.singles[key] = p
		if p.poll != (poll{}) {
			r.polls[p.poll] = p
		}
	}
	return ok
}

// repeatsPoll reports whether an answer to a GET has the same bytes as the last one, whose object
// is still queued, and that nothing came between them that enqueueSingle would heed. If so, that is
// only said later now. It spares programs that poll most of the work of recording.
func (r *Recorder) repeatsPoll(s *Source, format wire.Format, raw []byte) bool {
	hash := itemHash(raw)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.singles) == 0 {
		return false
	}
	queued := r.polls[pollOf(s, format)]
	if queued == nil || queued.hash != hash || r.singles[queued.key()] != queued {
		return false
	}
	queued.again(s.Asked, s.told, r.clock.Now())
	return true
}

// add adds an operation and reports whether there was room for it. The lock is held.
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

// admit reports whether there is room for n more bytes. The lock is held.
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
	first := !r.awake && !op.lazy()
	r.awake = r.awake || first
	r.updateGauge()
	if r.fewer == nil && r.pending >= manyBytes {
		r.fewer = r.processors.More()
	}
	if s := op.opens(); s != nil {
		r.incoming[s] = struct{}{}
	}
	if op.news() {
		clear(r.confirmed)
	}
	closed := op.closes()
	delete(r.incoming, closed)
	if closed != nil && !op.lazy() || first || len(r.queue) == r.groupOps || r.memory() >= groupBytes || r.urgent {
		r.signal()
	}
}

// memory is how many bytes the queue takes, also for operations of size 0. The lock is held.
func (r *Recorder) memory() int { return max(r.pending, len(r.queue)*overhead) }

// updateGauge exports the number of pending bytes. The lock is held.
func (r *Recorder) updateGauge() { r.metrics.pending.Set(float64(r.pending + r.writing)) }

// discard removes from the queue the items of a snapshot that has lost another item.
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

// pageRead notes that a page of a snapshot was read. Its client may never ask for the next one.
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

// take removes the next group from the queue. The group before it has been written or lost.
func (r *Recorder) take() []operation {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, bytes, deferred := 0, 0, 0
	for n < len(r.queue) && (deferred > 0 || (n < r.groupOps && bytes < groupBytes)) {
		bytes += r.queue[n].size()
		deferred += r.queue[n].dequeued()
		n++
	}
	ops := slices.Clone(r.queue[:n])
	r.queue = slices.Delete(r.queue, 0, n)
	r.pending, r.writing = r.pending-bytes, bytes
	if len(r.queue) == 0 {
		r.urgent, r.awake = false, false
	}
	r.busy = len(ops) > 0
	if !r.busy && r.fewer != nil {
		r.fewer()
		r.fewer = nil
	}
	clear(r.singles)
	clear(r.polls)
	r.updateGauge()
	return ops
}

// groupReady reports whether the next group should not wait any longer.
func (r *Recorder) groupReady() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.urgent || len(r.incoming) == 0 {
		return r.urgent || len(r.queue) >= r.groupOps || r.pending >= groupBytes
	}
	return r.pending >= r.max/4 // the rest is for operations that come while that is written
}

func (r *Recorder) isEmpty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.queue) == 0
}

// listIncoming reports whether a list is being read and nobody waits in Flush.
func (r *Recorder) listIncoming() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.incoming) > 0 && !r.urgent
}

// Flushed reports whether Flush has nothing to wait for.
func (r *Recorder) Flushed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.flushed()
}

// flushed is Flushed. The lock is held.
func (r *Recorder) flushed() bool {
	return r.ended || len(r.queue) == 0 && !r.busy && r.doubts.empty()
}

// Flush waits until all operations queued so far are in the store, so that a replayed response is
// not older than one that the client has seen.
func (r *Recorder) Flush(ctx context.Context) error {
	done := make(chan struct{})
	r.mu.Lock()
	if r.flushed() {
		r.mu.Unlock()
		return nil
	}
	// In one critical section: a take in between could empty the queue, which resets urgent.
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
func (r *Recorder) Link(state, reason string) {
	r.linked.Store(&linked{state, reason})
	r.enqueue(putLink(state, reason))
}

// PutRate records what the link carries, together with the next group. It is not worth one of its own.
func (r *Recorder) PutRate(rate store.Rate) { r.rate.Store(&rate) }

// linked is a state of the link, and why it has that.
type linked struct{ state, reason string }
