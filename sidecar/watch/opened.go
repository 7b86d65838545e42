package watch

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Open is an open watch of a program, for people.
type Open struct {
	Account string    `json:"account,omitempty"` // empty: it is not recorded
	Agent   string    `json:"agent"`             // the User-Agent
	Path    string    `json:"path"`              // with the query, as the program has asked
	State   string    `json:"state"`             // open or waiting, as in the metric rockpool_watches
	Since   time.Time `json:"since"`
}

// opened has the watches that are open, with their states.
type opened struct {
	mu     sync.Mutex
	states map[*watch]string
}

// set notes the state of a watch. Empty: it has ended.
func (o *opened) set(w *watch, state string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if state == "" {
		delete(o.states, w)
		return
	}
	if o.states == nil {
		o.states = map[*watch]string{}
	}
	o.states[w] = state
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
