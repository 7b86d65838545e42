package store

import "sync"

// renewals are observations that the server has said again since they were written. They stay in
// memory for a while, so that a program that keeps asking for an absent object does not wear out
// the disk.
type renewals struct {
	mu sync.Mutex
	of map[renewed]Evidence
}

type renewed struct {
	Resource
	Key
}

// put notes that an observation was said again. It reports false if there are too many.
func (r *renewals) put(res Resource, key Key, e Evidence) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.of) >= maxObservations {
		return false
	}
	if r.of == nil {
		r.of = map[renewed]Evidence{}
	}
	r.of[renewed{res, key}] = e
	return true
}

// apply makes an observation what was last said.
func (r *renewals) apply(res Resource, o *Observation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n, ok := r.of[renewed{res, o.Key}]; ok {
		o.Evidence = n
	}
}

// remove forgets an observation that was written or deleted.
func (r *renewals) remove(res Resource, key Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.of, renewed{res, key})
}
