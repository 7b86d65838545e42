package record

import (
	"errors"
	"sync/atomic"
	"time"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/store"
)

// snapshot is a list that is being recorded. Its producer adds items; Run's goroutine owns rows.
type snapshot struct {
	base     // of item, commit and abort
	recorder *Recorder
	scope    store.Scope
	source   *Source
	form     request.Form
	version  string      // of the list; empty: unknown
	tells    bool        // its client is told of the items as they come, not of all at the end
	broken   atomic.Bool // an item was lost: the list must be given up
	rows     *store.Snapshot
	bytes    int64 // of the items
	tooLarge bool  // they do not fit into the cache

	outline *store.Outline // of the list before; nil: unknown
	// The items from position from up to position next of outline have come, and are not queued
	// yet.
	from, next int
	queued     bool      // something is queued
	differs    bool      // from outline, as far as it has come
	since      time.Time // when the first of them came that may not be queued yet, or before
	// kind and apiVersion of the items that are the same
	sameKind, sameAPI string
}

func newSnapshot(r *Recorder, source *Source, form request.Form) *snapshot {
	scope := source.scope(form)
	return &snapshot{
		recorder: r, scope: scope, source: source, form: form,
		rows: store.NewSnapshot(scope, source.evidence(store.Present, "")), outline: r.db.Outline(scope), since: r.clock.Now(),
	}
}

// same records an item if the list before had one of the same bytes. It reports whether it had.
func (s *snapshot) same(hash uint64, size int) bool {
	at := s.outline.Find(hash, s.next)
	if at < 0 {
		return false
	}
	if at != s.next {
		s.queueSame()
		s.from, s.differs = at, true
	}
	s.next = at + 1
	s.bytes += int64(size)
	return true
}

// queueSame queues the items that are the same.
func (s *snapshot) queueSame() {
	if s.from < s.next {
		s.queue(same{s, s.from, s.next, s.sameKind, s.sameAPI})
	}
	s.from = s.next
}

// queueLate queues the items that are the same, if they came so long ago that without outline they
// were written by now: a kill must not undo that the client was told. If the list before was
// confirmed, nothing that is recorded contradicts them.
func (s *snapshot) queueLate() {
	if !s.tells || s.from == s.next {
		return
	}
	now := s.recorder.clock.Now()
	if now.Sub(s.since).Abs() < holdDelay || s.recorder.isConfirmed(s.scope) {
		return
	}
	s.queueSame()
	s.since = now
}

// add records an item, unless an earlier one was lost. kind and apiVersion are of the items.
func (s *snapshot) add(o store.Object, kind, apiVersion string) {
	s.differs = true
	s.bytes += int64(len(o.Payload))
	if s.bytes > s.recorder.db.MaxSize()/10*fullTenths && !s.tooLarge && !s.broken.Load() {
		s.queueSame()
		s.tooLarge = true
		s.recorder.enqueue(split{s, kind, apiVersion})
	}
	if s.tooLarge {
		return
	}
	s.queueSame()
	o.UpdatedAt = s.recorder.clock.Now()
	s.queue(item{snapshot: s, object: o, kind: kind, apiVersion: apiVersion})
}

// queue queues an operation, unless an earlier one was lost, or the list has ended: it is too
// large.
func (s *snapshot) queue(op operation) {
	if s.broken.Load() || s.tooLarge {
		return
	}
	if s.queued = true; !s.recorder.enqueue(op) {
		s.lost()
		s.recorder.discard(s)
	}
}

// end makes the items the scope's collection, unless they are too many.
func (s *snapshot) end(meta store.CollectionMeta) {
	if s.tooLarge {
		s.recorder.tooLarge(s.scope, s.bytes)
		return
	}
	c := commit{snapshot: s, meta: meta, repeats: s.outline != nil && !s.differs && s.next == s.outline.Len()}
	if c.repeats && !s.queued {
		c.unchanged = true
	} else {
		s.queueSame()
	}
	s.recorder.enqueueCommit(&c)
}

// lost gives the list up. Its client has the items, so that nothing older of the scope counts.
func (s *snapshot) lost() {
	if !s.broken.Swap(true) {
		s.recorder.doubt(s.scope.Of(), store.Key{Namespace: s.scope.Namespace}, s.source.told, s.version)
		s.recorder.report(Stale{Source: *s.source, Form: s.form})
	}
}

func (*snapshot) soloSafe() bool { return false } // its earlier rows were rolled back

type item struct {
	*snapshot
	object           store.Object
	kind, apiVersion string
}

func (i item) size() int { return len(i.object.Payload) + len(i.object.Labels) + overhead }

func (i item) apply(g *group) error {
	if i.broken.Load() {
		return nil
	}
	if i.tells {
		i.rows.Tell(i.kind, i.apiVersion)
	}
	err := i.rows.Add(g.tx, i.object)
	if errors.Is(err, store.ErrBaseGone) {
		i.lost()
		return nil
	}
	return err
}

func (i item) opens() *snapshot { return i.snapshot }

// same records items that the list before had with the same bytes, by their positions in its
// outline.
type same struct {
	*snapshot
	from, to         int
	kind, apiVersion string
}

func (same) size() int          { return overhead }
func (i same) opens() *snapshot { return i.snapshot }
func (same) news() bool         { return false } // the end of the list tells

func (i same) apply(g *group) error {
	if i.broken.Load() {
		return nil
	}
	if i.tells {
		i.rows.Tell(i.kind, i.apiVersion)
	}
	if err := g.settle(); err != nil { // the list is compared with the positions
		return err
	}
	err := i.rows.Same(g.tx, i.outline, i.from, i.to)
	if errors.Is(err, store.ErrBaseGone) {
		i.lost()
		return nil
	}
	return err
}

// abort gives a snapshot up.
type abort struct{ *snapshot }

func (abort) size() int           { return 0 }
func (a abort) closes() *snapshot { return a.snapshot }

func (a abort) apply(g *group) error {
	listsTotal.WithLabelValues("aborted").Inc()
	return a.rows.Abort(g.tx)
}
