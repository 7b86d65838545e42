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
type opened struct{ *stream }

func (opened) size() int { return 0 }
func (opened) lost()     {}
func (o opened) apply(g *group) error {
	_, err := g.head(o.scope)
	return err
}
