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
	// pageLife is how long a list waits, and how long lazy operations do. By default, the API server
	// forgets a continue token after five minutes (etcd compaction).
	pageLife = 6 * time.Minute
)

// pagedList is a list of which some pages were read.
type pagedList struct {
	snap     *snapshot
	kind     string // and apiVersion of the items
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

// put keeps a list until its next page is read. It returns the lists that are given up for it:
// there is one of each scope.
func (p *pages) put(l pagedList, now time.Time) (dropped []pagedList) {
	dropped = p.drop(func(old pagedList) bool { return old.snap.scope == l.snap.scope && old.snap != l.snap })
	p.mu.Lock()
	defer p.mu.Unlock()
	l.deadline = now.Add(pageLife)
	p.waiting = append(p.waiting, l)
	if len(p.waiting) > maxPaged {
		dropped = append(dropped, p.waiting[0])
		p.waiting = slices.Delete(p.waiting, 0, 1)
	}
	return dropped
}

// expire returns the lists that are given up because nobody has read their next page in time.
func (p *pages) expire(now time.Time) []pagedList {
	return p.drop(func(l pagedList) bool { return now.After(l.deadline) })
}

func (p *pages) drop(which func(pagedList) bool) (dropped []pagedList) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = slices.DeleteFunc(p.waiting, func(l pagedList) bool {
		if which(l) {
			dropped = append(dropped, l)
			return true
		}
		return false
	})
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

// GiveUp gives up the lists of a resource that wait for their next page, because the link is down:
// the API server will not continue them. It reports whether there were any.
func (r *Recorder) GiveUp(res store.Resource) bool {
	dropped := r.pages.drop(func(l pagedList) bool { return l.snap.scope.Of() == res && !l.snap.source.Background })
	r.giveUp(dropped)
	return len(dropped) > 0
}

func (r *Recorder) giveUp(lists []pagedList) {
	for _, l := range lists {
		r.enqueue(l.end())
	}
}

// end ends a list of which only the first pages were read.
func (l *pagedList) end() operation {
	if l.snap.source.Background {
		return abort{l.snap}
	}
	return giveUp{l.snap, l.kind, l.api}
}

// giveUp ends a list of which only the first pages were read. Their objects are recorded alone: the
// client was told.
type giveUp struct {
	*snapshot
	kind, apiVersion string
}

func (giveUp) size() int           { return 0 }
func (u giveUp) closes() *snapshot { return u.snapshot }

func (u giveUp) apply(g *group) error {
	listsTotal.WithLabelValues("aborted").Inc()
	if u.broken.Load() {
		return u.rows.Abort(g.tx)
	}
	return u.rows.GiveUp(g.tx, u.source.singleScope(u.form), u.kind, u.apiVersion)
}
