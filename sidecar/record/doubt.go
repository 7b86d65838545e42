package record

import (
	"maps"
	"sync"

	"rockpool.dev/store"
)

// maxDoubts bounds the doubts about single objects; more make their namespaces doubtful.
const maxDoubts = 1024

// doubts are about objects that clients were told of, but the store was not: the queue was full, or
// the store has failed. They are written with the next group. Until then Doubtful has them.
type doubts struct {
	mu sync.Mutex
	of map[doubt]lost
}

// lost is what a client was told last of what the store does not have.
type lost struct {
	told    int64  // store.DB.Next at that time
	version string // it is not older than that; empty: unknown
}

// doubt names an object, or a scope if its key has no name.
type doubt struct {
	store.Resource
	store.Key
}

func (l lost) evidence() store.Evidence {
	return store.Evidence{Says: store.Unknown, Floor: l.version, Asked: l.told, Told: l.told, Read: store.Latest}
}

// doubt notes that nothing from before counts of an object or scope.
func (r *Recorder) doubt(res store.Resource, key store.Key, told int64, version string) {
	r.mu.Lock()
	clear(r.confirmed)
	r.mu.Unlock()
	r.doubts.mu.Lock()
	defer r.doubts.mu.Unlock()
	if len(r.doubts.of) >= maxDoubts {
		key.Name = ""
	}
	d := doubt{res, key}
	l := r.doubts.of[d]
	if l.version == "" || store.NewerVersion(version, l.version) {
		l.version = version
	}
	l.told = max(l.told, told)
	r.doubts.of[d] = l
}

func (d *doubts) empty() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.of) == 0
}

func (d *doubts) all() map[doubt]lost {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.of)
}

// remove removes what is written, unless there is a newer doubt of the same.
func (d *doubts) remove(written map[doubt]lost) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, l := range written {
		if d.of[k] == l {
			delete(d.of, k)
		}
	}
}

// Doubtful reports whether a client was told something of the objects that the store does not have.
// Without a name they are all objects of the namespace, and without a namespace of the resource.
func (r *Recorder) Doubtful(res store.Resource, key store.Key) bool {
	r.doubts.mu.Lock()
	defer r.doubts.mu.Unlock()
	for d := range r.doubts.of {
		if d.Resource == res && overlaps(d.Namespace, key.Namespace) && overlaps(d.Name, key.Name) {
			return true
		}
	}
	return false
}

func overlaps(a, b string) bool { return a == "" || b == "" || a == b }
