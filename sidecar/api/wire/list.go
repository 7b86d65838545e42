package wire

import (
	"bytes"
	"fmt"
)

// ListMeta is the data of a list apart from its items.
type ListMeta struct {
	Kind, APIVersion string
	// ResourceVersion and Continue are the list's metadata of that name.
	ResourceVersion, Continue string
	// Metadata is the list's complete metadata as JSON, or nil.
	Metadata []byte
	// HasItems means that the document has a member "items", which may be null. A document without
	// it (a Table, a Status) is not a list.
	HasItems bool
}

// List splits a JSON list into its items while it is written. Create it with an Item function. The
// result does not depend on the sizes of the writes.
type List struct {
	// Item receives the bytes of each item. They are valid only during the call. An error of Item
	// stops the splitting.
	Item func(raw []byte) error

	rows    bool // the rows of a Table count as items
	state   listState
	val     value
	buf     []byte // the unfinished key or value
	key     string
	meta    ListMeta
	failure error
}

type listState uint8

const (
	atStart    listState = iota // before {
	atKey                       // before a key or }
	inKey                       // inside a key
	atColon                     // before the colon
	atValue                     // before a member's value
	inValue                     // inside a member's value
	afterValue                  // before , or }
	atItem                      // before an item or ]
	inItem                      // inside an item
	afterItem                   // before , or ]
	atEnd                       // after the closing }
)

// Write takes the next bytes of the body. After an error it always returns that error.
func (l *List) Write(p []byte) (int, error) {
	if l.failure != nil {
		return 0, l.failure
	}
	total := len(p)
	for len(p) > 0 {
		n, err := l.step(p)
		if err != nil {
			l.failure = err
			return total - len(p), err
		}
		p = p[n:]
	}
	return total, nil
}

// ListMeta returns the list's own data after the end of the body. It returns an error if the body
// was truncated.
func (l *List) ListMeta() (ListMeta, error) {
	if l.failure != nil {
		return ListMeta{}, l.failure
	}
	if l.state != atEnd {
		return ListMeta{}, ErrTruncated
	}
	return l.meta, nil
}

// Peek returns the list's own data read so far: typed lists have kind, apiVersion and metadata
// before their items.
func (l *List) Peek() ListMeta { return l.meta }

// step consumes bytes of p. It consumes at least one byte or changes the state.
func (l *List) step(p []byte) (int, error) {
	switch l.state {
	case inKey, inValue, inItem:
		return l.collect(p)
	}
	if n := skipSpace(p); n > 0 {
		return n, nil
	}
	c := p[0]
	switch l.state {
	case atStart:
		return l.expect(c, '{', atKey)
	case atKey:
		switch c {
		case '}':
			l.state = atEnd
			return 1, nil
		case ',':
			return 1, nil
		}
		if c != '"' {
			return 0, fmt.Errorf("%w: a key was expected, not %q", errSyntax, c)
		}
		l.state = inKey
		return 0, nil
	case atColon:
		return l.expect(c, ':', atValue)
	case atValue:
		if l.key == "items" || l.rows && l.key == "rows" {
			l.meta.HasItems = true
			switch c {
			case '[':
				l.state = atItem
				return 1, nil
			case 'n': // null
			default:
				return 0, fmt.Errorf("%w: an array was expected, not %q", errSyntax, c)
			}
		}
		l.state = inValue
		return 0, nil
	case afterValue:
		if c == ',' || c == '}' {
			l.state = atKey
			return 0, nil
		}
	case atItem, afterItem:
		if c == ']' {
			l.state = afterValue
			return 1, nil
		}
		if c == ',' {
			l.state = atItem
			return 1, nil
		}
		if l.state == atItem {
			l.state = inItem
			return 0, nil
		}
	}
	return 0, fmt.Errorf("%w: unexpected %q", errSyntax, c)
}

func (l *List) expect(c, want byte, next listState) (int, error) {
	if c != want {
		return 0, fmt.Errorf("%w: %q was expected, not %q", errSyntax, want, c)
	}
	l.state = next
	return 1, nil
}

// collect adds bytes to the unfinished value and, once it is complete, calls finish. A value that
// is complete in p is not copied.
func (l *List) collect(p []byte) (int, error) {
	n, done, err := l.val.feed(p)
	if err != nil {
		return 0, err
	}
	if len(l.buf)+n > MaxValue {
		return 0, ErrTooLarge
	}
	if !done {
		l.buf = append(l.buf, p[:n]...)
		return n, nil
	}
	complete := p[:n]
	if len(l.buf) > 0 {
		l.buf = append(l.buf, p[:n]...)
		complete = l.buf
	}
	err = l.finish(complete)
	l.buf = l.buf[:0]
	return n, err
}

func (l *List) finish(raw []byte) (err error) {
	switch l.state {
	case inKey:
		l.state = atColon
		l.key, err = Unquote(raw)
		return err
	case inItem:
		l.state = afterItem
		return l.Item(raw)
	}
	l.state = afterValue
	switch l.key {
	case "kind":
		l.meta.Kind, err = Unquote(raw)
	case "apiVersion":
		l.meta.APIVersion, err = Unquote(raw)
	case "metadata":
		l.meta.Metadata = bytes.Clone(raw)
		err = Members(raw, func(key string, val []byte) (err error) {
			switch key {
			case "resourceVersion":
				l.meta.ResourceVersion, err = Unquote(val)
			case "continue":
				l.meta.Continue, err = Unquote(val)
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", l.key, err)
	}
	return nil
}
