package manifest

import (
	"bytes"
	"errors"
	"unicode/utf8"

	yamlv3 "go.yaml.in/yaml/v3"
)

// layout knows where the nodes of a YAML document are in its text.
type layout struct {
	text  []byte
	lines []int // the offset of each line
	next  map[*yamlv3.Node]int
}

// errLayout means that the text has a form that the layout does not understand.
var errLayout = errors.New("this part of the text cannot be changed in place")

func newLayout(text []byte, root *yamlv3.Node) (*layout, error) {
	l := &layout{text: text, lines: []int{0}, next: map[*yamlv3.Node]int{}}
	for i, b := range text {
		if b == '\n' {
			l.lines = append(l.lines, i+1)
		}
	}
	return l, l.follow(root, l.documentEnd())
}

// documentEnd is the offset of the line that ends the document (...), or of the end of the text.
func (l *layout) documentEnd() int {
	for _, at := range l.lines {
		if bytes.HasPrefix(l.text[at:], []byte("...")) {
			return at
		}
	}
	return len(l.text)
}

// follow records for each node below n the offset of what comes after it. after is that of n.
func (l *layout) follow(n *yamlv3.Node, after int) error {
	l.next[n] = after
	for i, child := range n.Content {
		following := after
		if i+1 < len(n.Content) {
			var err error
			if following, err = l.begin(n, i+1); err != nil {
				return err
			}
		}
		if err := l.follow(child, following); err != nil {
			return err
		}
	}
	return nil
}

// begin returns the offset at which the i-th child of n begins: an item of a block sequence begins
// at its dash.
func (l *layout) begin(n *yamlv3.Node, i int) (int, error) {
	if n.Kind == yamlv3.SequenceNode && !flow(n) {
		return l.dash(n.Content[i])
	}
	return l.offset(n.Content[i])
}

func flow(n *yamlv3.Node) bool { return n.Style&yamlv3.FlowStyle != 0 }

// offset returns where the node starts: its anchor or tag, if it has one.
func (l *layout) offset(n *yamlv3.Node) (int, error) {
	if n.Line < 1 || n.Line > len(l.lines) || n.Column < 1 {
		return 0, errLayout
	}
	at := l.lines[n.Line-1]
	for range n.Column - 1 {
		if at >= len(l.text) {
			return 0, errLayout
		}
		_, size := utf8.DecodeRune(l.text[at:])
		at += size
	}
	return at, nil
}

// dash returns the offset of the dash before an item.
func (l *layout) dash(item *yamlv3.Node) (int, error) {
	at, err := l.offset(item)
	if err != nil {
		return 0, err
	}
	for {
		before := bytes.TrimRight(l.text[:at], " \t\r\n")
		start := bytes.LastIndexByte(before, '\n') + 1
		if comment := commentIn(before[start:]); comment >= 0 {
			if at = start + comment; len(bytes.TrimSpace(before[start:at])) > 0 {
				continue // "- # comment"
			}
			continue
		}
		if len(before) == 0 || before[len(before)-1] != '-' {
			return 0, errLayout
		}
		return len(before) - 1, nil
	}
}

// commentIn returns the offset of the comment in a line, or -1. A # within quotes counts as a
// comment; no dash precedes such a text.
func commentIn(line []byte) int {
	for i, b := range line {
		if b == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			return i
		}
	}
	return -1
}

// lineStart returns the offset of the line of at.
func (l *layout) lineStart(at int) int { return bytes.LastIndexByte(l.text[:at], '\n') + 1 }

