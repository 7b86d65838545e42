// Package cache is where answers are recorded and replayed from: on the node's disk, in memory,
// or nowhere. It opens a cache, keeps it bound to the pod's cluster and service account, and
// says which cache a request belongs to.
//
// A cache that could not be opened is closed, until a later attempt succeeds. A closed cache records
// nothing and answers ErrClosed, so that its users need no second way.
package cache

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rockpool.dev/sidecar/api/exclude"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// ErrExcluded says that the answer to a request is never recorded. It is an ErrClosed, too.
var ErrExcluded error = excludedError{}

type excludedError struct{}

func (excludedError) Error() string { return "nothing was recorded: cache.exclude excludes it" }

func (excludedError) Is(target error) bool { return target == ErrClosed }

// ErrClosed says that the cache could not be opened.
var ErrClosed = errors.New("nothing was recorded, because the cache could not be opened")

// FlushTimeout bounds how long a reader waits until the answers that were read just before are
// written.
const FlushTimeout = time.Second

// Cache records answers and replays them. The zero value is closed. Its methods may be called
// from several goroutines.
type Cache struct {
	open atomic.Pointer[parts] // nil: closed

	opener  *opener          // opens it; nil: nobody does
	exclude *exclude.Current // what is never recorded; nil: nothing

	mu    sync.Mutex
	link  *linkChange // the last one while the cache was closed
	rate  *store.Rate // likewise
	late  map[*lateEvents]struct{}
	asked atomic.Int64 // the last number of Ask while it is closed
}

// parts are what an open cache consists of.
type parts struct {
	db       *store.DB
	recorder *record.Recorder
	replayer *replay.Replayer
}

type linkChange struct{ state, reason string }

// New makes a cache of a database. Its name is a label of metrics: disk or memory.
func New(db *store.DB, name string, log *zap.Logger) *Cache {
	return NewOf(record.Options{DB: db, Name: name, Logger: log})
}

// NewOf makes a cache whose recorder has these options. Their clock also tells the age of answers.
func NewOf(o record.Options) *Cache {
	c := &Cache{exclude: o.Exclude}
	c.use(o)
	return c
}

