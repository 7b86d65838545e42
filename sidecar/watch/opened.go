package watch

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"rockpool.dev/sidecar/pod/processors"
)

// Open is an open watch of a program, for people.
type Open struct {
	Account string    `json:"account,omitempty"` // empty: it is not recorded
	Agent   string    `json:"agent"`             // the User-Agent
	Path    string    `json:"path"`              // with the query, as the program has asked
	State   string    `json:"state"`             // open or waiting, as in the metric rockpool_watches
	Since   time.Time `json:"since"`
}

// crowd is how many open watches have more processors used: a change that all of them show is
// encrypted for one after the other.
const crowd = 100

// opened has the watches that are open, with their states.
type opened struct {
	processors *processors.Processors

	mu     sync.Mutex
	states map[*watch]string
	fewer  func() // when there is no crowd any more; nil: there is none
}

// set notes the state of a watch. Empty: it has ended.
func (o *opened) set(w *watch, state string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if state == "" {
		delete(o.states, w)
	} else {
		o.states[w] = state
	}
	switch crowded := len(o.states) >= crowd; {
	case crowded && o.fewer == nil:
		o.fewer = o.processors.More()
	case !crowded && o.fewer != nil:
		o.fewer()
		o.fewer = nil
	}
}

// Opened returns the open watches, by program and path.
func (s *Watches) Opened() (all []Open) {
	s.opened.mu.Lock()
	defer s.opened.mu.Unlock()
	for w, state := range s.opened.states {
		all = append(all, Open{w.Source.Principal, w.HTTP.UserAgent(), w.HTTP.URL.RequestURI(), state, w.Source.Started})
	}
	slices.SortFunc(all, func(a, b Open) int {
		return cmp.Or(cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.Path, b.Path), a.Since.Compare(b.Since))
	})
	return all
}
