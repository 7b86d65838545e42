package convert

import (
	"fmt"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
)

// Kind is the kind of objects that are not reduced to their metadata.
type Kind struct{ APIVersion, Kind string }

// partial is the kind of an object's metadata.
var partial = Kind{wire.PartialAPIVersion, wire.PartialKind}

// In returns the kind that objects have in a representation.
func (k Kind) In(r request.Representation) Kind {
	if r == request.Metadata {
		return partial
	}
	return k
}

// Func converts one object and adds it to dst. The object is an item of a list, with or without
// kind and apiVersion. The result is an item of a list of the other form: without kind and
// apiVersion, except for PartialObjectMetadata in JSON. The same object always has the same result.
type Func func(dst, object []byte) ([]byte, error)

// Find returns the conversion from one form to another, or nil if there is none. The forms must
// differ. The first call with different encodings parses the schema, which takes some milliseconds.
func Find(kind Kind, from, to request.Form) Func {
	if from.Representation == to.Representation {
		return transcode(kind.In(to.Representation), to.Format)
	}
	if to.Representation != request.Metadata {
		return nil
	}
	if from.Format == to.Format {
		return from.Format.AppendPartial
	}
	other := transcode(partial, to.Format)
	return func(dst, object []byte) ([]byte, error) {
		metadata, err := from.Format.AppendPartial(nil, object)
		if err != nil {
			return dst, err
		}
		return other(dst, metadata)
	}
}

// transcode returns the conversion to an encoding from the other one.
func transcode(kind Kind, to wire.Format) Func {
	m := builtin()[kind]
	switch {
	case m == nil:
		return nil
	case to == wire.Protobuf:
		return func(dst, object []byte) ([]byte, error) {
			dst, err := m.appendProtobuf(dst, object)
			return dst, wrapErr(kind, err)
		}
	case kind == partial:
		return func(dst, object []byte) ([]byte, error) {
			metadata, err := m.appendJSON(nil, object)
			if err != nil {
				return dst, wrapErr(kind, err)
			}
			return wire.JSON.AppendTyped(dst, kind.Kind, kind.APIVersion, metadata), nil
		}
	}
	return func(dst, object []byte) ([]byte, error) {
		dst, err := m.appendJSON(dst, object)
		return dst, wrapErr(kind, err)
	}
}

func wrapErr(kind Kind, err error) error {
	if err != nil {
		return fmt.Errorf("convert %s: %w", kind.Kind, err)
	}
	return nil
}
