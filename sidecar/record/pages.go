package record

import (
	"slices"
	"sync"
	"time"

	"rockpool.dev/store"
)

const (
	// maxPaged bounds the lists that wait for their next page.
	maxPaged = 8
	// pageLife is how long a list waits. The API server forgets what a continue
	// token stands for after five minutes by default (etcd compaction).
	pageLife = 6 * time.Minute
)

// pagedList is a list of which some pages have come.
type pagedList struct {
	snap     *snapshot
	kind     string // of an item, if one said it
	api      string
	version  string // of the first page, which all others have, too
	token    string // of the next page
	deadline time.Time
}

// pages are the lists that wait for their next page.
type pages struct {
	mu      sync.Mutex
	waiting []pagedList // the one that waits longest first
}

// put keeps a list until its next page comes. It gives what must be given up for
// that.
func (p *pages) put(l pagedList, now time.Time) (dropped []*snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.deadline = now.Add(pageLife)
	p.waiting = append(p.waiting, l)
	p.waiting = slices.DeleteFunc(p.waiting, func(other pagedList) bool {
		old := now.After(other.deadline)
		if old {
			dropped = append(dropped, other.snap)
		}
		return old
	})
	if over := len(p.waiting) - maxPaged; over > 0 {
		for _, other := range p.waiting[:over] {
			dropped = append(dropped, other.snap)
		}
		p.waiting = slices.Delete(p.waiting, 0, over)
	}
	return dropped
}

// take gives the list of which the next page has come.
func (p *pages) take(scope store.Scope, token string) (pagedList, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, l := range p.waiting {
		if l.token == token && l.snap.scope == scope {
			p.waiting = slices.Delete(p.waiting, i, i+1)
			return l, true
		}
	}
	return pagedList{}, false
}
