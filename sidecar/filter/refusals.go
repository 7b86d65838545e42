package filter

import (
	"maps"
	"slices"
	"sync"
)

// refusals counts the lists that filters go by and that the API server refuses at present, by
// resource. The zero value is ready to use.
type refusals struct {
	mu sync.Mutex
	of map[string]int
}

func (r *refusals) add(resource string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[string]int{}
	}
	if r.of[resource] += n; r.of[resource] == 0 {
		delete(r.of, resource)
	}
}

// Refused returns the resources that filters go by and that the API server refuses to the program's
// account at present. What filters cannot decide without them is kept.
func (f *Filter) Refused() []string {
	f.refusals.mu.Lock()
	defer f.refusals.mu.Unlock()
	return slices.Sorted(maps.Keys(f.refusals.of))
}