// lineEnd returns the offset after the line of at, its line break included.
func (l *layout) lineEnd(at int) int {
	if i := bytes.IndexByte(l.text[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(l.text)
}

// column is the number of bytes between the line's start and at.
func (l *layout) column(at int) int { return at - l.lineStart(at) }

// indentation is the number of spaces at the start of the line of at.
func (l *layout) indentation(at int) int {
	start := l.lineStart(at)
	return len(l.text[start:]) - len(bytes.TrimLeft(l.text[start:], " "))
}

// end returns the offset after the last byte of a value.
func (l *layout) end(n *yamlv3.Node) (int, error) {
	at, err := l.offset(n)
	if err != nil {
		return 0, err
	}
	if len(n.Content) > 0 && !flow(n) {
		return l.end(n.Content[len(n.Content)-1])
	}
	limit := l.next[n]
	if limit < at {
		return 0, errLayout
	}
	if n.Style&(yamlv3.LiteralStyle|yamlv3.FoldedStyle) != 0 {
		return l.endOfBlock(at, limit), nil
	}
	at = l.skipProperties(at, n)
	switch {
	case flow(n) || n.Kind == yamlv3.MappingNode || n.Kind == yamlv3.SequenceNode:
		return l.endOfFlow(at)
	case n.Style&(yamlv3.DoubleQuotedStyle|yamlv3.SingleQuotedStyle) != 0:
		return endOfQuoted(l.text, at)
	}
	return l.endOfPlain(at, limit), nil
}

// skipProperties returns the offset after the anchor and tag of a node.
func (l *layout) skipProperties(at int, n *yamlv3.Node) int {
	for n.Kind != yamlv3.AliasNode && at < len(l.text) && (l.text[at] == '&' || l.text[at] == '!') {
		for at < len(l.text) && !bytes.ContainsRune([]byte(" \t\r\n"), rune(l.text[at])) {
			at++
		}
		for at < len(l.text) && bytes.ContainsRune([]byte(" \t\r\n"), rune(l.text[at])) {
			at++
		}
	}
	return at
}

// endOfBlock returns the end of a literal or folded scalar: its last line that is not blank, and
// that is more indented than the line on which it begins. Comments after it are not.
func (l *layout) endOfBlock(at, limit int) int {
	parent, end := l.indentation(at), l.lineEnd(at)
	for line := end; line < limit; line = l.lineEnd(line) {
		text := bytes.TrimSpace(l.text[line:min(l.lineEnd(line), limit)])
		if len(text) > 0 && text[0] == '#' && l.indentation(line) <= parent {
			break
		}
		if len(text) > 0 {
			end = l.lineEnd(line)
		}
	}
	return min(end, limit) - len(lineBreak(l.text[:min(end, limit)]))
}

// lineBreak returns the line break at the end of a text.
func lineBreak(text []byte) []byte {
	return text[len(bytes.TrimRight(text, "\r\n")):]
}

// endOfPlain returns the end of a plain scalar or an alias before limit.
func (l *layout) endOfPlain(at, limit int) int {
	end := at
	for line := at; line < limit; line = l.lineEnd(line) {
		text := l.text[line:min(l.lineEnd(line), limit)]
		if comment := commentIn(text); comment >= 0 {
			text = text[:comment]
		}
		text = bytes.TrimRight(text, " \t\r\n")
		if len(bytes.TrimLeft(text, " \t")) == 0 {
			break
		}
		end = line + len(text)
		if line+len(text) < min(l.lineEnd(line), limit) && commentIn(l.text[line:min(l.lineEnd(line), limit)]) >= 0 {
			break
		}
	}
	// In a flow collection, or as a key, the separator follows.
	return at + len(bytes.TrimRight(l.text[at:end], ",:]} \t\r\n"))
}

func endOfQuoted(text []byte, at int) (int, error) {
	quote := text[at]
	if quote != '"' && quote != '\'' {
		return 0, errLayout
	}
	for i := at + 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quote == '"':
			i++
		case text[i] == quote && quote == '\'' && i+1 < len(text) && text[i+1] == quote:
			i++
		case text[i] == quote:
			return i + 1, nil
		}
	}
	return 0, errLayout
}

// endOfFlow returns the offset after the bracket that closes the one at at.
func (l *layout) endOfFlow(at int) (int, error) {
	depth := 0
	for i := at; i < len(l.text); i++ {
		switch b := l.text[i]; {
		case b == '{' || b == '[':
			depth++
		case b == '}' || b == ']':
			if depth--; depth == 0 {
				return i + 1, nil
			}
		case depth == 0:
			return 0, errLayout
		case (b == '"' || b == '\'') && bytes.ContainsRune([]byte(" \t\r\n{[,:"), rune(l.text[i-1])):
			end, err := endOfQuoted(l.text, i)
			if err != nil {
				return 0, err
			}
			i = end - 1
		case b == '#' && bytes.ContainsRune([]byte(" \t\r\n"), rune(l.text[i-1])):
			i = l.lineEnd(i) - 1
		}
	}
	return 0, errLayout
}

// after returns the offset of the line after a value that ends at end, in a block collection with
// this column. Comments that follow, and are indented as much, belong to the value.
func (l *layout) after(end, column int) int {
	at := l.lineEnd(end)
	for at < len(l.text) {
		text := bytes.TrimLeft(l.text[at:l.lineEnd(at)], " ")
		if len(text) == 0 || text[0] != '#' || l.indentation(at) < column {
			break
		}
		at = l.lineEnd(at)
	}
	return at
}