// use makes the cache one of a database, with all that was noted while it was closed.
func (c *Cache) use(o record.Options) {
	var now func() time.Time // nil: the real time
	if o.Clock != nil {
		now = o.Clock.Now
	}
	o.Exclude = c.exclude
	recorder := record.New(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	o.DB.Skip(c.asked.Load())
	if len(c.exclude.Rules()) > 0 {
		recorder.Purge() // what an earlier run has recorded
	}
	c.open.Store(&parts{db: o.DB, recorder: recorder, replayer: replay.New(o.DB, now, recorder)})
	if c.link != nil {
		recorder.Link(c.link.state, c.link.reason)
	}
	if c.rate != nil {
		recorder.PutRate(*c.rate)
	}
	for e := range c.late {
		e.begin(recorder)
	}
	c.late = nil
}

// Caches are the two caches of a pod.
type Caches struct {
	Disk   *Cache
	Memory *Cache
	// MemoryOnly are the resources that are recorded in memory and never on the disk.
	MemoryOnly []schema.GroupResource
	// Exclude says what neither of them records; nil: nothing. Both caches have it, too.
	Exclude *exclude.Current
}

// SetExclude replaces what is never recorded. What was recorded of it is deleted, and the watches
// that show it are no longer recorded, also when it is no longer excluded.
func (c Caches) SetExclude(rules exclude.Rules) {
	c.Exclude.Set(rules)
	for _, one := range []*Cache{c.Disk, c.Memory} {
		if o := one.open.Load(); o != nil {
			o.recorder.Purge()
		}
	}
}

// ReleaseMemory gives back the memory that the databases keep for pages.
func (c Caches) ReleaseMemory(ctx context.Context) (err error) {
	for _, one := range []*Cache{c.Disk, c.Memory} {
		if db := one.Store(); db != nil {
			err = errors.Join(err, db.ReleaseMemory(ctx))
		}
	}
	return err
}

// Of gives the cache that the answer to a request belongs to.
func (c Caches) Of(info *request.Info) *Cache {
	resource := schema.GroupResource{Group: info.Group, Resource: info.Resource}
	if info.CarriesToken() || (info.IsResource && slices.Contains(c.MemoryOnly, resource)) {
		return c.Memory
	}
	return c.Disk
}

// Store is the database below; nil when the cache is closed.
func (c *Cache) Store() *store.DB {
	if o := c.open.Load(); o != nil {
		return o.db
	}
	return nil
}

// Ask returns the sequence number of a request that is about to be sent; see record.Source.Asked.
func (c *Cache) Ask() int64 {
	if o := c.open.Load(); o != nil {
		return o.db.Next()
	}
	return c.asked.Add(1)
}

// Run opens the cache if it is closed and can be opened, and writes what is recorded, until ctx
// ends.
func (c *Cache) Run(ctx context.Context) error {
	o := c.open.Load()
	if o == nil {
		if c.opener == nil || !c.opener.retry(ctx) {
			return nil
		}
		o = c.open.Load()
	}
	return o.recorder.Run(ctx)
}

// excluded reports whether the answer to a request is never recorded.
func (c *Cache) excluded(info *request.Info) bool { return record.Excluded(c.exclude.Rules(), info) }

// Record has the answer to a request recorded while its body is read.
func (c *Cache) Record(source *record.Source, resp *http.Response) {
	if o := c.open.Load(); o != nil && !c.excluded(&source.Info) {
		o.recorder.Record(source, resp)
	}
}

// Renewed records that the API server has said 304 to a request with this ETag.
func (c *Cache) Renewed(source record.Source, etag string) {
	if o := c.open.Load(); o != nil && !c.excluded(&source.Info) {
		o.recorder.Renewed(source, etag)
	}
}

// Events records the events of one watch. It is for one goroutine.
type Events interface {
	// Event records the next event. Its bytes are only used during the call. An event without a
	// name, other than a bookmark, is one that cannot be read; see Unreadable.
	Event(wire.Event, wire.Meta)
	// Difference records changes that a list has shown, and the list's resourceVersion.
	Difference(changes []record.Change, resourceVersion string)
	// Close ends the recording.
	Close()
}

// Watch begins to record the events of a watch, whose objects come in a format. Nothing is
// recorded of a watch whose principal is not known.
func (c *Cache) Watch(source record.Source, format wire.Format) Events {
	if source.Principal == "" || source.Info.Unrecorded || c.excluded(&source.Info) {
		return discard{}
	}
	if o := c.open.Load(); o != nil {
		return &mayEnd{cache: c, info: source.Info, events: o.recorder.Watch(source, format)}
	}
	return &mayEnd{cache: c, info: source.Info, events: c.watchLate(source, format)}
}

// Unreadable is an event of which nothing can be read.
func Unreadable() (wire.Event, wire.Meta) { return wire.Event{Type: wire.Modified}, wire.Meta{} }

// IsUnreadable reports whether an event tells neither its object nor a version that its client has
// reached.
func IsUnreadable(e wire.Event, m wire.Meta) bool {
	return e.Type != wire.Error && e.Type != wire.Bookmark && m.Name == "" && m.ResourceVersion == ""
}

// Unread records that a client reads a stream of events that nobody here can read; see
// record.Recorder.Unread.
func (c *Cache) Unread(source record.Source, selected func() bool, resp *http.Response) {
	if source.Principal == "" || source.Info.Unrecorded || c.excluded(&source.Info) {
		return
	}
	if o := c.open.Load(); o != nil {
		o.recorder.Unread(source, selected, resp)
	}
}

// Resume begins to record the events of a watch that has run for a while; see record.Recorder. A
// closed cache does so when it is open.
func (c *Cache) Resume(source record.Source, format wire.Format) Events {
	if o := c.open.Load(); o != nil && !source.Info.Unrecorded && !c.excluded(&source.Info) {
		return &mayEnd{cache: c, info: source.Info, events: o.recorder.Resume(source, format)}
	}
	source.Info.SendInitialEvents = false
	return c.Watch(source, format)
}

// discard records nothing.
type discard struct{}

func (discard) Event(wire.Event, wire.Meta)        {}
func (discard) Difference([]record.Change, string) {}
func (discard) Close()                             {}

// mayEnd records the events of a watch until what it shows is excluded. It does not begin again: it
// has missed events by then.
type mayEnd struct {
	cache  *Cache
	info   request.Info
	events Events
}

func (m *mayEnd) check() Events {
	if m.cache.excluded(&m.info) {
		m.events.Close()
		m.events = discard{}
	}
	return m.events
}

func (m *mayEnd) Event(event wire.Event, meta wire.Meta) { m.check().Event(event, meta) }

func (m *mayEnd) Difference(changes []record.Change, resourceVersion string) {
	m.check().Difference(changes, resourceVersion)
}

func (m *mayEnd) Close() { m.events.Close() }

// Link records a change of the link.
func (c *Cache) Link(state, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.open.Load(); o != nil {
		o.recorder.Link(state, reason)
		return
	}
	c.link = &linkChange{state, reason}
}

// Opened is closed when the cache is opened later than at the start. It is nil if the cache is
// open, or if nobody opens it.
func (c *Cache) Opened() <-chan struct{} {
	if c.opener == nil || c.open.Load() != nil {
		return nil
	}
	return c.opener.opened
}

// Stale gives the collections that should be listed again; nil when the cache is closed.
func (c *Cache) Stale() <-chan record.Stale {
	o := c.open.Load()
	if o == nil {
		return nil
	}
	return o.recorder.Stale()
}

// Overtaken reports whether a collection is behind what is known of its objects; see
// replay.Replayer.
func (c *Cache) Overtaken(ctx context.Context, s record.Stale) (bool, error) {
	o := c.open.Load()
	if o == nil {
		return false, ErrClosed
	}
	return o.replayer.Overtaken(ctx, s.Scope())
}

// Flushed reports whether Flush has nothing to wait for.
func (c *Cache) Flushed() bool {
	o := c.open.Load()
	return o == nil || o.recorder.Flushed()
}

// Flush waits until all that was read before the call is written, so that no client sees an
// older state than it has seen already.
func (c *Cache) Flush(ctx context.Context) error {
	o := c.open.Load()
	if o == nil {
		return nil
	}
	return o.recorder.Flush(ctx)
}
