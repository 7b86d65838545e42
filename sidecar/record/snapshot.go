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
	base   // of item, commit and abort
	scope  store.Scope
	source *Source
	form   request.Form
	broken atomic.Bool // an item was lost: the list must be given up
	rows   *store.Snapshot
}

func newSnapshot(source *Source, form request.Form) *snapshot {
	scope := source.scope(form)
	return &snapshot{scope: scope, source: source, form: form, rows: store.NewSnapshot(scope)}
}

// add records an item, unless an earlier one was lost.
func (s *snapshot) add(r *Recorder, o store.Object) {
	if s.broken.Load() {
		return
	}
	o.UpdatedAt = r.clock.Now()
	if !r.enqueue(item{snapshot: s, object: o}) {
		s.broken.Store(true)
		r.discard(s)
		r.report(s.source, s.form)
	}
}

func (s *snapshot) lost()        { s.broken.Store(true) }
func (*snapshot) soloSafe() bool { return false } // its earlier rows were rolled back

type item struct {
	*snapshot
	object store.Object
}

func (i item) size() int { return len(i.object.Payload) + len(i.object.Labels) + overhead }

func (i item) apply(g *group) error {
	if i.broken.Load() {
		return nil
	}
	err := i.rows.Add(g.tx, i.object)
	if errors.Is(err, store.ErrBaseGone) {
		i.broken.Store(true)
		return nil
	}
	return err
}

func (i item) opens() *snapshot { return i.snapshot }

// commit ends a snapshot that has all of its items.
type commit struct {
	*snapshot
	meta store.CollectionMeta
}

func (commit) size() int           { return 0 }
func (c commit) closes() *snapshot { return c.snapshot }

func (c commit) apply(g *group) error {
	if c.broken.Load() {
		return abort{c.snapshot}.apply(g)
	}
	// DropRolledBack may drop collections whose positions the group has.
	if err := g.settle(); err != nil {
		return err
	}
	current, err := g.tx.Collection(c.scope, store.Complete)
	if err != nil && !isNotFound(err) {
		return err
	}
	if err == nil && c.outdated(current) {
		listsTotal.WithLabelValues("stale").Inc()
		return c.rows.Abort(g.tx)
	}
	if version, ok := parseVersion(c.meta.ResourceVersion); ok && c.source.wantsLatest() {
		if err := g.tx.DropRolledBack(c.scope, version, c.asked(), current.ID); err != nil {
			return err
		}
	}
	err = c.rows.Commit(g.tx, c.meta)
	if errors.Is(err, store.ErrBaseGone) {
		return abort{c.snapshot}.apply(g)
	}
	if err == nil && c.source.wantsLatest() && c.scope.LabelSelector == "" && c.scope.FieldSelector == "" {
		err = g.tx.DropTombstones(c.scope, c.asked())
	}
	if err == nil {
		listsTotal.WithLabelValues("complete").Inc()
		g.openWatches.setListed(c.scope)
		g.openWatches.setChanged(c.scope, c.meta.ResourceVersion)
	}
	return err
}

// outdated reports whether the list is older than the recorded one. It is not, if it is of the
// latest state and was requested after the recorded one was known to be current: then the cluster
// was restored from a backup.
func (c commit) outdated(current store.Collection) bool {
	order, ok := compareVersions(c.meta.ResourceVersion, current.ResourceVersion)
	return ok && order < 0 && (!c.source.wantsLatest() || !c.asked().After(current.SyncedAt))
}

// asked is when the list was requested, in the store's precision.
func (c commit) asked() time.Time { return c.source.Started.Truncate(time.Millisecond) }

// abort gives a snapshot up.
type abort struct{ *snapshot }

func (abort) size() int           { return 0 }
func (a abort) closes() *snapshot { return a.snapshot }

func (a abort) apply(g *group) error {
	listsTotal.WithLabelValues("aborted").Inc()
	return a.rows.Abort(g.tx)
}
