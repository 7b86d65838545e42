package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// protobufFormat is application/vnd.kubernetes.protobuf. The messages and their field numbers are
// part of the API's compatibility promise:
// https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding and
// generated.proto of k8s.io/apimachinery. Fields without a name here are copied unread.
type protobufFormat struct{}

// magic is the prefix of every message that stands alone. A runtime.Unknown follows it.
var magic = []byte("k8s\x00")

const (
	unknownTypeMeta        protowire.Number = 1
	unknownRaw             protowire.Number = 2
	unknownContentEncoding protowire.Number = 3
	unknownContentType     protowire.Number = 4

	typeMetaAPIVersion protowire.Number = 1
	typeMetaKind       protowire.Number = 2

	objectMetadata protowire.Number = 1
	listMetadata   protowire.Number = 1
	listItems      protowire.Number = 2

	listMetaSelfLink        protowire.Number = 1
	listMetaResourceVersion protowire.Number = 2
	listMetaContinue        protowire.Number = 3

	metaName            protowire.Number = 1
	metaNamespace       protowire.Number = 3
	metaUID             protowire.Number = 5
	metaResourceVersion protowire.Number = 6
	metaLabels          protowire.Number = 11
	metaAnnotations     protowire.Number = 12

	entryKey   protowire.Number = 1
	entryValue protowire.Number = 2

	eventType    protowire.Number = 1
	eventObject  protowire.Number = 2
	extensionRaw protowire.Number = 1
)

var errProtobuf = errors.New("not a Kubernetes protobuf message")

func (protobufFormat) MediaType() string      { return MediaTypeProtobuf }
func (protobufFormat) WatchMediaType() string { return MediaTypeProtobuf + ";stream=watch" }

func (protobufFormat) NewList(item func([]byte) error) ListSplitter { return &protobufList{item: item} }
func (protobufFormat) NewFrames(frame func([]byte) error) FrameSplitter {
	return &protobufFrames{frame: frame}
}

// fields calls f for each field of a message, in order, with the contents of a length-delimited
// field and nil for any other field.
func fields(message []byte, f func(protowire.Number, []byte) error) error {
	return eachField(message, func(number protowire.Number, kind protowire.Type, _, contents []byte) error {
		if kind != protowire.BytesType {
			contents = nil
		}
		return f(number, contents)
	})
}

// parseEnvelope removes the envelope of a message that stands alone.
func parseEnvelope(object []byte) (kind, apiVersion string, raw []byte, err error) {
	rest, ok := bytes.CutPrefix(object, magic)
	if !ok {
		return "", "", nil, fmt.Errorf("%w: it does not begin with %q", errProtobuf, magic)
	}
	err = fields(rest, func(number protowire.Number, contents []byte) error {
		switch number {
		case unknownTypeMeta:
			return fields(contents, func(number protowire.Number, contents []byte) error {
				switch number {
				case typeMetaAPIVersion:
					apiVersion = string(contents)
				case typeMetaKind:
					kind = string(contents)
				}
				return nil
			})
		case unknownRaw:
			raw = contents
		case unknownContentEncoding:
			if len(contents) > 0 {
				return fmt.Errorf("%w: content encoding %q", errProtobuf, contents)
			}
		}
		return nil
	})
	return kind, apiVersion, raw, err
}

func (f protobufFormat) ParseMeta(object []byte) (Meta, error) {
	kind, apiVersion, raw, err := parseEnvelope(object)
	if err != nil {
		return Meta{}, err
	}
	m, err := f.ParseItem(raw)
	m.Kind, m.APIVersion = kind, apiVersion
	return m, err
}

func (protobufFormat) Bare(object []byte) ([]byte, bool) {
	_, _, raw, err := parseEnvelope(object)
	if err != nil {
		return object, false
	}
	return bytes.Clone(raw), true
}

func (protobufFormat) AppendTyped(dst []byte, kind, apiVersion string, bare []byte) []byte {
	return AppendEnvelopeEnd(append(appendEnvelope(dst, kind, apiVersion, len(bare)), bare...))
}

// appendEnvelope adds the part of the envelope before a message of the given size.
func appendEnvelope(dst []byte, kind, apiVersion string, size int) []byte {
	typeMeta := appendField(nil, typeMetaAPIVersion, []byte(apiVersion))
	typeMeta = appendField(typeMeta, typeMetaKind, []byte(kind))
	dst = appendField(append(dst, magic...), unknownTypeMeta, typeMeta)
	dst = protowire.AppendTag(dst, unknownRaw, protowire.BytesType)
	return protowire.AppendVarint(dst, uint64(size))
}

func appendField(dst []byte, number protowire.Number, contents []byte) []byte {
	dst = protowire.AppendTag(dst, number, protowire.BytesType)
	return protowire.AppendBytes(dst, contents)
}

func (protobufFormat) ParseEvent(frame []byte) (Event, error) {
	var e Event
	err := fields(frame, func(number protowire.Number, contents []byte) error {
		switch number {
		case eventType:
			e.Type = string(contents)
		case eventObject:
			return fields(contents, func(number protowire.Number, contents []byte) error {
				if number == extensionRaw {
					e.Object = contents
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return Event{}, fmt.Errorf("watch event: %w", err)
	}
	if e.Type == "" || e.Object == nil {
		return Event{}, fmt.Errorf("watch event: %w: type and object are needed", errProtobuf)
	}
	return e, nil
}

func (f protobufFormat) AppendEvent(dst []byte, kind string, object []byte) []byte {
	extension := appendField(nil, extensionRaw, object)
	event := appendField(nil, eventType, []byte(kind))
	return f.AppendFrame(dst, appendField(event, eventObject, extension))
}

func (f protobufFormat) Bookmark(kind, apiVersion, resourceVersion string, end bool) []byte {
	metadata := appendField(nil, metaResourceVersion, []byte(resourceVersion))
	if end {
		annotation := appendField(appendField(nil, entryKey, []byte(InitialEventsEnd)), entryValue, []byte("true"))
		metadata = appendField(metadata, metaAnnotations, annotation)
	}
	return f.AppendTyped(nil, kind, apiVersion, appendField(nil, objectMetadata, metadata))
}

// ItemSize returns how many bytes an item of the given size takes in a protobuf list.
func ItemSize(size int) int { return protowire.SizeTag(listItems) + protowire.SizeBytes(size) }

// AppendListHead adds the part of a protobuf list before its items. itemBytes is the sum of their
// ItemSizes.
func AppendListHead(dst []byte, kind, apiVersion, resourceVersion string, itemBytes int) []byte {
	listMeta := appendField(nil, listMetaSelfLink, nil)
	listMeta = appendField(listMeta, listMetaResourceVersion, []byte(resourceVersion))
	metadata := appendField(nil, listMetadata, appendField(listMeta, listMetaContinue, nil))
	return append(appendEnvelope(dst, kind, apiVersion, len(metadata)+itemBytes), metadata...)
}

// AppendEnvelopeEnd adds the part of the envelope after the message. The API server writes these
// fields, and those of a list's own data, even when they are empty.
func AppendEnvelopeEnd(dst []byte) []byte {
	return appendField(appendField(dst, unknownContentEncoding, nil), unknownContentType, nil)
}

// AppendItem adds an item to a protobuf list.
func AppendItem(dst, item []byte) []byte { return appendField(dst, listItems, item) }

// incomplete reports whether a negative protowire length means that bytes are missing.
func incomplete(n int) bool { return errors.Is(protowire.ParseError(n), io.ErrUnexpectedEOF) }
