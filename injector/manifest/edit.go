package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"reflect"
	"slices"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
)

// edit replaces a part of the text. An insertion has an empty part.
type edit struct {
	from, to int
	text     string
}

// editor collects the edits that make a document mean something else, and leave all other bytes as
// they are. Each method takes a node of the text, have: what kubectl reads there, and want: what it
// is to read, with the order of the keys in wanted.
type editor struct {
	*layout
	style
	edits []edit
}

// apply returns the changed text.
func (e *editor) apply() ([]byte, error) {
	slices.SortStableFunc(e.edits, func(a, b edit) int { return cmp.Compare(a.from, b.from) })
	var out bytes.Buffer
	at := 0
	for _, change := range e.edits {
		if change.from < at {
			return nil, errLayout
		}
		out.Write(e.text[at:change.from])
		if text := out.Bytes(); change.from == e.lineStart(change.from) && len(text) > 0 && text[len(text)-1] != '\n' {
			out.WriteString(e.lineBreak)
		}
		out.WriteString(change.text)
		at = change.to
	}
	out.Write(e.text[at:])
	return out.Bytes(), nil
}

// insertLines inserts whole lines at the start of a line, or after a last line without a line break.
func (e *editor) insertLines(at int, lines string) {
	if at == len(e.text) && !bytes.HasSuffix(e.text, []byte("\n")) {
		lines = e.lineBreak + strings.TrimSuffix(lines, e.lineBreak)
	}
	e.edits = append(e.edits, edit{at, at, lines})
}

func (e *editor) value(n *yamlv3.Node, have, want any, wanted *yamlv3.Node) error {
	if reflect.DeepEqual(have, want) {
		return nil
	}
	switch want := want.(type) {
	case map[string]any:
		if have, ok := have.(map[string]any); ok && n.Kind == yamlv3.MappingNode && len(n.Content) > 0 && len(want) > 0 {
			return e.mapping(n, have, want, wanted)
		}
	case []any:
		if have, ok := have.([]any); ok && n.Kind == yamlv3.SequenceNode && len(n.Content) > 0 && len(want) > 0 {
			return e.sequence(n, have, want, wanted)
		}
	}
	return errReplace
}

// errReplace means that the value must be replaced as a whole.
var errReplace = &replaceError{}

type replaceError struct{}

func (*replaceError) Error() string { return "the value must be replaced as a whole" }

