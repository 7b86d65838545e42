package keep

import (
	"errors"
	"strings"
	"testing"

	"rockpool.dev/sidecar/api/filters"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/filter/rule"
)

func condition(t *testing.T, text string) rule.Condition {
	t.Helper()
	rules, err := filters.ParseRules(text)
	if err != nil {
		t.Fatal(err)
	}
	conditions, err := Conditions(rules)
	if err != nil || len(conditions) != 1 {
		t.Fatal(conditions, err)
	}
	return conditions[rules[0].Resource]
}

func TestARuleKeepsObjectsOfThisSite(t *testing.T) {
	keep := condition(t, "services: object.metadata.labels['site'] == node.labels['site']")
	here := &rule.Context{Node: rule.Node{Name: "edge-1", Labels: map[string]string{"site": "a"}}}
	for raw, want := range map[string]bool{
		`{"metadata":{"name":"web","labels":{"site":"a"}}}`: true,
		`{"metadata":{"name":"web","labels":{"site":"b"}}}`: false,
	} {
		got, err := keep(&rule.Object{Format: wire.JSON, Resource: rule.Services, Raw: []byte(raw)}, here)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", raw, got, err)
		}
	}
	for _, raw := range []string{`{"metadata":{"name":"web"}}`, `{`} {
		if _, err := keep(&rule.Object{Format: wire.JSON, Resource: rule.Services, Raw: []byte(raw)}, here); err == nil {
			t.Errorf("%s: no error", raw)
		}
	}
	if _, err := keep(&rule.Object{Format: wire.Protobuf, Resource: rule.Services}, here); !errors.Is(err, ErrNotJSON) {
		t.Error(err)
	}
}

func TestProblemsOfRulesHaveTheirLines(t *testing.T) {
	rules, err := filters.ParseRules("services: true\npods: nope")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Conditions(rules); err == nil || !strings.Contains(err.Error(), "rule of line 2: 1:1: undeclared reference") {
		t.Error(err)
	}
}
