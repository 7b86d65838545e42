package wire

import "strings"

// Media types of the formats.
const (
	MediaTypeJSON     = "application/json"
	MediaTypeProtobuf = "application/vnd.kubernetes.protobuf"
)

// Format is an encoding of API objects: JSON or Protobuf. Custom resources exist only in JSON.
// client-go asks for Protobuf for all other resources.
//
// An object stands alone in the response to a GET and in a watch event, or is an item of a list.
// Alone it is typed: it has its kind and apiVersion. As an item it is bare: it has neither, unless
// it is a custom resource or, in JSON, a PartialObjectMetadata.
type Format interface {
	// MediaType returns the media type of objects and lists, WatchMediaType that of watches.
	MediaType() string
	WatchMediaType() string

	// NewList splits the body of a list. It calls item for each item; the bytes are valid only
	// during the call. An error of item stops the splitting.
	NewList(item func(raw []byte) error) ListSplitter
	// NewRewriter copies the body of a list with items changed. Room is by how many bytes all
	// changed items together may be larger than before.
	NewRewriter(edit EditItem, room int) Rewriter
	// NewFrames splits the body of a watch likewise.
	NewFrames(frame func(raw []byte) error) FrameSplitter

	// ParseEvent parses a frame.
	ParseEvent(frame []byte) (Event, error)
	// AppendFrame adds a frame to a watch body.
	AppendFrame(dst, frame []byte) []byte
	// AppendEvent adds a new event to a watch body. The object must be typed.
	AppendEvent(dst []byte, kind string, object []byte) []byte
	// Bookmark returns the object of a BOOKMARK event, which has only a resourceVersion. With end
	// it ends the initial events.
	Bookmark(kind, apiVersion, resourceVersion string, end bool) []byte

	// ParseMeta reads the identity of an object that stands alone, without decoding the rest.
	// ParseItem reads that of an item of a list.
	ParseMeta(object []byte) (Meta, error)
	ParseItem(item []byte) (Meta, error)
	// Bare removes kind and apiVersion from a typed object, as for an item of a list. The result
	// shares no memory with object. If there is nothing to remove, it returns object and false.
	Bare(object []byte) (bare []byte, ok bool)
	// Inner returns the part of an object that stands alone which has its fields: as Bare does,
	// but without a copy, and in JSON with kind and apiVersion.
	Inner(object []byte) ([]byte, error)
	// AppendTyped adds a bare object with a kind and apiVersion. It is the inverse of Bare.
	AppendTyped(dst []byte, kind, apiVersion string, bare []byte) []byte

	// AtVersion returns a copy of a typed object in which only the resourceVersion differs. It
	// returns an error if the object has no resourceVersion.
	AtVersion(object []byte, resourceVersion string) ([]byte, error)

	// AppendPartial adds the PartialObjectMetadata of an item of a list, as an item of a
	// PartialObjectMetadataList.
	AppendPartial(dst, item []byte) ([]byte, error)
	// Lookup reads one field of an item, without decoding the rest.
	Lookup(item []byte, f Field) (string, error)

	Values
}

// ListSplitter splits the body of a list while it is written.
type ListSplitter interface {
	// Write takes the next bytes of the body. After an error it always returns that error.
	Write(p []byte) (int, error)
	// Peek returns the list's own data read so far: typed lists have their kind before their items.
	Peek() ListMeta
	// ListMeta returns the list's own data after the end of the body. It returns an error if the
	// body was truncated.
	ListMeta() (ListMeta, error)
}

// FrameSplitter splits the body of a watch while it is written.
type FrameSplitter interface {
	// Write takes the next bytes of the body. After an error it always returns that error.
	Write(p []byte) (int, error)
	// Partial reports whether the body so far ends inside a frame.
	Partial() bool
}

// The formats.
var (
	JSON     Format = jsonFormat{}
	Protobuf Format = protobufFormat{}
)

// FormatOf returns the format of a Content-Type, with or without parameters, or nil if it is
// neither.
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
