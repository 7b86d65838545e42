package store

import (
	"slices"
	"sync"
)

const (
	// maxRemembered bounds the objects about which everything is remembered.
	maxRemembered = 16
	// maxRememberedPayload bounds the payloads of one of them, in bytes.
	maxRememberedPayload = 4 << 10
	// maxRememberedFacts bounds its states, lists and observations together.
	maxRememberedFacts = 64
)

// remembered has what Known has found last, until the database changes: programs that poll ask for
// the same few objects, and while the link is down hardly anything is written.
type remembered struct {
	mu       sync.Mutex
	validFor uint64 // the generation before they were read; see collectionCache
	all      map[question]Known
}

// question is what Known is asked.
type question struct {
	Resource
	Key
	path, accept string
}

// get returns what was found, if it was found in this generation.
func (r *remembered) get(q question, generation uint64) (k Known, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.validFor != generation {
		return k, false
	}
	k, ok = r.all[q]
	return k.clone(), ok
}

// put keeps what was found, if it is small.
func (r *remembered) put(q question, generation uint64, k Known) {
	size := 0
	for i := range k.States {
		size += len(k.States[i].payload)
	}
	if size > maxRememberedPayload || len(k.States)+len(k.Lists)+len(k.Observations) > maxRememberedFacts {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.validFor != generation || len(r.all) >= maxRemembered {
		r.validFor, r.all = generation, nil
	}
	if r.all == nil {
		r.all = map[question]Known{}
	}
	r.all[q] = k.clone()
}

// clone copies what callers may change. Nobody changes a payload.
func (k Known) clone() Known {
	k.States, k.Lists, k.Observations = slices.Clone(k.States), slices.Clone(k.Lists), slices.Clone(k.Observations)
	return k
}
