package record

import (
	"errors"
	"sync/atomic"

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
	// The items from position from up to position next of outline have come, and are not queued yet.
	from, next int
	queued     bool // something is queued
	// kind and apiVersion of the items that are the same
	sameKind, sameAPI string
}

func newSnapshot(r *Recorder, source *Source, form request.Form) *snapshot {
	scope := source.scope(form)
	return &snapshot{
		recorder: r, scope: scope, source: source, form: form,
		rows: store.NewSnapshot(scope, source.evidence(store.Present, "")), outline: r.db.Outline(scope),
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
		s.from = at
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

// add records an item, unless an earlier one was lost. kind and apiVersion are of the items.
func (s *snapshot) add(o store.Object, kind, apiVersion string) {
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

// queue queues an operation, unless an earlier one was lost, or the list has ended: it is too large.
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
	c := commit{snapshot: s, meta: meta}
	if s.outline != nil && s.from == 0 && s.next == s.outline.Len() && !s.queued {
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

// same records items that the list before had with the same bytes, by their positions in its outline.
type same struct {
	*snapshot
	from, to         int
	kind, apiVersion string
}

func (same) size() int          { return overhead }
func (i same) opens() *snapshot { return i.snapshot }

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

// commit ends a snapshot that has all of its items.
type commit struct {
	*snapshot
	meta      store.CollectionMeta
	unchanged bool // its items are those of its outline, which are not queued
	waits     bool // see lazy
}

// enqueueCommit adds the end of a list.
func (r *Recorder) enqueueCommit(c *commit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.singles)
	if _, confirmed := r.confirmed[c.scope]; confirmed && c.unchanged && r.doubts.empty() {
		order, ok := store.CompareVersions(c.meta.ResourceVersion, c.outline.Version())
		c.waits = ok && order >= 0
	}
	if r.add(c) {
		r.confirmed[c.scope] = struct{}{}
	}
}

// unconfirm has the next list of a scope written at once.
func (r *Recorder) unconfirm(s store.Scope) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.confirmed, s)
}

func (*commit) size() int           { return 0 }
func (c *commit) closes() *snapshot { return c.snapshot }
func (c *commit) news() bool        { return !c.unchanged }

// lazy: a list that says once more what was recorded last is only fresher. Without it nothing that
// is recorded would be answered that should not be.
func (c *commit) lazy() bool { return c.waits }

func (c *commit) apply(g *group) error {
	if c.unchanged {
		if err := (same{c.snapshot, 0, c.outline.Len(), c.sameKind, c.sameAPI}).apply(g); err != nil {
			return err
		}
	}
	if c.broken.Load() {
		return abort{c.snapshot}.apply(g)
	}
	// Positions of the group may be of collections that the list supersedes.
	if err := g.settle(); err != nil {
		return err
	}
	current, err := g.tx.Collection(c.scope, store.Complete)
	if err != nil && !isNotFound(err) {
		return err
	}
	list := c.source.evidence(store.Present, c.meta.ResourceVersion)
	if err == nil && !list.Newer(current.Position()) && list.Version != current.ResourceVersion {
		listsTotal.WithLabelValues("stale").Inc()
		return c.stale(g, current, list)
	}
	older, err := g.tx.IsOlder(c.scope.Of(), list)
	if err != nil {
		return err
	}
	err = c.rows.Commit(g.tx, c.meta)
	if errors.Is(err, store.ErrBaseGone) {
		c.lost()
		return abort{c.snapshot}.apply(g)
	}
	if err == nil {
		err = g.tx.DropRolledBack(c.scope, list)
	}
	if err == nil && older {
		_, err = g.restored(c.scope.Of())
	}
	if err == nil { // the API is served
		err = g.tx.RemoveNotFound(c.scope.Principal, c.scope.APIPath())
	}
	if err == nil {
		listsTotal.WithLabelValues("complete").Inc()
		c.recorder.oversized.remove(c.scope)
		g.openWatches.setListed(c.scope)
		g.openWatches.setChanged(c.scope, c.meta.ResourceVersion)
		err = g.openWatches.applyHeld(g, c.scope, list)
	}
	if err != nil {
		return err
	}
	unsettled, err := g.tx.Unsettled(c.scope)
	if unsettled || older {
		c.recorder.unconfirm(c.scope)
	}
	if unsettled {
		g.relistIfOvertaken(c.scope)
	}
	return err
}

// stale gives up a list that is not newer than the recorded one.
func (c *commit) stale(g *group, current store.Collection, list store.Evidence) error {
	if err := c.rows.Abort(g.tx); err != nil {
		return err
	}
	order, ok := store.CompareVersions(list.Version, current.Changed)
	if ok && order >= 0 {
		return nil // nothing has changed in between
	}
	if !ok { // the client was told something that may be newer
		list.Says, list.Version, list.Read = store.Unknown, "", store.Latest
		if err := g.tx.Observe(c.scope.Of(), store.Key{Namespace: c.scope.Namespace}, list); err != nil {
			return err
		}
	}
	switch {
	case ok && list.Read == store.Latest: // events have overtaken it; the collection includes it
		if !list.Newer(current.Listed()) {
			return nil // so has a list that was asked for later
		}
		return g.tx.Confirm(current, list)
	case list.Asked < current.Position().Told:
		return nil // they were under way together
	}
	_, err := g.restored(c.scope.Of())
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
