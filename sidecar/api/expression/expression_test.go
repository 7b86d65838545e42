package expression

import (
	"strings"
	"testing"
)

func TestAnExpressionKeepsObjects(t *testing.T) {
	object := map[string]any{"metadata": map[string]any{"labels": map[string]any{"site": "a"}}, "spec": map[string]any{"replicas": 2.0}}
	node := map[string]any{"name": "edge-1", "labels": map[string]any{"site": "a"}, "pool": "p", "zone": ""}
	for text, want := range map[string]bool{
		"object.metadata.labels['site'] == node.labels['site']":                 true,
		"object.metadata.labels['site'] != node.labels['site']":                 false,
		"has(object.metadata.annotations) || node.pool == 'p'":                  true,
		"object.spec.replicas > 2":                                              false,
		"!('gone' in object.metadata.labels)":                                   true,
		"object.metadata.?labels['x'].orValue('') == ''":                        true,
		"node.name.startsWith('edge-') && size(object.metadata.labels) == 1":    true,
		"object.metadata.labels.all(k, k.matches('^[a-z]+$')) && true != false": true,
	} {
		p, err := Compile(text)
		if strings.Contains(text, "?labels") { // optional syntax is not enabled
			if err == nil {
				t.Errorf("%s: compiled", text)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := p.Keep(object, node); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

func TestABadExpressionIsRejectedWithItsPosition(t *testing.T) {
	for text, want := range map[string]string{
		"object.a ==":                    "1:12: ",
		"true &&\nnope":                  "2:1: undeclared reference",
		"1 + 1":                          "of type int",
		"'a'":                            "of type string",
		strings.Repeat("true||", 1000):   "4096 are allowed",
		"object.metadata.exec('rm -rf')": "1:21: ",
	} {
		if _, err := Compile(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAnExpressionThatCostsTooMuchOrHasNoResultFails(t *testing.T) {
	many := make([]any, 1000)
	for i := range many {
		many[i] = float64(i)
	}
	for _, text := range []string{
		"object.all(a, object.all(b, a + b >= 0.0))", // a million steps
		"object[2000] == 1",
		"object[0]",
	} {
		p, err := Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Keep(many, nil); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}
