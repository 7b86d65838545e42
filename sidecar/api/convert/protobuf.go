package convert

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"rockpool.dev/sidecar/api/wire"
)

// Numbers of the fields of leaves that are messages in protobuf.
const (
	entryKey   protowire.Number = 1
	entryValue protowire.Number = 2

	only protowire.Number = 1 // the only field of quantity, raw and texts

	timeSeconds protowire.Number = 1
	timeNanos   protowire.Number = 2

	intOrStringType protowire.Number = 1 // 0: an integer, 1: a string
	intOrStringInt  protowire.Number = 2
	intOrStringText protowire.Number = 3
)

// microFormat is RFC 3339 with six fractional digits, as in metav1.MicroTime.
const microFormat = "2006-01-02T15:04:05.000000Z07:00"

// member is a member of a JSON object that is not null.
type member struct {
	name string
	val  []byte
}

func members(object []byte) (out []member, err error) {
	err = wire.Members(object, func(key string, val []byte) error {
		if !isNull(val) {
			out = append(out, member{key, val})
		}
		return nil
	})
	return out, err
}

func isNull(val []byte) bool { return string(val) == "null" }

// appendProtobuf adds the message of a JSON object, as the generated code of k8s.io/api does:
// fields in the order of their numbers, including scalars that are zero, and maps in the order of
// their keys.
func (m *message) appendProtobuf(dst, object []byte) ([]byte, error) {
	all, err := members(object)
	if err != nil {
		return dst, err
	}
	return m.appendFields(dst, all)
}

func (m *message) appendFields(dst []byte, all []member) (_ []byte, err error) {
	for _, f := range m.numbers {
		if f.name == inline {
			dst, err = embed(dst, f.number, func(dst []byte) ([]byte, error) {
				return f.message.appendFields(dst, all)
			})
		} else {
			dst, err = f.appendProtobuf(dst, find(all, f.name))
		}
		if err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func find(all []member, name string) []byte {
	for i := range all {
		if all[i].name == name {
			return all[i].val
		}
	}
	return nil
}

// appendProtobuf adds a field; val is nil if the JSON object does not have it.
func (f *field) appendProtobuf(dst, val []byte) (_ []byte, err error) {
	switch {
	case f.shape == list && val != nil:
		err = wire.Elements(val, func(val []byte) (err error) {
			dst, err = f.appendValue(dst, f.number, val)
			return err
		})
	case f.shape == mapping && val != nil:
		dst, err = f.appendEntries(dst, val)
	case val != nil || (f.shape == single && f.leaf != leafBytes):
		dst, err = f.appendValue(dst, f.number, val)
	}
	if err != nil {
		return dst, fmt.Errorf("%s: %w", f.name, err)
	}
	return dst, nil
}

func (f *field) appendEntries(dst, object []byte) ([]byte, error) {
	var all []member
	err := wire.Members(object, func(key string, val []byte) error {
		all = append(all, member{key, val})
		return nil
	})
	if err != nil {
		return dst, err
	}
	slices.SortFunc(all, func(a, b member) int { return cmp.Compare(a.name, b.name) })
	for _, e := range all {
		dst, err = embed(dst, f.number, func(dst []byte) ([]byte, error) {
			dst = protowire.AppendTag(dst, entryKey, protowire.BytesType)
			dst = protowire.AppendString(dst, e.name)
			if isNull(e.val) {
				e.val = nil
			}
			return f.appendValue(dst, entryValue, e.val)
		})
		if err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// embed adds a field with a length, whose contents f appends.
func embed(dst []byte, number protowire.Number, f func(dst []byte) ([]byte, error)) ([]byte, error) {
	dst = protowire.AppendTag(dst, number, protowire.BytesType)
	start := len(dst)
	dst, err := f(dst)
	if err != nil {
		return dst, err
	}
	// The size goes before the contents, and its own length is known only now.
	size := len(dst) - start
	dst = protowire.AppendVarint(dst, uint64(size))
	width := len(dst) - start - size
	var varint [10]byte
	copy(varint[:], dst[start+size:])
	copy(dst[start+width:], dst[start:start+size])
	copy(dst[start:], varint[:width])
	return dst, nil
}

func appendVarint(dst []byte, number protowire.Number, x int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, number, protowire.VarintType), uint64(x))
}

func appendText(dst []byte, number protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, number, protowire.BytesType), s)
}

// appendValue adds one value of the field's leaf; nil stands for the zero value.
func (f *field) appendValue(dst []byte, number protowire.Number, val []byte) ([]byte, error) {
	switch f.leaf {
	case leafBoolean:
		x := int64(0)
		if string(val) == "true" {
			x = 1
		}
		return appendVarint(dst, number, x), nil
	case leafInteger:
		x, err := parseInteger(val)
		return appendVarint(dst, number, x), err
	case leafText:
		s, err := parseText(val, "")
		return appendText(dst, number, s), err
	case leafBytes:
		s, err := parseText(val, "")
		if err != nil {
			return dst, err
		}
		decoded, err := base64.StdEncoding.DecodeString(s)
		return protowire.AppendBytes(protowire.AppendTag(dst, number, protowire.BytesType), decoded), err
	}
	return embed(dst, number, func(dst []byte) ([]byte, error) { return f.appendMessage(dst, val) })
}

// appendMessage adds the contents of a leaf that is a message.
func (f *field) appendMessage(dst, val []byte) ([]byte, error) {
	switch f.leaf {
	case leafNested:
		if val == nil {
			return f.message.appendFields(dst, nil)
		}
		return f.message.appendProtobuf(dst, val)
	case leafQuantity:
		s, err := parseText(val, "0")
		return appendText(dst, only, s), err
	case leafTime, leafMicroTime:
		return appendTime(dst, f.leaf, val)
	case leafIntOrString:
		return appendIntOrString(dst, val)
	case leafRaw:
		if val == nil {
			return dst, nil
		}
		return protowire.AppendBytes(protowire.AppendTag(dst, only, protowire.BytesType), val), nil
	case leafTexts:
		if val == nil {
			return dst, nil
		}
		err := wire.Elements(val, func(val []byte) error {
			s, err := parseText(val, "")
			dst = appendText(dst, only, s)
			return err
		})
		return dst, err
	}
	return dst, errors.New("a leaf that is not a message") // appendValue handles all others
}

func appendTime(dst []byte, l leaf, val []byte) ([]byte, error) {
	if val == nil || isNull(val) {
		return dst, nil
	}
	s, err := wire.Unquote(val)
	if err != nil {
		return dst, err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.IsZero() {
		return dst, err
	}
	nanos := int64(0)
	if l == leafMicroTime {
		nanos = int64(time.Duration(t.Nanosecond()).Truncate(time.Microsecond))
	}
	return appendVarint(appendVarint(dst, timeSeconds, t.Unix()), timeNanos, nanos), nil
}

func appendIntOrString(dst, val []byte) ([]byte, error) {
	isText, number, s := int64(0), int64(0), ""
	var err error
	if len(val) > 0 && val[0] == '"' {
		isText = 1
		s, err = wire.Unquote(val)
	} else {
		number, err = parseInteger(val)
	}
	dst = appendVarint(appendVarint(dst, intOrStringType, isText), intOrStringInt, number)
	return appendText(dst, intOrStringText, s), err
}

func parseInteger(val []byte) (int64, error) {
	if val == nil {
		return 0, nil
	}
	return strconv.ParseInt(string(val), 10, 64)
}

func parseText(val []byte, zero string) (string, error) {
	if val == nil {
		return zero, nil
	}
	return wire.Unquote(val)
}