// mapping changes, removes and adds keys.
func (e *editor) mapping(n *yamlv3.Node, have, want map[string]any, wanted *yamlv3.Node) error {
	explicit := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		explicit[n.Content[i].Value] = true
	}
	for key := range have {
		if _, stays := want[key]; !stays && !explicit[key] {
			return errReplace // a key that << has merged cannot be removed
		}
	}
	removed := 0
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i].Value
		was, ok := have[key]
		if !ok {
			continue // <<
		}
		wantedValue := valueOf(wanted, key)
		if wantedValue == nil {
			if removed++; removed*2 == len(n.Content) {
				return errReplace
			}
			if flow(n) {
				continue // below
			}
			if err := e.removePair(n, i); err != nil {
				return err
			}
			continue
		}
		mark := len(e.edits)
		switch err := e.value(n.Content[i+1], was, want[key], wantedValue); {
		case err == errReplace:
			e.edits = e.edits[:mark]
			if err := e.replaceValue(n, i, wantedValue); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
	if flow(n) && removed > 0 {
		stays := func(i int) bool {
			_, known := have[n.Content[2*i].Value]
			return !known || valueOf(wanted, n.Content[2*i].Value) != nil
		}
		if err := e.removeFromFlow(n, 2, stays); err != nil {
			return err
		}
	}
	for i := 0; i+1 < len(wanted.Content); i += 2 {
		key := wanted.Content[i].Value
		if explicit[key] || reflect.DeepEqual(have[key], want[key]) {
			continue
		}
		if err := e.addPair(n, key, wanted.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func valueOf(n *yamlv3.Node, key string) *yamlv3.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// keyColumn returns the column of the keys of a block mapping.
func (e *editor) keyColumn(n *yamlv3.Node) (int, error) {
	at, err := e.offset(n.Content[0])
	return e.column(at), err
}

func (e *editor) addPair(n *yamlv3.Node, key string, value *yamlv3.Node) error {
	last, err := e.end(n.Content[len(n.Content)-1])
	if err != nil {
		return err
	}
	if flow(n) {
		return e.addToFlow(last, pair(key, value))
	}
	column, err := e.keyColumn(n)
	if err != nil {
		return err
	}
	lines, err := e.block(pair(key, value), column)
	e.insertLines(e.after(last, column), lines)
	return err
}

// addToFlow adds the content of a collection after the last element of a flow collection.
func (e *editor) addToFlow(at int, value *yamlv3.Node) error {
	text, err := e.inline(value)
	if err == nil {
		e.edits = append(e.edits, edit{at, at, ", " + text[1:len(text)-1]})
	}
	return err
}

// removePair removes a key of a block mapping and its value.
func (e *editor) removePair(n *yamlv3.Node, i int) error {
	from, err := e.offset(n.Content[i])
	if err != nil {
		return err
	}
	end, err := e.end(n.Content[i+1])
	if err != nil {
		return err
	}
	if start := e.lineStart(from); len(bytes.TrimSpace(e.text[start:from])) == 0 {
		e.edits = append(e.edits, edit{start, e.lineEnd(end), ""})
		return nil
	}
	// The first key stands behind a dash: the next one takes its place.
	if i+2 >= len(n.Content) {
		return errReplace
	}
	next, err := e.offset(n.Content[i+2])
	e.edits = append(e.edits, edit{from, next, ""})
	return err
}

// removeFromFlow removes the elements of a flow collection that do not stay, each with a comma beside
// it. An element has width nodes. At least one stays.
func (e *editor) removeFromFlow(n *yamlv3.Node, width int, stays func(element int) bool) error {
	elements := len(n.Content) / width
	for first := 0; first < elements; first++ {
		if stays(first) {
			continue
		}
		last := first
		for last+1 < elements && !stays(last+1) {
			last++
		}
		var from, to int
		var err, err2 error
		if first > 0 {
			from, err = e.end(n.Content[first*width-1])
			to, err2 = e.end(n.Content[(last+1)*width-1])
		} else {
			if last+1 == elements {
				return errReplace
			}
			from, err = e.offset(n.Content[0])
			to, err2 = e.offset(n.Content[(last+1)*width])
		}
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		e.edits = append(e.edits, edit{from, to, ""})
		first = last
	}
	return nil
}

// replaceValue replaces the value of the i-th node of a mapping, which is a key.
func (e *editor) replaceValue(n *yamlv3.Node, i int, value *yamlv3.Node) error {
	key, old := n.Content[i], n.Content[i+1]
	keyEnd, err := e.endOfKey(key)
	if err != nil {
		return err
	}
	from, end := keyEnd, keyEnd
	if absent := old.Kind == yamlv3.ScalarNode && old.Value == "" && old.Style == 0 && old.Anchor == ""; !absent {
		if from, err = e.offset(old); err != nil {
			return err
		}
		if end, err = e.end(old); err != nil {
			return err
		}
	}
	if quotes := old.Style & (yamlv3.SingleQuotedStyle | yamlv3.DoubleQuotedStyle); quotes != 0 && value.Kind == yamlv3.ScalarNode && value.Tag == "!!str" {
		quoted := *value
		quoted.Style = quotes
		value = &quoted
	}
	sameLine := from == keyEnd || e.lineStart(from) == e.lineStart(keyEnd)
	if flow(n) || len(value.Content) == 0 {
		render := e.inline
		if flow(n) {
			render = e.inFlow
		}
		text, err := render(value)
		if from == keyEnd || !sameLine {
			from, text = keyEnd, " "+text
		}
		e.edits = append(e.edits, edit{from, end, text})
		return err
	}
	indent, err := e.keyColumn(n)
	if err != nil {
		return err
	}
	if value.Kind != yamlv3.SequenceNode || e.indentLists {
		indent += 2
	}
	lines, err := e.block(value, indent)
	if err != nil {
		return err
	}
	if sameLine { // a comment on the line of the key stays there
		e.edits = append(e.edits, edit{keyEnd, end, ""})
		e.insertLines(e.lineEnd(end), lines)
		return nil
	}
	e.edits = append(e.edits, edit{e.lineEnd(keyEnd), e.lineEnd(end), lines})
	return nil
}

// endOfKey returns the offset after the colon of a key.
func (e *editor) endOfKey(key *yamlv3.Node) (int, error) {
	at, err := e.offset(key)
	if err != nil {
		return 0, err
	}
	if key.Style&(yamlv3.DoubleQuotedStyle|yamlv3.SingleQuotedStyle) != 0 {
		at, err = endOfQuoted(e.text, at)
	} else {
		at += len(key.Value)
	}
	colon := bytes.IndexByte(e.text[min(at, len(e.text)):], ':')
	if err != nil || colon < 0 || len(bytes.TrimSpace(e.text[at:at+colon])) > 0 {
		return 0, errLayout
	}
	return at + colon + 1, nil
}
