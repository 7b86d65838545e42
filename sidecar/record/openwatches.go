package record

import (
	"cmp"
	"slices"
	"sync"

	"rockpool.dev/store"
)

// openWatches has the scopes of the open watches. Their collections are not evicted, and are
// relisted if they are lost.
type openWatches struct {
	mu   sync.Mutex
	open map[store.Scope]*openWatch
}

type openWatch struct {
	streams []*stream
	listed  bool // there was a complete collection while it was watched
	// changed is the version of the last change of the collection; later versions only move it on.
	// Empty: it is unknown.
	changed string
}

func (w *openWatches) add(s *stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open[s.scope] == nil {
		w.open[s.scope] = &openWatch{}
	}
	o := w.open[s.scope]
	o.streams = append(o.streams, s)
}

func (w *openWatches) remove(s *stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.open[s.scope]
	o.streams = slices.DeleteFunc(o.streams, func(open *stream) bool { return open == s })
	if len(o.streams) == 0 {
		delete(w.open, s.scope)
	}
}

// get returns the open watches of a scope; there may be none.
func (w *openWatches) get(s store.Scope) openWatch {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o := w.open[s]; o != nil {
		return *o
	}
	return openWatch{}
}

// update changes what is known of the open watches of a scope, if there are any.
func (w *openWatches) update(s store.Scope, f func(*openWatch)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o := w.open[s]; o != nil {
		f(o)
	}
}

func (w *openWatches) contains(s store.Scope) bool { return len(w.get(s).streams) > 0 }

// setListed notes that the scope has a complete collection.
func (w *openWatches) setListed(s store.Scope) {
	w.update(s, func(o *openWatch) { o.listed = true })
}

// setChanged notes that the collection of a scope has changed at a version.
func (w *openWatches) setChanged(s store.Scope, version string) {
	w.update(s, func(o *openWatch) { o.changed = version })
}

// setInitial notes the version of the collection at which a watch of its scope begins.
func (w *openWatches) setInitial(s store.Scope, version string) {
	w.update(s, func(o *openWatch) { o.changed = cmp.Or(o.changed, version) })
}

// unchangedSince reports whether a scope's collection is unchanged since one of its versions.
func (w *openWatches) unchangedSince(s store.Scope, since string) bool {
	changed := w.get(s).changed
	order, ok := store.CompareVersions(changed, since)
	return changed != "" && ok && order <= 0
}

// listed returns the watches that had collections, one for each scope.
func (w *openWatches) listed() (out []*stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.open {
		if o.listed {
			out = append(out, o.streams[0])
		}
	}
	return out
}

// applyHeld applies the events that the watches of a scope have held for its new list.
func (w *openWatches) applyHeld(g *group, scope store.Scope, list store.Evidence) error {
	w.mu.Lock()
	var streams []*stream
	if o := w.open[scope]; o != nil {
		streams = slices.Clone(o.streams)
	}
	w.mu.Unlock()
	for _, s := range streams {
		if err := s.behind.apply(g, list); err != nil {
			return err
		}
	}
	return nil
}

// watchOpened notes at which version of its collection a watch begins.
type watchOpened struct {
	base
	*stream
	resumed bool   // see Resume
	from    string // the version of the list that it goes on from; empty: none
}

func (watchOpened) size() int { return 0 }
func (o watchOpened) apply(g *group) error {
	p, err := g.position(o.scope)
	switch {
	case err != nil:
		return err
	case p.id != 0:
		g.openWatches.setInitial(o.scope, p.version)
		// The request for a list may have been lost to a kill.
		if unsettled, err := g.tx.Unsettled(o.scope); err != nil {
			return err
		} else if unsettled {
			g.relistIfOvertaken(o.scope)
		}
	}
	lost := o.from != "" && p.id == 0 && o.source.Info.Splits() // to a kill before it was written
	lost = lost || o.resumed && p.version != o.source.Info.ResourceVersion
	if lost && !o.watchesOne() && !o.recorder.oversized.has(o.scope) {
		g.stale = append(g.stale, Stale{Source: o.source, Form: o.form})
	}
	return nil
}

// EqualsStateAt reports whether a collection, as recorded, equals its state at a resourceVersion:
// since then only its version has changed, which bookmarks move on.
func (r *Recorder) EqualsStateAt(c store.Collection, resourceVersion string) bool {
	if c.ResourceVersion == resourceVersion {
		return true
	}
	order, ok := store.CompareVersions(c.ResourceVersion, resourceVersion)
	return ok && order > 0 && r.openWatches.unchangedSince(c.Scope, resourceVersion)
}

// Watched reports whether a watch of a collection's scope is open.
func (r *Recorder) Watched(s store.Scope) bool { return r.openWatches.contains(s) }

// Watches is how many watches of a collection's scope are open.
func (r *Recorder) Watches(s store.Scope) int { return len(r.openWatches.get(s).streams) }
