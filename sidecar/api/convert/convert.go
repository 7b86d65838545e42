package convert

import (
	"fmt"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
)

// Kind names the kind of objects in their own form.
type Kind struct{ APIVersion, Kind string }

// partial is the kind of what is only metadata.
var partial = Kind{wire.PartialAPIVersion, wire.PartialKind}

// In gives the kind under which objects appear in a representation.
func (k Kind) In(r request.Representation) Kind {
	if r == request.Metadata {
		return partial
	}
	return k
}

// Func converts one object. It takes it as it stands in a list, with its kind and
// apiVersion or without, and adds it to dst as it stands in a list of the other
// form: without, except for PartialObjectMetadata in JSON. The same object always
// gives the same bytes.
type Func func(dst, object []byte) ([]byte, error)

// Find finds the way from one form to another, which must differ. It is nil when
// there is none. The first question about objects in another encoding builds the
// schema, which takes some milliseconds.
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

// transcode finds the way from the other encoding to the one given.
func transcode(kind Kind, to wire.Format) Func {
	m := builtin()[kind]
	switch {
	case m == nil:
		return nil
	case to == wire.Protobuf:
		return func(dst, object []byte) ([]byte, error) {
			dst, err := m.appendProtobuf(dst, object)
			return dst, wrap(kind, err)
		}
	case kind == partial:
		return func(dst, object []byte) ([]byte, error) {
			metadata, err := m.appendJSON(nil, object)
			if err != nil {
				return dst, wrap(kind, err)
			}
			return wire.JSON.AppendTyped(dst, kind.Kind, kind.APIVersion, metadata), nil
		}
	}
	return func(dst, object []byte) ([]byte, error) {
		dst, err := m.appendJSON(dst, object)
		return dst, wrap(kind, err)
	}
}

func wrap(kind Kind, err error) error {
	if err != nil {
		return fmt.Errorf("convert %s: %w", kind.Kind, err)
	}
	return nil
}
