package convert

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

var errMessage = errors.New("not a message of this type")

// fieldValue is an encoded field of a message.
type fieldValue struct {
	number   protowire.Number
	kind     protowire.Type
	contents []byte // of BytesType
	varint   uint64 // of VarintType
}

func parseFields(message []byte) (out []fieldValue, err error) {
	for len(message) > 0 {
		v := fieldValue{}
		var n, m int
		if v.number, v.kind, n = protowire.ConsumeTag(message); n < 0 {
			return nil, fmt.Errorf("%w: %w", errMessage, protowire.ParseError(n))
		}
		switch v.kind {
		case protowire.BytesType:
			v.contents, m = protowire.ConsumeBytes(message[n:])
		case protowire.VarintType:
			v.varint, m = protowire.ConsumeVarint(message[n:])
		default:
			m = protowire.ConsumeFieldValue(v.number, v.kind, message[n:])
		}
		if m < 0 {
			return nil, fmt.Errorf("%w: %w", errMessage, protowire.ParseError(m))
		}
		message = message[n+m:]
		out = append(out, v)
	}
	return out, nil
}

// last returns the last value of a field, which is the one that counts.
func last(all []fieldValue, number protowire.Number) *fieldValue {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].number == number {
			return &all[i]
		}
	}
	return nil
}

// appendJSON adds the JSON object of a message, as encoding/json would write the Go type.
func (m *message) appendJSON(dst, message []byte) ([]byte, error) {
	dst, err := m.appendMembers(append(dst, '{'), message)
	return append(dst, '}'), err
}

func (m *message) appendMembers(dst, message []byte) ([]byte, error) {
	all, err := parseFields(message)
	if err != nil {
		return dst, err
	}
	for _, f := range m.fields {
		if f.name == inline {
			var contents []byte
			if v := last(all, f.number); v != nil {
				contents = v.contents
			}
			if dst, err = f.message.appendMembers(dst, contents); err != nil {
				return dst, err
			}
			continue
		}
		start := len(dst)
		if dst[start-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), f.name...), `":`...)
		var zero bool
		if dst, zero, err = f.appendJSON(dst, all); err != nil {
			return dst, fmt.Errorf("%s: %w", f.name, err)
		}
		if zero && f.omit {
			dst = dst[:start]
		}
	}
	return dst, nil
}

// appendJSON adds the value of a field and reports whether it is zero.
func (f *field) appendJSON(dst []byte, all []fieldValue) (_ []byte, zero bool, err error) {
	switch f.shape {
	case list, mapping:
		return f.appendMany(dst, all)
	case optional:
		v := last(all, f.number)
		if v == nil {
			return append(dst, "null"...), true, nil
		}
		dst, _, err = f.appendOne(dst, v)
		return dst, false, err
	}
	return f.appendOne(dst, last(all, f.number))
}

func (f *field) appendMany(dst []byte, all []fieldValue) (_ []byte, zero bool, err error) {
	open, end := byte('['), byte(']')
	if f.shape == mapping {
		open, end = '{', '}'
	}
	start := len(dst)
	for i := range all {
		if all[i].number != f.number {
			continue
		}
		if len(dst) == start {
			dst = append(dst, open)
		} else {
			dst = append(dst, ',')
		}
		if f.shape == mapping {
			dst, err = f.appendEntry(dst, &all[i])
		} else {
			dst, _, err = f.appendOne(dst, &all[i])
		}
		if err != nil {
			return dst, false, err
		}
	}
	if len(dst) == start {
		return append(dst, "null"...), true, nil
	}
	return append(dst, end), false, nil
}

func (f *field) appendEntry(dst []byte, v *fieldValue) ([]byte, error) {
	entry, err := parseFields(v.contents)
	if err != nil {
		return dst, err
	}
	key := ""
	if k := last(entry, entryKey); k != nil {
		key = string(k.contents)
	}
	if dst, err = appendQuoted(dst, key); err != nil {
		return dst, err
	}
	val := last(entry, entryValue)
	if val == nil {
		val = &fieldValue{kind: protowire.BytesType} // an empty value
	}
	dst, _, err = f.appendOne(append(dst, ':'), val)
	return dst, err
}

