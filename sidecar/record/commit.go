package record

import (
	"errors"

	"rockpool.dev/store"
)

// commit ends a snapshot that has all of its items.
type commit struct {
	*snapshot
	meta      store.CollectionMeta
	repeats   bool // its items are those of its outline
	unchanged bool // likewise, and none is queued
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

// isConfirmed reports whether a list of a scope was queued, and nothing since that says more.
func (r *Recorder) isConfirmed(s store.Scope) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, is := r.confirmed[s]
	return is && r.doubts.empty()
}

// unconfirm has the next list of a scope written at once.
func (r *Recorder) unconfirm(s store.Scope) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.confirmed, s)
}

func (*commit) size() int           { return 0 }
func (c *commit) closes() *snapshot { return c.snapshot }
func (c *commit) news() bool        { return !c.repeats }

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
