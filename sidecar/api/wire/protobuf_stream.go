package wire

import (
	"encoding/binary"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// pieces takes input that comes in pieces to a step that needs whole units.
type pieces struct {
	rest    []byte // the unfinished unit
	failure error
}

// write calls step with the input until it asks for more by consuming nothing.
func (s *pieces) write(p []byte, step func([]byte) (int, error)) (int, error) {
	if s.failure != nil {
		return 0, s.failure
	}
	total := len(p)
	input := p
	if len(s.rest) > 0 {
		s.rest = append(s.rest, p...)
		input = s.rest
	}
	for len(input) > 0 {
		n, err := step(input)
		if err == nil && n == 0 && len(input) > MaxValue {
			err = ErrTooLarge
		}
		if err != nil {
			s.failure = err
			return 0, err
		}
		if n == 0 {
			break
		}
		input = input[n:]
	}
	s.rest = append(s.rest[:0], input...) // also when they overlap: append moves
	return total, nil
}

// protobufList cuts a protobuf list: the envelope, in it the list, in it the
// items.
type protobufList struct {
	item func([]byte) error

	in   pieces
	at   protobufAt
	left int  // bytes of the list that are still to come
	raw  bool // the list has begun
	head ListMeta
}

type protobufAt uint8

const (
	atMagic protobufAt = iota
	inEnvelope
	inList
)

func (l *protobufList) Write(p []byte) (int, error) { return l.in.write(p, l.step) }

func (l *protobufList) Peek() ListMeta { return l.head }

func (l *protobufList) ListMeta() (ListMeta, error) {
	switch {
	case l.in.failure != nil:
		return ListMeta{}, l.in.failure
	case l.at != inEnvelope || !l.raw || len(l.in.rest) > 0:
		return ListMeta{}, ErrTruncated
	}
	return l.head, nil
}

func (l *protobufList) step(p []byte) (int, error) {
	switch l.at {
	case atMagic:
		if len(p) < len(magic) {
			return 0, nil
		}
		if string(p[:len(magic)]) != string(magic) {
			return 0, fmt.Errorf("%w: it does not begin with %q", errProtobuf, magic)
		}
		l.at = inEnvelope
		return len(magic), nil
	case inEnvelope:
		return l.envelope(p)
	}
	return l.field(p)
}

// envelope takes a field of the envelope, or of the list's bytes just their
// beginning.
func (l *protobufList) envelope(p []byte) (int, error) {
	number, kind, n := protowire.ConsumeTag(p)
	if n >= 0 && number == unknownRaw && kind == protowire.BytesType {
		size, m := protowire.ConsumeVarint(p[n:])
		if m >= 0 {
			if size > 1<<40 {
				return 0, ErrTooLarge
			}
			l.raw = true
			if l.left = int(size); l.left > 0 {
				l.at = inList
			}
			l.head.HasItems = strings.HasSuffix(l.head.Kind, "List")
			return n + m, nil
		}
		n = m
	}
	contents, n, err := wholeField(p, number, kind, n)
	if n == 0 || err != nil {
		return 0, err
	}
	switch number {
	case unknownTypeMeta:
		err = fields(contents, func(number protowire.Number, contents []byte) error {
			switch number {
			case typeMetaAPIVersion:
				l.head.APIVersion = string(contents)
			case typeMetaKind:
				l.head.Kind = string(contents)
			}
			return nil
		})
	case unknownContentEncoding:
		if len(contents) > 0 {
			err = fmt.Errorf("%w: content encoding %q", errProtobuf, contents)
		}
	}
	return n, err
}

// field takes a whole field of the list.
func (l *protobufList) field(p []byte) (int, error) {
	p = p[:min(len(p), l.left)]
	number, kind, n := protowire.ConsumeTag(p)
	contents, n, err := wholeField(p, number, kind, n)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		if len(p) == l.left {
			return 0, fmt.Errorf("%w: a field reaches beyond the list", errProtobuf)
		}
		return 0, nil
	}
	switch number {
	case listMetadata:
		err = fields(contents, func(number protowire.Number, contents []byte) error {
			switch number {
			case listMetaResourceVersion:
				l.head.ResourceVersion = string(contents)
			case listMetaContinue:
				l.head.Continue = string(contents)
			}
			return nil
		})
	case listItems:
		if l.head.HasItems {
			err = l.item(contents)
		}
	}
	if l.left -= n; l.left == 0 {
		l.at = inEnvelope
	}
	return n, err
}

// wholeField gives the contents of the field whose tag of n bytes is at the head of
// p, and the size of it all; 0 when it is not all there.
func wholeField(p []byte, number protowire.Number, kind protowire.Type, n int) (contents []byte, size int, err error) {
	m := n
	if n >= 0 {
		if kind == protowire.BytesType {
			contents, m = protowire.ConsumeBytes(p[n:])
		} else {
			m = protowire.ConsumeFieldValue(number, kind, p[n:])
		}
	}
	if m >= 0 {
		return contents, n + m, nil
	}
	if short(m) {
		return nil, 0, nil
	}
	return nil, 0, fmt.Errorf("%w: %w", errProtobuf, protowire.ParseError(m))
}

// protobufFrames cuts a protobuf watch: each frame has its length, four bytes,
// highest first, before it.
type protobufFrames struct {
	frame func([]byte) error
	in    pieces
}

const frameHeader = 4

func (f *protobufFrames) Write(p []byte) (int, error) { return f.in.write(p, f.step) }
func (f *protobufFrames) Partial() bool               { return len(f.in.rest) > 0 }

func (f *protobufFrames) step(p []byte) (int, error) {
	if len(p) < frameHeader {
		return 0, nil
	}
	size := int(binary.BigEndian.Uint32(p))
	if size > MaxValue {
		return 0, fmt.Errorf("watch frame: %w", ErrTooLarge)
	}
	if len(p) < frameHeader+size {
		return 0, nil
	}
	return frameHeader + size, f.frame(p[frameHeader : frameHeader+size])
}

func (protobufFormat) AppendFrame(dst, frame []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(frame)))
	return append(dst, frame...)
}
