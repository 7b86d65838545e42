package manifest

import (
	"bytes"
	"reflect"

	yamlv3 "go.yaml.in/yaml/v3"
)

// sequence changes, removes and inserts items. Items that mean the same, by their name or path, stay
// where they are.
func (e *editor) sequence(n *yamlv3.Node, have, want []any, wanted *yamlv3.Node) error {
	if len(n.Content) != len(have) || len(wanted.Content) != len(want) {
		return errLayout
	}
	stays := align(have, want)
	kept := 0
	for _, j := range stays {
		if j >= 0 {
			kept++
		}
	}
	if kept == 0 {
		return errReplace
	}
	if flow(n) {
		if err := e.removeFromFlow(n, 1, func(i int) bool { return stays[i] >= 0 }); err != nil {
			return err
		}
	}
	next := 0 // of want
	for i, item := range n.Content {
		j := stays[i]
		if j < 0 {
			if err := e.removeItem(n, i); err != nil {
				return err
			}
			continue
		}
		if err := e.insertItems(n, i, wanted.Content[next:j]); err != nil {
			return err
		}
		next = j + 1
		mark := len(e.edits)
		switch err := e.value(item, have[i], want[j], wanted.Content[j]); {
		case err == errReplace:
			e.edits = e.edits[:mark]
			if err := e.replaceItem(n, i, wanted.Content[j]); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
	return e.insertItems(n, len(n.Content), wanted.Content[next:])
}

// align returns for each item of have the index of the item of want that it becomes, or -1. The
// indexes ascend.
func align(have, want []any) []int {
	// best[i][j] is the most that can stay of have[i:] in want[j:].
	best := make([][]int, len(have)+1)
	for i := range best {
		best[i] = make([]int, len(want)+1)
	}
	for i := len(have) - 1; i >= 0; i-- {
		for j := len(want) - 1; j >= 0; j-- {
			best[i][j] = max(best[i+1][j], best[i][j+1])
			if s := similarity(have[i], want[j]); s > 0 {
				best[i][j] = max(best[i][j], best[i+1][j+1]+s)
			}
		}
	}
	stays := make([]int, len(have))
	j := 0
	for i := range have {
		stays[i] = -1
		for k := j; k < len(want); k++ {
			if s := similarity(have[i], want[k]); s > 0 && best[i][j] == best[i+1][k+1]+s && best[i][k] == best[i][j] {
				stays[i], j = k, k+1
				break
			}
			if best[i][k] != best[i][j] {
				break
			}
		}
	}
	return stays
}

// similarity is 2 for equal items, 1 for items with the same name, and 0 for others.
func similarity(have, want any) int {
	if reflect.DeepEqual(have, want) {
		return 2
	}
	a, isMap := have.(map[string]any)
	b, areMaps := want.(map[string]any)
	if !isMap || !areMaps {
		return 0
	}
	// The merge keys of lists in pods.
	for _, key := range []string{"mountPath", "name", "ip", "key", "kind"} {
		if a[key] != nil && b[key] != nil {
			if reflect.DeepEqual(a[key], b[key]) {
				return 1
			}
			return 0
		}
	}
	return 0
}

func (e *editor) insertItems(n *yamlv3.Node, i int, items []*yamlv3.Node) error {
	if len(items) == 0 {
		return nil
	}
	if flow(n) {
		if i == len(n.Content) {
			last, err := e.end(n.Content[i-1])
			if err != nil {
				return err
			}
			return e.addToFlow(last, list(items...))
		}
		at, err := e.offset(n.Content[i])
		if err != nil {
			return err
		}
		text, err := e.inline(list(items...))
		if err == nil {
			e.edits = append(e.edits, edit{at, at, text[1:len(text)-1] + ", "})
		}
		return err
	}
	first, err := e.ownLine(n.Content[0])
	if err != nil {
		return err
	}
	column := e.column(first)
	lines, err := e.block(list(items...), column)
	if err != nil {
		return err
	}
	if i == 0 {
		// Comments above the first item are about that item.
		at := e.lineStart(first)
		for at > 0 {
			above := bytes.TrimSpace(e.text[e.lineStart(at-1):at])
			if len(above) == 0 || above[0] != '#' {
				break
			}
			at = e.lineStart(at - 1)
		}
		e.insertLines(at, lines)
		return nil
	}
	end, err := e.end(n.Content[i-1])
	if err != nil {
		return err
	}
	e.insertLines(e.after(end, column+1), lines)
	return nil
}

// ownLine returns the offset of the dash of an item, which is the first on its line.
func (e *editor) ownLine(item *yamlv3.Node) (int, error) {
	at, err := e.dash(item)
	if err == nil && len(bytes.TrimSpace(e.text[e.lineStart(at):at])) > 0 {
		err = errReplace // a list directly in a list
	}
	return at, err
}

// removeItem removes an item of a block sequence.
func (e *editor) removeItem(n *yamlv3.Node, i int) error {
	if flow(n) {
		return nil // removeFromFlow has done it
	}
	end, err := e.end(n.Content[i])
	if err != nil {
		return err
	}
	dash, err := e.ownLine(n.Content[i])
	e.edits = append(e.edits, edit{e.lineStart(dash), e.lineEnd(end), ""})
	return err
}

func (e *editor) replaceItem(n *yamlv3.Node, i int, value *yamlv3.Node) error {
	end, err := e.end(n.Content[i])
	if err != nil {
		return err
	}
	if flow(n) {
		from, err := e.offset(n.Content[i])
		if err != nil {
			return err
		}
		text, err := e.inFlow(value)
		e.edits = append(e.edits, edit{from, end, text})
		return err
	}
	dash, err := e.ownLine(n.Content[i])
	if err != nil {
		return err
	}
	lines, err := e.block(list(value), e.column(dash))
	e.edits = append(e.edits, edit{e.lineStart(dash), e.lineEnd(end), lines})
	return err
}
