// Package keep compiles the rules of the filter keep into conditions.
package keep

import (
	"encoding/json"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"rockpool.dev/sidecar/api/expression"
	"rockpool.dev/sidecar/api/filters"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/filter/rule"
)

// ErrNotJSON means that a client takes objects in protobuf alone, which rules cannot read.
var ErrNotJSON = errors.New("the client takes no JSON")

// Conditions compiles rules. The error joins those of all rules, each with its line.
func Conditions(rules []filters.Rule) (map[schema.GroupResource]rule.Condition, error) {
	conditions := make(map[schema.GroupResource]rule.Condition, len(rules))
	var problems []error
	for _, r := range rules {
		program, err := expression.Compile(r.Expression)
		if err != nil {
			problems = append(problems, fmt.Errorf("rule of line %d: %w", r.Line, err))
			continue
		}
		conditions[r.Resource] = func(o *rule.Object, c *rule.Context) (bool, error) {
			if o.Format != wire.JSON {
				return true, ErrNotJSON
			}
			var object any
			if err := json.Unmarshal(o.Raw, &object); err != nil {
				return true, err
			}
			return program.Keep(object, nodeOf(&c.Node))
		}
	}
	return conditions, errors.Join(problems...)
}

// nodeOf is the variable node of expressions. Its fields are there also when nothing is known.
func nodeOf(n *rule.Node) map[string]any {
	labels := map[string]any{}
	for name, value := range n.Labels {
		labels[name] = value
	}
	return map[string]any{"name": n.Name, "labels": labels, "pool": n.Pool.Name, "zone": n.Zone.Name}
}
