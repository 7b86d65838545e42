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
	// pageLife is how long a list waits. By default, the API server forgets a continue token after
	// five minutes (etcd compaction).
	pageLife = 6 * time.Minute
)

// pagedList is a list of which some pages were read.
type pagedList struct {
	snap     *snapshot
	kind     string // of the first item that has one
	api      string
	version  string // of the first page, and of all others
	token    string // of the next page
	deadline time.Time
}

// pages are the lists that wait for their next page.
type pages struct {
	mu      sync.Mutex
	waiting []pagedList // longest waiting first
}

// put keeps a list until its next page is read. It returns the lists that are given up for it.
func (p *pages) put(l pagedList, now time.Time) (dropped []*snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.deadline = now.Add(pageLife)
	p.waiting = append(p.waiting, l)
	for len(p.waiting) > maxPaged || now.After(p.waiting[0].deadline) {
		dropped = append(dropped, p.waiting[0].snap)
		p.waiting = slices.Delete(p.waiting, 0, 1)
	}
	return dropped
}

// take removes and returns the list whose next page is being read.
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
