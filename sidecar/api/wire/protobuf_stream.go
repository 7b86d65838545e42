package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// chunkBuffer collects input that arrives in chunks for a step that needs complete units.
type chunkBuffer struct {
	// unfinished is the start of an incomplete unit. After a failure it is all input that was not
	// consumed.
	unfinished []byte
	failure    error
}

// completion is how many bytes of a chunk are at least copied to complete a unit that began before.
const completion = 1 << 10

// write calls step with the input until step consumes nothing, which means that it needs more. It
// copies the units that are not complete in a chunk, and little more. It copies each byte once at
// most, also of a unit that many writes bring.
func (s *chunkBuffer) write(p []byte, step func([]byte) (int, error)) (int, error) {
	if s.failure != nil {
		return 0, s.failure
	}
	total := len(p)
	for len(s.unfinished) > 0 && len(p) > 0 {
		held := len(s.unfinished)
		s.unfinished = append(s.unfinished, p[:min(len(p), max(held, completion))]...)
		n, err := s.step(s.unfinished, step)
		switch {
		case err != nil:
			return 0, s.fail(err, held, p)
		case n == 0:
			p = p[len(s.unfinished)-held:]
		case n < held:
			s.unfinished = s.unfinished[:copy(s.unfinished, s.unfinished[n:held])]
		default:
			s.unfinished, p = s.unfinished[:0], p[n-held:]
		}
	}
	for len(p) > 0 {
		n, err := s.step(p, step)
		if err != nil {
			return 0, s.fail(err, 0, p)
		}
		if n == 0 {
			s.unfinished = append(s.unfinished, p...)
			break
		}
		p = p[n:]
	}
	return total, nil
}

// step calls a step, and bounds the size of a unit.
func (s *chunkBuffer) step(input []byte, step func([]byte) (int, error)) (int, error) {
	n, err := step(input)
	if err == nil && n == 0 && len(input) > MaxValue {
		err = ErrTooLarge
	}
	return n, err
}

// fail ends the splitting. The first bytes of unfinished, and rest, were not consumed.
func (s *chunkBuffer) fail(err error, held int, rest []byte) error {
	s.failure, s.unfinished = err, append(s.unfinished[:held], rest...)
	return err
}

// protobufList splits a protobuf list: an envelope that contains a list that contains items.
type protobufList struct {
	item func([]byte) error

	in        chunkBuffer
	state     protobufState
	remaining int  // bytes of the list that have not arrived
	raw       bool // the list has begun
	meta      ListMeta
}

type protobufState uint8

const (
	atMagic protobufState = iota
	atEnvelopeField
	atListField
)

func (l *protobufList) Write(p []byte) (int, error) { return l.in.write(p, l.step) }

func (l *protobufList) Peek() ListMeta { return l.meta }

func (l *protobufList) ListMeta() (ListMeta, error) {
	switch {
	case l.in.failure != nil:
		return ListMeta{}, l.in.failure
	case l.state != atEnvelopeField || !l.raw || len(l.in.unfinished) > 0:
		return ListMeta{}, ErrTruncated
	}
	return l.meta, nil
}

func (l *protobufList) step(p []byte) (int, error) {
	switch l.state {
	case atMagic:
		if len(p) < len(magic) {
			return 0, nil
		}
		if string(p[:len(magic)]) != string(magic) {
			return 0, fmt.Errorf("%w: it does not begin with %q", errProtobuf, magic)
		}
		l.state = atEnvelopeField
		return len(magic), nil
	case atEnvelopeField:
		return l.envelope(p)
	}
	return l.field(p)
}

// envelope consumes a field of the envelope. Of the field with the list it consumes only tag and
// size.
func (l *protobufList) envelope(p []byte) (int, error) {
	number, kind, n := protowire.ConsumeTag(p)
	if n >= 0 && number == unknownRaw && kind == protowire.BytesType {
		size, m := protowire.ConsumeVarint(p[n:])
		if m >= 0 {
			if size > 1<<40 {
				return 0, ErrTooLarge
			}
			l.raw = true
			if l.remaining = int(size); l.remaining > 0 {
				l.state = atListField
			}
			l.meta.HasItems = strings.HasSuffix(l.meta.Kind, "List")
			return n + m, nil
		}
		n = m
	}
	contents, n, err := completeField(p, number, kind, n)
	if n == 0 || err != nil {
		return 0, err
	}
	switch number {
	case unknownTypeMeta:
		err = fields(contents, func(number protowire.Number, contents []byte) error {
			switch number {
			case typeMetaAPIVersion:
				l.meta.APIVersion = string(contents)
			case typeMetaKind:
				l.meta.Kind = string(contents)
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

// field consumes a complete field of the list.
func (l *protobufList) field(p []byte) (int, error) {
	p = p[:min(len(p), l.remaining)]
	number, kind, n := protowire.ConsumeTag(p)
	contents, n, err := completeField(p, number, kind, n)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		if len(p) == l.remaining {
			return 0, fmt.Errorf("%w: a field reaches beyond the list", errProtobuf)
		}
		return 0, nil
	}
	switch number {
	case listMetadata:
		err = fields(contents, func(number protowire.Number, contents []byte) error {
			switch number {
			case listMetaResourceVersion:
				l.meta.ResourceVersion = string(contents)
			case listMetaContinue:
				l.meta.Continue = string(contents)
			}
			return nil
		})
	case listItems:
		if l.meta.HasItems {
			err = l.item(contents)
		}
	}
	if l.remaining -= n; l.remaining == 0 {
		l.state = atEnvelopeField
	}
	return n, err
}

// completeField returns the contents of the field at the start of p, whose tag has n bytes, and the
// size of tag and contents. The size is 0 if the field is incomplete.
func completeField(
	p []byte, number protowire.Number, kind protowire.Type, n int,
) (contents []byte, size int, err error) {
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
	if incomplete(m) {
		return nil, 0, nil
	}
	return nil, 0, fmt.Errorf("%w: %w", errProtobuf, protowire.ParseError(m))
}

// protobufFrames splits a protobuf watch. Before each frame is its length in four bytes,
// big-endian.
type protobufFrames struct {
	frame func([]byte) error
	in    chunkBuffer
}

const frameHeader = 4

func (f *protobufFrames) Write(p []byte) (int, error) {
	n, err := f.in.write(p, f.step)
	switch held := f.in.unfinished; {
	case len(held) == 0 && cap(held) > smallBuffer:
		f.in.unfinished = nil
	case cap(held) > largeBuffer && len(held) <= largeBuffer:
		f.in.unfinished = bytes.Clone(held)
	}
	return n, err
}

func (f *protobufFrames) Partial() bool { return len(f.in.unfinished) > 0 }

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