// appendOne adds one value; v is nil if the message does not have it.
func (f *field) appendOne(dst []byte, v *fieldValue) (_ []byte, zero bool, err error) {
	var contents []byte
	if v != nil {
		if want := f.leaf.kind(); v.kind != want {
			return dst, false, fmt.Errorf("%w: wire type %d, not %d", errMessage, v.kind, want)
		}
		contents = v.contents
	}
	switch f.leaf {
	case leafNested:
		dst, err = f.message.appendJSON(dst, contents)
		return dst, false, err
	case leafBoolean:
		on := v != nil && v.varint != 0
		return strconv.AppendBool(dst, on), !on, nil
	case leafInteger:
		var x int64
		if v != nil {
			x = int64(v.varint)
		}
		return strconv.AppendInt(dst, x, 10), x == 0, nil
	case leafText:
		dst, err = appendQuoted(dst, string(contents))
		return dst, len(contents) == 0, err
	case leafBytes:
		if v == nil {
			return append(dst, "null"...), true, nil
		}
		dst = base64.StdEncoding.AppendEncode(append(dst, '"'), contents)
		return append(dst, '"'), len(contents) == 0, nil
	}
	return f.appendSpecial(dst, contents)
}

// kind returns the wire type of a leaf.
func (l leaf) kind() protowire.Type {
	if l == leafBoolean || l == leafInteger {
		return protowire.VarintType
	}
	return protowire.BytesType
}

// appendSpecial adds a leaf that is a message in protobuf but not an object in JSON.
func (f *field) appendSpecial(dst, contents []byte) (_ []byte, zero bool, err error) {
	all, err := parseFields(contents)
	if err != nil {
		return dst, false, err
	}
	switch f.leaf {
	case leafQuantity:
		s := "0"
		if v := last(all, only); v != nil && len(v.contents) > 0 {
			s = string(v.contents)
		}
		dst, err = appendQuoted(dst, s)
	case leafTime, leafMicroTime:
		t, layout := time.Unix(varint(all, timeSeconds), 0), time.RFC3339
		if f.leaf == leafMicroTime {
			t, layout = time.Unix(varint(all, timeSeconds), varint(all, timeNanos)), microFormat
		}
		if len(contents) == 0 || t.IsZero() {
			return append(dst, "null"...), true, nil
		}
		dst = append(t.UTC().AppendFormat(append(dst, '"'), layout), '"')
	case leafIntOrString:
		if varint(all, intOrStringType) == 0 {
			return strconv.AppendInt(dst, varint(all, intOrStringInt), 10), false, nil
		}
		s := ""
		if v := last(all, intOrStringText); v != nil {
			s = string(v.contents)
		}
		dst, err = appendQuoted(dst, s)
	case leafRaw:
		v := last(all, only)
		if v == nil || len(v.contents) == 0 {
			return append(dst, "null"...), true, nil
		}
		dst, err = appendRaw(dst, v.contents)
	case leafTexts:
		if len(all) == 0 {
			return append(dst, "[]"...), false, nil // a value in a map is never null
		}
		one := field{shape: list, leaf: leafText, number: only}
		return one.appendMany(dst, all)
	}
	return dst, false, err
}

func varint(all []fieldValue, number protowire.Number) int64 {
	if v := last(all, number); v != nil {
		return int64(v.varint)
	}
	return 0
}

// appendQuoted adds a string as encoding/json does. Most strings need no escaping.
func appendQuoted(dst []byte, s string) ([]byte, error) {
	if strings.IndexFunc(s, escaped) < 0 {
		return append(append(append(dst, '"'), s...), '"'), nil
	}
	quoted, err := json.Marshal(s)
	return append(dst, quoted...), err
}

// escaped reports whether a character may have to be escaped in JSON.
func escaped(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`"\\<>&`, r) }

// appendRaw adds embedded JSON as encoding/json does: compact, and escaped for HTML.
func appendRaw(dst, contents []byte) ([]byte, error) {
	var compact, safe bytes.Buffer
	if err := json.Compact(&compact, contents); err != nil {
		return dst, fmt.Errorf("%w: embedded JSON is invalid: %w", errMessage, err)
	}
	json.HTMLEscape(&safe, compact.Bytes())
	return append(dst, safe.Bytes()...), nil
}
