package wire

import "strings"

// Media types of the formats.
const (
	MediaTypeJSON     = "application/json"
	MediaTypeProtobuf = "application/vnd.kubernetes.protobuf"
)

// Format is an encoding of API objects. There are two, JSON and Protobuf; custom
// resources only come in the first, and client-go asks for the second for all
// others.
//
// An object comes alone, as the answer to a GET and in watch events, and as an
// item of a list. Alone it is typed: it says its kind and apiVersion. Among the
// items of a list it is bare, unless it is a custom resource or, in JSON, a
// PartialObjectMetadata.
type Format interface {
	// MediaType is that of objects and lists, WatchMediaType that of watches.
	MediaType() string
	WatchMediaType() string

	// NewList cuts the body of a list. item gets each item; the bytes are only
	// valid during the call, and its error stops the splitting.
	NewList(item func(raw []byte) error) ListSplitter
	// NewFrames cuts the body of a watch likewise.
	NewFrames(frame func(raw []byte) error) FrameSplitter

	// ParseEvent reads a frame.
	ParseEvent(frame []byte) (Event, error)
	// AppendFrame adds a frame to a watch body.
	AppendFrame(dst, frame []byte) []byte
	// AppendEvent adds a new event to a watch body; object is typed.
	AppendEvent(dst []byte, kind string, object []byte) []byte
	// Bookmark is the object of an event that only tells a resourceVersion; end says
	// that it ends the initial events.
	Bookmark(kind, apiVersion, resourceVersion string, end bool) []byte

	// ParseMeta reads the identity of an object that came alone, without decoding
	// the rest of it; ParseItem that of an item of a list.
	ParseMeta(object []byte) (Meta, error)
	ParseItem(item []byte) (Meta, error)
	// Bare takes kind and apiVersion off a typed object, which makes it look as it
	// does among the items of a list; the result shares no memory with object. It
	// reports false, and gives object, when there is nothing to take off.
	Bare(object []byte) (bare []byte, ok bool)
	// AppendTyped adds a bare object with its kind and apiVersion: the reverse.
	AppendTyped(dst []byte, kind, apiVersion string, bare []byte) []byte

	// AtVersion gives a copy of a typed object with another resourceVersion and no other
	// difference. It is an error when the object has none.
	AtVersion(object []byte, resourceVersion string) ([]byte, error)

	// AppendPartial adds the PartialObjectMetadata of an item of a list, as an item
	// of a PartialObjectMetadataList.
	AppendPartial(dst, item []byte) ([]byte, error)
	// Lookup reads one field of an item, without decoding the rest of it.
	Lookup(item []byte, f Field) (string, error)
}

// ListSplitter cuts the body of a list while it is written.
type ListSplitter interface {
	// Write takes the next bytes of the body. Once it has returned an error it
	// always returns that error.
	Write(p []byte) (int, error)
	// Peek gives what is known of the list's own data so far: typed lists say
	// their kind before their items.
	Peek() ListMeta
	// ListMeta gives the list's own data at the end of the body. It is an error when
	// the body ended early.
	ListMeta() (ListMeta, error)
}

// FrameSplitter cuts the body of a watch while it is written.
type FrameSplitter interface {
	// Write takes the next bytes of the body. Once it has returned an error it
	// always returns that error.
	Write(p []byte) (int, error)
	// Partial tells whether the body has ended inside a frame.
	Partial() bool
}

// The formats.
var (
	JSON     Format = jsonFormat{}
	Protobuf Format = protobufFormat{}
)

// FormatOf gives the format of a Content-Type, with or without parameters, nil
// if it is neither.
func FormatOf(contentType string) Format {
	mediaType, _, _ := strings.Cut(contentType, ";")
	switch strings.TrimSpace(mediaType) {
	case MediaTypeJSON:
		return JSON
	case MediaTypeProtobuf:
		return Protobuf
	}
	return nil
}
