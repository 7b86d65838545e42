package record

import (
	"cmp"
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
	count  int // of open watches
	stream *stream
	listed bool // there was a complete collection while it was watched
	// changed is the version of the last change of the collection; later versions only move it on.
	// Empty: it is unknown.
	changed string
}

func (w *openWatches) add(s *stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open[s.scope] == nil {
		w.open[s.scope] = &openWatch{stream: s}
	}
	w.open[s.scope].count++
}

func (w *openWatches) remove(s *stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.open[s.scope]
	if o.count--; o.count == 0 {
		delete(w.open, s.scope)
	}
}

// get returns the open watches of a scope; their count may be 0.
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

func (w *openWatches) contains(s store.Scope) bool { return w.get(s).count > 0 }

// setListed notes that the scope has a complete collection.
func (w *openWatches) setListed(s store.Scope) {
	w.update(s, func(o *openWatch) { o.listed = true })
}

// wasListed reports whether a scope had a complete collection while it was watched.
func (w *openWatches) wasListed(s store.Scope) bool { return w.get(s).listed }

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
	order, ok := compareVersions(changed, since)
	return changed != "" && ok && order <= 0
}

// listed returns the watches that had collections, one for each scope.
func (w *openWatches) listed() (out []*stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.open {
		if o.listed {
			out = append(out, o.stream)
		}
	}
	return out
}

// watchOpened notes at which version of its collection a watch begins.
type watchOpened struct {
	base
	*stream
}

func (watchOpened) size() int { return 0 }
func (o watchOpened) apply(g *group) error {
	p, err := g.position(o.scope)
	if err == nil && p.id != 0 {
		g.openWatches.setInitial(o.scope, p.version)
	}
	return err
}

// EqualsStateAt reports whether a collection, as recorded, equals its state at a resourceVersion:
// since then only its version has changed, which bookmarks move on.
func (r *Recorder) EqualsStateAt(c store.Collection, resourceVersion string) bool {
	if c.ResourceVersion == resourceVersion {
		return true
	}
	order, ok := compareVersions(c.ResourceVersion, resourceVersion)
	return ok && order > 0 && r.openWatches.unchangedSince(c.Scope, resourceVersion)
}
