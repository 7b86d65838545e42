package wire

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

func (protobufFormat) First(message []byte, m Member) ([]byte, error) {
	for len(message) > 0 {
		number, _, begin, end, err := cutField(message)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		if number == m.Number {
			return message[begin:end], nil
		}
		message = message[end:]
	}
	return nil, nil
}

func (protobufFormat) Each(message []byte, m Member, visit func([]byte) error) error {
	return eachField(message, func(number protowire.Number, _ protowire.Type, _, contents []byte) error {
		if number != m.Number {
			return nil
		}
		return visit(contents)
	})
}

func (protobufFormat) Replace(dst, message []byte, m Member, edit func([]byte) ([]byte, bool, error)) ([]byte, error) {
	dst = slices.Grow(dst, len(message))
	err := eachField(message, func(number protowire.Number, kind protowire.Type, raw, contents []byte) error {
		if number != m.Number {
			dst = append(dst, raw...)
			return nil
		}
		replaced, keep, err := edit(contents)
		if err != nil || !keep {
			return err
		}
		dst = protowire.AppendTag(dst, number, kind)
		if kind == protowire.BytesType {
			dst = protowire.AppendVarint(dst, uint64(len(replaced)))
		}
		dst = append(dst, replaced...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Name, err)
	}
	return dst, nil
}

func (f protobufFormat) Entry(message []byte, m Member, key string) ([]byte, error) {
	for len(message) > 0 {
		number, _, begin, end, err := cutField(message)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		entry := message[begin:end]
		message = message[end:]
		if number != m.Number {
			continue
		}
		name, err := f.First(entry, Member{Name: "key", Number: entryKey})
		if err != nil {
			return nil, err
		}
		if string(name) != key {
			continue
		}
		value, err := f.First(entry, Member{Name: "value", Number: entryValue})
		if value == nil && err == nil {
			value = []byte{}
		}
		return value, err
	}
	return nil, nil
}

func (f protobufFormat) Entries(message []byte, m Member) (entries map[string]string, err error) {
	err = f.Each(message, m, func(contents []byte) error {
		key, err := f.First(contents, Member{Name: "key", Number: entryKey})
		if err != nil {
			return err
		}
		value, err := f.First(contents, Member{Name: "value", Number: entryValue})
		if err != nil {
			return err
		}
		if entries == nil {
			entries = map[string]string{}
		}
		entries[string(key)] = string(value)
		return nil
	})
	return entries, err
}

func (protobufFormat) Text(value []byte) (string, error)      { return string(value), nil }
func (protobufFormat) TextBytes(value []byte) ([]byte, error) { return value, nil }

func (protobufFormat) Quote(text string) []byte { return []byte(text) }
func (protobufFormat) Int(n int64) []byte       { return protowire.AppendVarint(nil, uint64(n)) }

func (protobufFormat) Bool(b bool) []byte {
	return protowire.AppendVarint(nil, protowire.EncodeBool(b))
}

func (protobufFormat) Merge(all ...MemberValue) (dst []byte) {
	for _, m := range all {
		if m.Scalar {
			dst = append(protowire.AppendTag(dst, m.Number, protowire.VarintType), m.Value...)
		} else {
			dst = appendField(dst, m.Number, m.Value)
		}
	}
	return dst
}

// eachField calls f for each field of a message with all of its bytes, and with the contents of a
// length-delimited field or the encoded value of any other.
func eachField(message []byte, f func(number protowire.Number, kind protowire.Type, raw, contents []byte) error) error {
	for len(message) > 0 {
		number, kind, begin, end, err := cutField(message)
		if err == nil {
			err = f(number, kind, message[:end], message[begin:end])
		}
		if err != nil {
			return err
		}
		message = message[end:]
	}
	return nil
}

// cutField finds the field at the start of a message, and where in it the contents of a
// length-delimited field or the encoded value of any other begin. The field ends with them.
func cutField(message []byte) (number protowire.Number, kind protowire.Type, begin, end int, err error) {
	// Most fields have a tag of one byte, and then a length or a number of one byte.
	if len(message) >= 2 && message[0] >= 1<<3 && message[0]|message[1] < 1<<7 {
		number, kind = protowire.Number(message[0]>>3), protowire.Type(message[0]&7)
		switch end = 2 + int(message[1]); {
		case kind == protowire.VarintType:
			return number, kind, 1, 2, nil
		case kind == protowire.BytesType && end <= len(message):
			return number, kind, 2, end, nil
		}
	}
	number, kind, begin = protowire.ConsumeTag(message)
	if begin < 0 {
		return 0, 0, 0, 0, fmt.Errorf("%w: %w", errProtobuf, protowire.ParseError(begin))
	}
	size := protowire.ConsumeFieldValue(number, kind, message[begin:])
	if size < 0 {
		return 0, 0, 0, 0, fmt.Errorf("%w: %w", errProtobuf, protowire.ParseError(size))
	}
	end = begin + size
	if kind == protowire.BytesType {
		contents, _ := protowire.ConsumeBytes(message[begin:end]) // complete, see size
		begin = end - len(contents)
	}
	return number, kind, begin, end, nil
}

func (protobufFormat) Inner(object []byte) ([]byte, error) {
	_, _, raw, err := parseEnvelope(object)
	return raw, err
}
