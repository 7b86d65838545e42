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
	stale       []Stale                    // collections to relist once the group is written
	// unserved has, for each resource that the API server does not serve in a version, how much of
	// tx.Said is not newer than that answer: a list would be answered the same.
	unserved map[served]int
}

// served names a resource in one version of its API.
type served struct {
	store.Resource
	version string
}

type position struct {
	id      int64 // 0: there is no complete collection
	version string
	asked   int64  // of its list; 0: it was allowed to lag
	changed string // version of the last event that changed an object; empty: none
	told    int64  // of the last event
	since   int64  // store.DB.Next when the last of its list or events came
	moved   bool
}

// verdict decides about an event at version rv behind version prev. In the initial state of a watch
// prev is unknown; opened is when that watch was answered. A list that was asked for since has all
// of the initial state, so that what is newer came behind it.
func (p *position) verdict(prev, rv string, opened int64) verdict {
	if p.id == 0 {
		return unlisted
	}
	if prev == "" && p.asked > opened && store.NewerVersion(rv, p.version) {
		prev = p.version
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
	p := &position{id: c.ID, version: c.ResourceVersion, since: c.Position().Told}
	if c.Read == store.Latest {
		p.asked = c.Asked
	}
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
			if err := g.tx.Advance(p.id, store.Move{ResourceVersion: p.version, Changed: p.changed, Told: p.told}); err != nil {
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
	if err := g.compare(); err != nil {
		return err
	}
	return g.overtaken()
}

// compare asks for a relist of the resources of which the group has recorded something older than
// what it knew. Without a list to tell which of the two is right, neither counts.
func (g *group) compare() error {
	for _, s := range g.tx.Symptoms() {
		relisted, err := g.restored(s.Resource)
		if err == nil && relisted == 0 {
			// It is not what the older answer says, which does not hold either.
			err = g.tx.Observe(s.Resource, s.Key, store.Evidence{Says: store.Unknown, Asked: s.Asked, Told: s.Told + 1, Read: store.Latest})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// restored asks for a relist of the collections of a resource: an answer is older than what is
// recorded. The API server's cache may lag, or the cluster was restored from a backup. It returns
// the number of collections.
func (g *group) restored(res store.Resource) (int, error) {
	complete, err := g.tx.Complete(res, "")
	for _, c := range complete {
		g.stale = append(g.stale, staleOf(c.Scope))
	}
	return len(complete), err
}

// overtaken asks for a relist of the collections that may be older than what the group has recorded
// of their objects. Often the next event of a watch comes before that.
func (g *group) overtaken() error {
	seen := map[int64]bool{}
	for i, said := range g.tx.Said() {
		complete, err := g.tx.Complete(said.Resource, said.Namespace)
		if err != nil {
			return err
		}
		for _, c := range complete {
			order, ok := store.CompareVersions(said.Version, c.ResourceVersion)
			included := ok && order <= 0 && said.Version != ""
			unserved := i < g.unserved[served{said.Resource, c.Version}]
			if included || unserved || seen[c.ID] {
				continue
			}
			seen[c.ID] = true
			g.relistIfOvertaken(c.Scope)
		}
	}
	return nil
}

func (g *group) relistIfOvertaken(s store.Scope) {
	stale := staleOf(s)
	stale.IfOvertaken = true
	g.stale = append(g.stale, stale)
}

func isNotFound(err error) bool { return errors.Is(err, store.ErrNotFound) }
