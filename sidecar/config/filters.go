package config

import (
	"errors"
	"fmt"
	"maps"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/expression"
	"rockpool.dev/sidecar/api/filters"
)

// filterAgents is the key with the clients of a filter.
func filterAgents(name string) Key {
	return Key{"filters." + name, "agents", "", atRunTime,
		"Clients of the filter " + name + ", in addition to " + filters.DefaultAgents(name) +
			"; ! before a name takes a client away, and !* all that are named here.",
		func(c *Config, v string) error {
			selector, err := filters.ParseAgents(name, v)
			if err != nil {
				return err
			}
			// Another Config may have the same map.
			agents := maps.Clone(c.Filters.Agents)
			if delete(agents, name); v != "" {
				if agents == nil {
					agents = map[string]agent.Selector{}
				}
				agents[name] = selector
			}
			if len(agents) == 0 {
				agents = nil
			}
			c.Filters.Agents = agents
			return nil
		}}
}

// rules checks that the expressions compile as well.
func rules(v string) ([]filters.Rule, error) {
	list, err := filters.ParseRules(v)
	if err != nil {
		return nil, err
	}
	var problems []error
	for _, r := range list {
		if _, err := expression.Compile(r.Expression); err != nil {
			problems = append(problems, fmt.Errorf("rule of line %d: %w", r.Line, err))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return list, nil
}

func labelValue(v string) (string, error) { return v, filters.CheckLabelValue(v) }
