package wire

import (
	"bytes"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

func (jsonFormat) AtVersion(object []byte, resourceVersion string) ([]byte, error) {
	out, err := replaceMember(object, []string{"metadata", "resourceVersion"}, appendString(nil, resourceVersion))
	if err != nil {
		return nil, fmt.Errorf("object's resourceVersion: %w", err)
	}
	return out, nil
}

// replaceMember returns a copy of a JSON object in which the member at path, outermost key first,
// has another value. It returns an error if there is no such member.
func replaceMember(raw []byte, path []string, value []byte) ([]byte, error) {
	var old []byte
	err := Members(raw, func(key string, val []byte) error {
		if key == path[0] {
			old = val
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if old == nil {
		return nil, fmt.Errorf("%w: no member %q", errSyntax, path[0])
	}
	if len(path) > 1 {
		if value, err = replaceMember(old, path[1:], value); err != nil {
			return nil, err
		}
	}
	// old is a slice of raw, so the capacities show where it begins.
	begin := cap(raw) - cap(old)
	return slices.Concat(raw[:begin], value, raw[begin+len(old):]), nil
}

func (protobufFormat) AtVersion(object []byte, resourceVersion string) ([]byte, error) {
	rest, ok := bytes.CutPrefix(object, magic)
	if !ok {
		return nil, fmt.Errorf("%w: it does not begin with %q", errProtobuf, magic)
	}
	out, err := replaceField(bytes.Clone(magic), rest, []byte(resourceVersion), unknownRaw, objectMetadata, metaResourceVersion)
	if err != nil {
		return nil, fmt.Errorf("object's resourceVersion: %w", err)
	}
	return out, nil
}

// replaceField adds message to dst with other contents for a field, or for a nested field whose
// path, outermost first, is within. It returns an error if there is no such field.
func replaceField(dst, message, contents []byte, field protowire.Number, within ...protowire.Number) ([]byte, error) {
	found := false
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return nil, fmt.Errorf("%w: %w", errProtobuf, protowire.ParseError(tag))
		}
		size := protowire.ConsumeFieldValue(number, kind, message[tag:])
		if size < 0 {
			return nil, fmt.Errorf("%w: %w", errProtobuf, protowire.ParseError(size))
		}
		raw := message[:tag+size]
		message = message[tag+size:]
		if number != field {
			dst = append(dst, raw...)
			continue
		}
		if kind != protowire.BytesType {
			return nil, fmt.Errorf("%w: field %d is a number", errProtobuf, number)
		}
		found = true
		inner := contents
		if len(within) > 0 {
			old, _ := protowire.ConsumeBytes(raw[tag:]) // complete, see size
			var err error
			if inner, err = replaceField(nil, old, contents, within[0], within[1:]...); err != nil {
				return nil, err
			}
		}
		dst = appendField(dst, number, inner)
	}
	if !found {
		return nil, fmt.Errorf("%w: no field %d", errProtobuf, field)
	}
	return dst, nil
}
