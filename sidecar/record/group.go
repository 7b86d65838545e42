package record

import (
	"errors"

	"rockpool.dev/store"
)

// group is one transaction. It keeps the heads of the collections that it
// changes, so that many events of one collection move its version once.
type group struct {
	tx      *store.Tx
	watched *watched
	heads   map[store.Scope]*head
	used    map[int64]struct{} // collections that were replayed
	owed    map[debt]struct{}  // objects of which a step was applied
}

type head struct {
	id      int64 // 0: there is no complete collection
	version string
	moved   bool
}

func (g *group) head(s store.Scope) (*head, error) {
	if h, ok := g.heads[s]; ok {
		return h, nil
	}
	c, err := g.tx.Collection(s, store.Complete)
	if err != nil && !isNotFound(err) {
		return nil, err
	}
	h := &head{id: c.ID, version: c.ResourceVersion}
	g.heads[s] = h
	if h.id != 0 {
		g.watched.list(s)
	}
	return h, nil
}

// settle writes the versions of the collections that have moved, and forgets them.
func (g *group) settle() error {
	for _, h := range g.heads {
		if h.moved {
			if err := g.tx.Advance(h.id, h.version); err != nil {
				return err
			}
		}
	}
	clear(g.heads)
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
