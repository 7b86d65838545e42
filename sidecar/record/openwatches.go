package record

import (
	"sync"

	"rockpool.dev/store"
)

// watched knows the scopes of the open watches. Their collections are not evicted;
// and when one is lost all the same it is listed again.
type watched struct {
	mu   sync.Mutex
	open map[store.Scope]*watching
}

type watching struct {
	count  int // of open watches
	any    *stream
	listed bool // there was a complete collection while it was watched
	// changed is the first version from which on nothing has changed in the collection but
	// its version; empty: nobody knows.
	changed string
}

func (w *watched) add(s *stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open = map[store.Scope]*watching{}
	}
	if w.open[s.scope] == nil {
		w.open[s.scope] = &watching{any: s}
	}
	w.open[s.scope].count++
}

func (w *watched) remove(s *stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.open[s.scope]
	if o.count--; o.count == 0 {
		delete(w.open, s.scope)
	}
}

func (w *watched) has(s store.Scope) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open[s] != nil
}

// list notes that the scope has a complete collection.
func (w *watched) list(s store.Scope) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o := w.open[s]; o != nil {
		o.listed = true
	}
}

// change notes that the collection of a scope has changed at a version.
func (w *watched) change(s store.Scope, version string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o := w.open[s]; o != nil {
		o.changed = version
	}
}

// begin notes that a watch of the scope begins when its collection is at a version.
func (w *watched) begin(s store.Scope, version string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o := w.open[s]; o != nil && o.changed == "" {
		o.changed = version
	}
}

// unchanged tells that nothing has changed in the collection of a scope since a version
// that it has been at.
func (w *watched) unchanged(s store.Scope, since string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.open[s]
	if o == nil || o.changed == "" {
		return false
	}
	behind, ok := order(o.changed, since)
	return ok && behind <= 0
}

// lost tells that a scope without a complete collection had one while it was
// watched.
func (w *watched) lost(s store.Scope) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open[s] != nil && w.open[s].listed
}

// listed gives the watches of which there were collections, one a scope.
func (w *watched) listed() (out []*stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.open {
		if o.listed {
			out = append(out, o.any)
		}
	}
	return out
}

// opened finds out whether a watch begins behind a collection.
type opened struct {
	base
	*stream
}

func (opened) size() int { return 0 }
func (o opened) apply(g *group) error {
	h, err := g.head(o.scope)
	if err == nil && h.id != 0 {
		g.watched.begin(o.scope, h.version)
	}
	return err
}

// EqualsStateAt tells that a collection, as it is recorded, is also what it was at a resourceVersion:
// nothing has changed since but the version, which bookmarks move on.
func (r *Recorder) EqualsStateAt(c store.Collection, resourceVersion string) bool {
	if c.ResourceVersion == resourceVersion {
		return true
	}
	ahead, ok := order(c.ResourceVersion, resourceVersion)
	return ok && ahead > 0 && r.watched.unchanged(c.Scope, resourceVersion)
}
