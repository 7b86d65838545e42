// Package agent selects clients by the name in their User-Agent (RFC 9110 §10.1.5), as OpenYurt's
// cache_agents does. The name is the part before the first slash: "kubectl" for
// "kubectl/v1.36.3 (linux/amd64) kubernetes/1234567".
package agent

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"
)

// Selector selects clients. The zero value selects none.
type Selector struct {
	include, exclude []string // patterns in lower case
}

// Parse reads a comma-separated list of names. A name may have the wildcards of path.Match. A name
// after ! is an exception. A list of exceptions alone selects all other clients.
func Parse(list string) (Selector, error) {
	var s Selector
	var problems []error
	for name := range strings.SplitSeq(list, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		if name == "" {
			continue
		}
		pattern, except := strings.CutPrefix(name, "!")
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" || strings.Contains(pattern, "/") {
			problems = append(problems, fmt.Errorf("%q is not a User-Agent's name; "+
				"the part before its first slash is allowed, with * and ? as wildcards "+
				"and ! before an exception, such as kubectl, my-*, !curl", name))
			continue
		}
		if except {
			s.exclude = append(s.exclude, pattern)
		} else {
			s.include = append(s.include, pattern)
		}
	}
	if len(s.include) == 0 && len(s.exclude) > 0 {
		s.include = []string{"*"}
	}
	return s, errors.Join(problems...)
}

// Match reports whether the client with this User-Agent is selected.
func (s Selector) Match(userAgent string) bool {
	name, _, _ := strings.Cut(userAgent, "/")
	name = strings.ToLower(strings.TrimSpace(name))
	return matchesAny(s.include, name) && !matchesAny(s.exclude, name)
}

func matchesAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if ok, err := path.Match(p, name); err == nil && ok {
			return true
		}
	}
	return false
}

// Current is a Selector that can be replaced while others use it, without locks. The zero value
// selects none.
type Current struct{ selector atomic.Pointer[Selector] }

// NewCurrent returns a Current that uses s.
func NewCurrent(s Selector) *Current {
	c := &Current{}
	c.Set(s)
	return c
}

// Set replaces the Selector.
func (c *Current) Set(s Selector) { c.selector.Store(&s) }

// Match reports whether the current Selector selects the client with this User-Agent.
func (c *Current) Match(userAgent string) bool {
	s := c.selector.Load()
	return s != nil && s.Match(userAgent)
}
