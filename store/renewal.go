package store

import "sync"

// renewals are observations that the server has said again since they were written. They stay in
// memory for a while, so that a program that keeps asking for an absent object does not wear out
// the disk. Without one, the observation would only seem older: it is written when something else
// is recorded of the object.
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

// putRenewal writes an observation that is renewed only in memory.
func (tx *Tx) putRenewal(res Resource, o Observation) error {
	tx.db.renewals.mu.Lock()
	_, is := tx.db.renewals.of[renewed{res, o.Key}]
	tx.db.renewals.mu.Unlock()
	if !is {
		return nil
	}
	return tx.rewrite(res, o)
}

// rewrite writes when an observation was said, and what it is known not to be older than.
func (tx *Tx) rewrite(res Resource, o Observation) error {
	_, err := tx.tx.Exec(`UPDATE observation SET floor = ?, asked = ?, told = ?, read = ? WHERE principal = ? AND api_group = ? AND resource = ? AND namespace = ? AND name = ?`,
		o.Floor, o.Asked, o.Told, o.Read, res.Principal, res.Group, res.Resource, o.Namespace, o.Name)
	return tx.wrapErr("put observation", err)
}
