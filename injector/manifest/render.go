package manifest

import (
	"bytes"
	"errors"
	"strings"
	"unicode"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// style is how new parts of a document look.
type style struct {
	indentLists bool   // relative to their key
	lineBreak   string // \n or \r\n
}

// styleOf returns the style of the text.
func styleOf(text []byte, root *yamlv3.Node) style {
	s := style{indentLists: indentsLists(root), lineBreak: "\n"}
	if i := bytes.IndexByte(text, '\n'); i > 0 && text[i-1] == '\r' {
		s.lineBreak = "\r\n"
	}
	return s
}

// indentsLists reports whether the first list in the text is indented relative to its key.
func indentsLists(n *yamlv3.Node) bool {
	for i, child := range n.Content {
		if n.Kind == yamlv3.MappingNode && i%2 == 1 && child.Kind == yamlv3.SequenceNode && !flow(child) && child.Line > n.Content[i-1].Line {
			return child.Column > n.Content[i-1].Column
		}
		if indentsLists(child) {
			return true
		}
	}
	return false
}

// block renders a value as lines, each after this many spaces.
func (s style) block(value *yamlv3.Node, indent int) (string, error) {
	var out bytes.Buffer
	encoder := yamlv3.NewEncoder(&out)
	encoder.SetIndent(2)
	if !s.indentLists {
		encoder.CompactSeqIndent()
	}
	if err := errors.Join(encoder.Encode(value), encoder.Close()); err != nil {
		return "", err
	}
	var text strings.Builder
	for line := range strings.Lines(out.String()) {
		text.WriteString(strings.Repeat(" ", indent) + strings.TrimSuffix(line, "\n") + s.lineBreak)
	}
	return text.String(), nil
}

// inline renders a value on one line.
func (s style) inline(value *yamlv3.Node) (string, error) {
	flowing := *value
	if value.Kind != yamlv3.ScalarNode {
		flowing.Style |= yamlv3.FlowStyle
	}
	text, err := s.block(&flowing, 0)
	text = strings.TrimSuffix(text, s.lineBreak)
	if err == nil && strings.Contains(text, "\n") {
		err = errLayout
	}
	return text, err
}

// inFlow renders a value for a place in a flow collection, where commas and brackets end a plain
// scalar.
func (s style) inFlow(value *yamlv3.Node) (string, error) {
	text, err := s.inline(list(value))
	if err != nil {
		return "", err
	}
	return text[1 : len(text)-1], nil
}

func pair(key string, value *yamlv3.Node) *yamlv3.Node {
	return &yamlv3.Node{Kind: yamlv3.MappingNode, Tag: "!!map", Content: []*yamlv3.Node{stringNode(key), value}}
}

func list(items ...*yamlv3.Node) *yamlv3.Node {
	return &yamlv3.Node{Kind: yamlv3.SequenceNode, Tag: "!!seq", Content: items}
}

// parse parses a document, which has one value.
func parse(text []byte) (*yamlv3.Node, error) {
	var document yamlv3.Node
	if err := yamlv3.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	if len(document.Content) != 1 {
		return nil, errors.New("no value")
	}
	return document.Content[0], nil
}

// node parses a JSON value, which is also YAML, and gives it the style of a manifest.
func node(value []byte) (*yamlv3.Node, error) {
	n, err := parse(value)
	if err != nil {
		return nil, err
	}
	plain(n)
	return n, nil
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
