package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// apply applies one operation of a JSON patch to a tree. An error means that the tree differs
// from the JSON of the text, for example because of aliases.
func apply(root *yamlv3.Node, o operation) error {
	switch o.Op {
	case "add":
		value, err := node(o.Value)
		if err != nil {
			return err
		}
		return add(root, o.Path, value)
	case "replace":
		value, err := node(o.Value)
		if err != nil {
			return err
		}
		n, step, err := parent(root, o.Path, false)
		if err != nil {
			return err
		}
		old := child(n, step)
		if old == nil {
			return fmt.Errorf("%s: not found", o.Path)
		}
		value.HeadComment, value.LineComment, value.FootComment = old.HeadComment, old.LineComment, old.FootComment
		*old = *value
		return nil
	case "remove":
		_, err := remove(root, o.Path)
		return err
	case "move":
		moved, err := remove(root, o.From)
		if err != nil {
			return err
		}
		return add(root, o.Path, moved)
	}
	return fmt.Errorf("unknown operation %q", o.Op)
}

var unescape = strings.NewReplacer("~1", "/", "~0", "~")

// parent returns the node that contains the last step of a JSON pointer (RFC 6901), and that
// step. With create, it adds missing mappings on the path.
func parent(root *yamlv3.Node, path string, create bool) (*yamlv3.Node, string, error) {
	steps := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i := range steps {
		steps[i] = unescape.Replace(steps[i])
	}
	n := root
	for i, step := range steps[:len(steps)-1] {
		next := child(n, step)
		if next == nil && create && n.Kind == yamlv3.MappingNode {
			next = &yamlv3.Node{Kind: yamlv3.MappingNode, Tag: "!!map"}
			n.Content = append(n.Content, stringNode(step), next)
		}
		if next == nil || next.Kind != yamlv3.MappingNode && next.Kind != yamlv3.SequenceNode {
			return nil, "", fmt.Errorf("%s: not found", strings.Join(steps[:i+1], "."))
		}
		n = next
	}
	return n, steps[len(steps)-1], nil
}

func child(n *yamlv3.Node, step string) *yamlv3.Node {
	if n.Kind == yamlv3.MappingNode {
		if i := keyIndex(n, step); i >= 0 {
			return n.Content[i+1]
		}
		return nil
	}
	if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.Content) {
		return n.Content[i]
	}
	return nil
}

// keyIndex returns the index of the key in the mapping's content, or -1.
func keyIndex(n *yamlv3.Node, key string) int {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return i
		}
	}
	return -1
}

func add(root *yamlv3.Node, path string, value *yamlv3.Node) error {
	n, step, err := parent(root, path, true)
	if err != nil {
		return err
	}
	if n.Kind == yamlv3.MappingNode {
		// An empty {} becomes a block mapping.
		if len(n.Content) == 0 {
			n.Style = 0
		}
		if i := keyIndex(n, step); i >= 0 {
			n.Content[i+1] = value
		} else {
			n.Content = append(n.Content, stringNode(step), value)
		}
		return nil
	}
	i, err := strconv.Atoi(step)
	if err != nil || i < 0 || i > len(n.Content) {
		return fmt.Errorf("%s: not found", path)
	}
	if len(n.Content) == 0 {
		n.Style = 0
	}
	n.Content = slices.Insert(n.Content, i, value)
	return nil
}

func remove(root *yamlv3.Node, path string) (*yamlv3.Node, error) {
	n, step, err := parent(root, path, false)
	if err != nil {
		return nil, err
	}
	if n.Kind == yamlv3.MappingNode {
		i := keyIndex(n, step)
		if i < 0 {
			return nil, fmt.Errorf("%s: not found", path)
		}
		removed := n.Content[i+1]
		n.Content = slices.Delete(n.Content, i, i+2)
		return removed, nil
	}
	i, err := strconv.Atoi(step)
	if err != nil || i < 0 || i >= len(n.Content) {
		return nil, fmt.Errorf("%s: not found", path)
	}
	removed := n.Content[i]
	n.Content = slices.Delete(n.Content, i, i+1)
	return removed, nil
}

// node parses a JSON value, which is also YAML, and gives it the style of a manifest.
func node(value []byte) (*yamlv3.Node, error) {
	var document yamlv3.Node
	if err := yamlv3.Unmarshal(value, &document); err != nil {
		return nil, err
	}
	if len(document.Content) != 1 {
		return nil, errors.New("no value")
	}
	plain(document.Content[0])
	return document.Content[0], nil
}

func plain(n *yamlv3.Node) {
	n.Style = 0
	if n.Kind == yamlv3.ScalarNode && n.Tag == "!!str" {
		n.Style = stringStyle(n.Value)
	}
	for _, c := range n.Content {
		plain(c)
	}
}

func stringNode(value string) *yamlv3.Node {
	return &yamlv3.Node{Kind: yamlv3.ScalarNode, Tag: "!!str", Value: value, Style: stringStyle(value)}
}

// stringStyle quotes strings that kubectl's parser, which reads YAML 1.1, would take for another
// type: yes, on, 1_000.
func stringStyle(value string) yamlv3.Style {
	var read any
	if err := yaml.Unmarshal([]byte(value), &read); err == nil {
		if s, ok := read.(string); ok && s == value {
			return 0
		}
	}
	if strings.Contains(value, `"`) && !strings.ContainsFunc(value, unicode.IsControl) {
		return yamlv3.SingleQuotedStyle
	}
	return yamlv3.DoubleQuotedStyle
}
