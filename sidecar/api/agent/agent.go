// Package agent selects clients by their User-Agent (RFC 9110 §10.1.5), in the way
// that OpenYurt's cache_agents names them: by what stands before the first slash,
// "kubectl" for "kubectl/v1.36.3 (linux/amd64) kubernetes/1234567".
package agent

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"
)

// Selector says which clients are meant. The zero value means none.
type Selector struct {
	include, exclude []string // patterns in lower case
}

// Parse reads a comma-separated list of names. A name may have the wildcards of
// path.Match; one that begins with ! is an exception, and a list of nothing but
// exceptions means all others.
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
			problems = append(problems, fmt.Errorf("%q is not a User-Agent's name; what stands before its first slash is allowed, with * and ? as wildcards and ! before an exception, such as kubectl, my-*, !curl", name))
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

// Match tells whether the client with this User-Agent is meant.
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

// Current is a Selector that is replaced while others ask it, each without
// waiting. The zero value means none.
type Current struct{ selector atomic.Pointer[Selector] }

// NewCurrent begins with s.
func NewCurrent(s Selector) *Current {
	c := &Current{}
	c.Set(s)
	return c
}

// Set makes s the one that counts from now on.
func (c *Current) Set(s Selector) { c.selector.Store(&s) }

// Match tells whether the client with this User-Agent is meant now.
func (c *Current) Match(userAgent string) bool {
	s := c.selector.Load()
	return s != nil && s.Match(userAgent)
}
