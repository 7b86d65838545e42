package filters

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Pool is a pool with patterns of its nodes' names.
type Pool struct {
	Name  string
	Nodes []string
}

// Has reports whether a node belongs to the pool.
func (p Pool) Has(node string) bool {
	for _, pattern := range p.Nodes {
		if ok, err := path.Match(pattern, node); ok && err == nil {
			return true
		}
	}
	return false
}

// ParsePools reads POOL=NODE,NODE;POOL=NODE. A line break separates pools as well. Names of nodes may
// have the wildcards of path.Match.
func ParsePools(text string) (pools []Pool, err error) {
	var problems []error
	for entry := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		name, nodes, ok := strings.Cut(entry, "=")
		pool := Pool{Name: strings.TrimSpace(name)}
		if !ok || CheckLabelValue(pool.Name) != nil {
			problems = append(problems, fmt.Errorf("%q is not a pool; POOL=NODE,NODE is allowed, such as hangzhou=edge-1,edge-2", entry))
			continue
		}
		for node := range strings.SplitSeq(nodes, ",") {
			if node = strings.TrimSpace(node); node == "" {
				continue
			}
			if _, err := path.Match(node, ""); err != nil || strings.ContainsAny(node, "/ ") {
				problems = append(problems, fmt.Errorf("%q is not the name of a node; * and ? are allowed as wildcards", node))
			}
			pool.Nodes = append(pool.Nodes, node)
		}
		pools = append(pools, pool)
	}
	return pools, errors.Join(problems...)
}

// CheckLabelValue checks the name of a pool or zone, which is the value of a label of Nodes.
func CheckLabelValue(name string) error {
	if name == "" || len(validation.IsValidLabelValue(name)) > 0 {
		return fmt.Errorf("%q is not the value of a label; letters, digits, - _ and . are allowed, such as hangzhou", name)
	}
	return nil
}

// Rule is an expression that says which objects of a resource are kept.
type Rule struct {
	Resource   schema.GroupResource
	Expression string
	Line       int // in the setting, from 1
}

// ParseRules reads one rule a line: RESOURCE[.GROUP]: EXPRESSION. A line that begins with white space
// continues the rule before it. It does not compile the expressions.
func ParseRules(text string) (rules []Rule, err error) {
	var problems []error
	number := 0
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		number++
		trimmed := strings.TrimSpace(line)
		if trimmed == "" {
			continue
		}
		if trimmed != strings.TrimRight(line, " \t\r") && len(rules) > 0 {
			rules[len(rules)-1].Expression += "\n" + trimmed
			continue
		}
		resource, expression, ok := strings.Cut(trimmed, ":")
		expression = strings.TrimSpace(expression)
		if !ok || expression == "" || resource != strings.ToLower(resource) || len(validation.IsDNS1123Subdomain(resource)) > 0 {
			problems = append(problems, fmt.Errorf("line %d: %q is not a rule; RESOURCE.GROUP: EXPRESSION is allowed, such as "+
				"services: object.metadata.labels['site'] == node.labels['site']", number, trimmed))
			continue
		}
		rules = append(rules, Rule{Resource: schema.ParseGroupResource(resource), Expression: expression, Line: number})
	}
	seen := map[schema.GroupResource]int{}
	for _, r := range rules {
		if first, ok := seen[r.Resource]; ok {
			problems = append(problems, fmt.Errorf("line %d: %s has a rule already, in line %d; join them by &&", r.Line, r.Resource, first))
		}
		seen[r.Resource] = r.Line
	}
	return rules, errors.Join(problems...)
}
