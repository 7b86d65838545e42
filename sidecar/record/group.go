package record

import (
	"errors"

	"rockpool.dev/store"
)

// group is one transaction. It caches the positions of the collections that it changes, so that
// many events of one collection write its version once.
type group struct {
	tx          *store.Tx
	openWatches *openWatches
	positions   map[store.Scope]*position
	used        map[int64]struct{}         // collections that were replayed
	deferred    map[deferredWrite]struct{} // objects of which a step was applied
}

type position struct {
	id      int64 // 0: there is no complete collection
	version string
	moved   bool
}

func (p *position) verdict(prev, rv string) verdict {
	if p.id == 0 {
		return unlisted
	}
	return verdictOf(prev, rv, p.version)
}

func (g *group) position(s store.Scope) (*position, error) {
	if p, ok := g.positions[s]; ok {
		return p, nil
	}
	c, err := g.tx.Collection(s, store.Complete)
	if err != nil && !isNotFound(err) {
		return nil, err
	}
	p := &position{id: c.ID, version: c.ResourceVersion}
	g.positions[s] = p
	if p.id != 0 {
		g.openWatches.setListed(s)
	}
	return p, nil
}

// settle writes the versions of the collections that have moved, and empties the cache.
func (g *group) settle() error {
	for _, p := range g.positions {
		if p.moved {
			if err := g.tx.Advance(p.id, p.version); err != nil {
				return err
			}
		}
	}
	clear(g.positions)
	return nil
}

func (g *group) finish() error {
	if err := g.settle(); err != nil {
		return err
	}
	for id := range g.used {
		if err := g.tx.Use(id); err != nil {
			return err
		}
	}
	return nil
}

func isNotFound(err error) bool { return errors.Is(err, store.ErrNotFound) }
