package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field is the path to one scalar in an object, in each format.
type Field struct {
	Members []string           // keys of JSON objects, outermost first
	Numbers []protowire.Number // field numbers of protobuf messages, outermost first
	Type    FieldType
}

// FieldType is the type of a field.
type FieldType uint8

// The types. A field that is not set has the zero value of its type, as in Go.
const (
	Text FieldType = iota
	Boolean
	Integer
)

// zero returns the text of a field that is not set.
func (t FieldType) zero() string {
	switch t {
	case Boolean:
		return "false"
	case Integer:
		return "0"
	}
	return ""
}

var errFound = errors.New("found")

func (jsonFormat) Lookup(item []byte, f Field) (string, error) {
	raw := item
	for _, name := range f.Members {
		var next []byte
		err := Members(raw, func(key string, val []byte) error {
			if key != name {
				return nil
			}
			next = val
			return errFound
		})
		if err != nil && !errors.Is(err, errFound) {
			return "", fmt.Errorf("field %s: %w", name, err)
		}
		if next == nil || bytes.Equal(next, []byte("null")) {
			return f.Type.zero(), nil
		}
		raw = next
	}
	if f.Type == Text {
		return Unquote(raw)
	}
	if _, err := strconv.ParseInt(string(raw), 10, 64); f.Type == Integer && err != nil {
		return "", fmt.Errorf("%w: an integer was expected", errSyntax)
	}
	if text := string(raw); f.Type == Integer || text == "true" || text == "false" {
		return text, nil
	}
	return "", fmt.Errorf("%w: true or false was expected", errSyntax)
}

// Lookup follows protobuf's rules for repeated fields: of several values the last one counts, and
// messages with the same number are merged.
func (protobufFormat) Lookup(item []byte, f Field) (string, error) {
	text := f.Type.zero()
	if err := lookup(item, f.Numbers, f.Type, &text); err != nil {
		return "", fmt.Errorf("field %v: %w", f.Numbers, err)
	}
	return text, nil
}

func lookup(message []byte, path []protowire.Number, t FieldType, text *string) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return fmt.Errorf("%w: %w", errProtobuf, protowire.ParseError(n))
		}
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if size < 0 {
			return fmt.Errorf("%w: %w", errProtobuf, protowire.ParseError(size))
		}
		val := message[n : n+size]
		message = message[n+size:]
		if number != path[0] {
			continue
		}
		if want := t.wireType(len(path) == 1); kind != want {
			return fmt.Errorf("%w: field %d has the wire type %d, not %d", errProtobuf, number, kind, want)
		}
		if len(path) == 1 {
			*text = t.text(val)
			continue
		}
		contents, _ := protowire.ConsumeBytes(val) // val is complete, see size
		if err := lookup(contents, path[1:], t, text); err != nil {
			return err
		}
	}
	return nil
}

// wireType returns the wire type of the last field of a path, or of a message before it.
func (t FieldType) wireType(last bool) protowire.Type {
	if last && t != Text {
		return protowire.VarintType
	}
	return protowire.BytesType
}

// text returns the text of a complete value of the type's wire type.
func (t FieldType) text(val []byte) string {
	if t == Text {
		contents, _ := protowire.ConsumeBytes(val)
		return string(contents)
	}
	x, _ := protowire.ConsumeVarint(val)
	if t == Boolean {
		return strconv.FormatBool(x != 0)
	}
	return strconv.FormatInt(int64(x), 10)
}
