package manifest

import (
	"bytes"
	"encoding/json"
	"reflect"

	yamlv3 "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// rewriteYAML returns nil if nothing changes.
func rewriteYAML(body []byte, change func(*Pod) (*corev1.Pod, error)) ([]byte, error) {
	object, err := yaml.YAMLToJSON(body)
	if err != nil {
		return nil, err
	}
	found, err := edits(object, change)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	want, err := patched(object, found)
	if err != nil {
		return nil, err
	}
	if text, err := edited(body, found); err == nil && same(text, want) {
		return text, nil
	}
	return yaml.JSONToYAML(want)
}

// edited applies the operations to the tree of the text.
func edited(body []byte, operations []operation) ([]byte, error) {
	var document yamlv3.Node
	if err := yamlv3.Unmarshal(body, &document); err != nil {
		return nil, err
	}
	for _, o := range operations {
		if err := apply(document.Content[0], o); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	encoder := yamlv3.NewEncoder(&out)
	encoder.SetIndent(2)
	if !indentsLists(&document) {
		encoder.CompactSeqIndent()
	}
	if err := encoder.Encode(&document); err != nil {
		return nil, err
	}
	return out.Bytes(), encoder.Close()
}

// indentsLists reports whether the first list in the text is indented relative to its key.
func indentsLists(n *yamlv3.Node) bool {
	for i, child := range n.Content {
		if n.Kind == yamlv3.MappingNode && i%2 == 1 && child.Kind == yamlv3.SequenceNode && child.Style&yamlv3.FlowStyle == 0 && child.Line > 0 {
			return child.Column > n.Content[i-1].Column
		}
		if indentsLists(child) {
			return true
		}
	}
	return false
}

// same reports whether kubectl's parser reads the text as the object.
func same(text, object []byte) bool {
	converted, err := yaml.YAMLToJSON(text)
	if err != nil {
		return false
	}
	var a, b any
	if json.Unmarshal(converted, &a) != nil || json.Unmarshal(object, &b) != nil {
		return false
	}
	return reflect.DeepEqual(a, b)
}
