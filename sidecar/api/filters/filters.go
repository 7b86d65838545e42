// Package filters has the names of the response filters, and the settings that say which filter
// applies to which client. Package filter carries them out; docs/filters.md describes them.
package filters

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"rockpool.dev/sidecar/api/agent"
)

// Names of the filters. Those of YurtHub have the names that they have there.
const (
	DiscardCloudService   = "discardcloudservice"
	NodePortIsolation     = "nodeportisolation"
	Keep                  = "keep"
	MasterService         = "masterservice"
	ForwardKubeSvcTraffic = "forwardkubesvctraffic"
	ServiceTopology       = "servicetopology"
)

// ordered has the filters in the order in which they are applied: those that leave objects out stand
// before those that change objects, so that every decision is about the object as the API server
// has it.
var ordered = []struct{ name, agents string }{
	{DiscardCloudService, "kube-proxy"},
	{NodePortIsolation, "kube-proxy"},
	{Keep, "*"}, // it does nothing without an expression
	{MasterService, "kubelet"},
	{ForwardKubeSvcTraffic, "kube-proxy"},
	{ServiceTopology, "kube-proxy,coredns,nginx-ingress-controller"},
}

// Names returns the names of all filters in the order in which they are applied.
func Names() []string {
	names := make([]string, len(ordered))
	for i, f := range ordered {
		names[i] = f.name
	}
	return names
}

// DefaultAgents returns the clients to which a filter applies unless a setting says otherwise, as a
// comma-separated list. They are YurtHub's.
func DefaultAgents(name string) string {
	for _, f := range ordered {
		if f.name == name {
			return f.agents
		}
	}
	return ""
}

// defaults has the parsed DefaultAgents by name.
var defaults = sync.OnceValue(func() map[string]agent.Selector {
	all := map[string]agent.Selector{}
	for _, f := range ordered {
		all[f.name], _ = agent.Parse(f.agents) // a test parses them
	}
	return all
})

// Settings say which filter applies to which client, and with what.
type Settings struct {
	// Choice has the filters that a pod or cluster adds or takes away for all clients.
	Choice Choice
	// Agents has the clients of each filter. A filter that is missing has its defaults.
	Agents map[string]agent.Selector
	// Rules are the expressions of the filter keep.
	Rules []Rule
	// DropUnknown drops endpoints of which nobody knows whether they belong to this node, pool or
	// zone, as YurtHub does. Otherwise they are kept.
	DropUnknown bool
	// Pool and Zone are those of this node, where the API server does not say; empty: unknown.
	Pool, Zone string
	// Pools has the nodes of pools, where the API server does not say.
	Pools []Pool
}

// Choice adds filters for all clients of a pod, or takes them away. The zero value does neither.
type Choice struct{ Added, Removed []string }

// ParseChoice reads a comma-separated list of names of filters. A minus before a name takes the
// filter away.
func ParseChoice(list string) (c Choice, err error) {
	var problems []error
	for entry := range strings.SplitSeq(list, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		name, remove := strings.CutPrefix(entry, "-")
		switch {
		case !slices.Contains(Names(), name):
			problems = append(problems, fmt.Errorf("%q is not a filter; allowed are %s, and - before a name takes the filter away",
				entry, strings.Join(Names(), ", ")))
		case remove:
			c.Removed = append(c.Removed, name)
		default:
			c.Added = append(c.Added, name)
		}
	}
	for _, name := range c.Added {
		if slices.Contains(c.Removed, name) {
			problems = append(problems, fmt.Errorf("%q is both added and taken away; one of the two is allowed", name))
		}
	}
	return c, errors.Join(problems...)
}

// ParseAgents reads the clients of a filter, which are added to its defaults. An exception, such as
// !kube-proxy, takes a client away again, and !* takes all defaults away.
func ParseAgents(name, list string) (agent.Selector, error) {
	var entries []string
	byDefault := DefaultAgents(name)
	for entry := range strings.SplitSeq(list, ",") {
		switch entry = strings.TrimSpace(entry); entry {
		case "":
		case "!*":
			byDefault = ""
		default:
			entries = append(entries, entry)
		}
	}
	s, err := agent.Parse(strings.Join(entries, ","))
	if err != nil {
		return s, err
	}
	included := slices.ContainsFunc(entries, func(e string) bool { return !strings.HasPrefix(e, "!") })
	if byDefault == "" && !included {
		return agent.Selector{}, nil // exceptions from nothing
	}
	return agent.Parse(strings.Join(append([]string{byDefault}, entries...), ","))
}

// Enabled reports whether a filter applies to the client with this User-Agent.
func (s *Settings) Enabled(name, userAgent string) bool {
	if slices.Contains(s.Choice.Removed, name) {
		return false
	}
	if slices.Contains(s.Choice.Added, name) {
		return true
	}
	selector, ok := s.Agents[name]
	if !ok {
		selector = defaults()[name]
	}
	return selector.Match(userAgent)
}
