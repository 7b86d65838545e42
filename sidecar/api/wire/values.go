package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Member is a field of an object or of an object inside it, in each format. It has one value, or,
// if Repeated, several: in JSON the elements of an array.
type Member struct {
	Name     string
	Number   protowire.Number
	Repeated bool
}

// Values reads and changes single fields, without decoding the rest. A message is a JSON object or a
// protobuf message without envelope. A value is a JSON value, or the contents of a protobuf field.
type Values interface {
	// First returns the first value of a member and stops reading there, nil if there is none. In
	// JSON, null is none.
	First(message []byte, m Member) ([]byte, error)
	// Each calls f for each value of a member. It stops at f's first error.
	Each(message []byte, m Member, f func(value []byte) error) error
	// Replace adds message to dst, with the values of a member replaced by what f returns, or left
	// out where f returns false. If f returns all values as they are, the bytes stay the same.
	Replace(dst, message []byte, m Member, f func(value []byte) (replaced []byte, keep bool, err error)) ([]byte, error)
	// Entry returns the value of a key in a member that is a map of strings, nil if there is none.
	Entry(message []byte, m Member, key string) (value []byte, err error)
	// Entries returns all entries of such a member, nil if there are none.
	Entries(message []byte, m Member) (map[string]string, error)
	// Text returns the text of a value that is a string, Quote the value of a text. TextBytes is Text
	// without a copy: the result may be a part of value.
	Text(value []byte) (string, error)
	TextBytes(value []byte) ([]byte, error)
	Quote(text string) []byte
	// Int and Bool return a value that is an integer or a boolean.
	Int(n int64) []byte
	Bool(b bool) []byte
	// Merge returns the message that has these members, in this order.
	Merge(members ...MemberValue) []byte
}

// MemberValue is a member of a new message with its value, which is a Scalar if it is an integer or a
// boolean. The value of a repeated member is its only one.
type MemberValue struct {
	Member
	Value  []byte
	Scalar bool
}

var null = []byte("null")

func (jsonFormat) First(message []byte, m Member) (value []byte, err error) {
	_, err = members(message, func(key, p []byte) ([]byte, error) {
		val, rest, err := cutValue(p)
		if err == nil && isKey(key, m.Name) && !bytes.Equal(val, null) {
			value = val
			err = errFound
		}
		return rest, err
	})
	if err != nil && !errors.Is(err, errFound) {
		return nil, fmt.Errorf("%s: %w", m.Name, err)
	}
	return value, nil
}

// isKey reports whether a quoted key is the given name.
func isKey(key []byte, name string) bool {
	if bytes.IndexByte(key, '\\') < 0 {
		return len(key) == len(name)+2 && string(key[1:len(key)-1]) == name
	}
	text, err := Unquote(key)
	return err == nil && text == name
}

func (f jsonFormat) Each(message []byte, m Member, visit func([]byte) error) error {
	value, err := f.First(message, m)
	if err != nil || value == nil {
		return err
	}
	if !m.Repeated {
		return visit(value)
	}
	return Elements(value, visit)
}

func (f jsonFormat) Replace(dst, message []byte, m Member, edit func([]byte) ([]byte, bool, error)) ([]byte, error) {
	value, err := f.First(message, m)
	if err != nil || value == nil {
		return append(dst, message...), err
	}
	// value is a slice of message, so the capacities show where it begins.
	begin := cap(message) - cap(value)
	end := begin + len(value)
	if !m.Repeated {
		replaced, keep, err := edit(value)
		if err != nil {
			return nil, err
		}
		if !keep {
			replaced = null
		}
		return append(append(append(dst, message[:begin]...), replaced...), message[end:]...), nil
	}
	dst = append(dst, message[:begin]...)
	dst = append(dst, '[')
	first := true
	start := len(dst)
	same := true
	err = Elements(value, func(element []byte) error {
		replaced, keep, err := edit(element)
		if err != nil || !keep {
			same = false
			return err
		}
		same = same && bytes.Equal(replaced, element)
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, replaced...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if same { // with its own white space
		dst = append(dst[:start-1], value...)
	} else {
		dst = append(dst, ']')
	}
	return append(dst, message[end:]...), nil
}

func (f jsonFormat) Entry(message []byte, m Member, key string) ([]byte, error) {
	value, err := f.First(message, m)
	if err != nil || value == nil {
		return nil, err
	}
	return f.First(value, Member{Name: key})
}

func (f jsonFormat) Entries(message []byte, m Member) (entries map[string]string, err error) {
	value, err := f.First(message, m)
	if err != nil || value == nil {
		return nil, err
	}
	if err := json.Unmarshal(value, &entries); err != nil {
		return nil, fmt.Errorf("%s: %w: a map of strings was expected", m.Name, errSyntax)
	}
	return entries, nil
}

func (jsonFormat) Text(value []byte) (string, error) { return Unquote(value) }
func (jsonFormat) TextBytes(value []byte) ([]byte, error) {
	if n := len(value); n >= 2 && value[0] == '"' && bytes.IndexByte(value, '\\') < 0 {
		return value[1 : n-1 : n-1], nil
	}
	text, err := Unquote(value)
	return []byte(text), err
}

func (jsonFormat) Quote(text string) []byte { return appendString(nil, text) }
func (jsonFormat) Int(n int64) []byte       { return strconv.AppendInt(nil, n, 10) }

func (jsonFormat) Bool(b bool) []byte { return strconv.AppendBool(nil, b) }

func (jsonFormat) Merge(all ...MemberValue) []byte {
	dst := []byte{'{'}
	for i, m := range all {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, m.Name), ':')
		if m.Repeated {
			dst = append(dst, '[')
		}
		dst = append(dst, m.Value...)
		if m.Repeated {
			dst = append(dst, ']')
		}
	}
	return append(dst, '}')
}

func (jsonFormat) Inner(object []byte) ([]byte, error) { return object, nil }
