package replay

import (
	"slices"

	"rockpool.dev/sidecar/api/convert"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// conversion turns the objects of a collection into a form that the client accepts.
type conversion struct {
	from, to request.Form
	kind     convert.Kind // of the objects, in the form to
	convert  convert.Func // nil: they are in that form
}

// findConversion finds the conversion of a collection to the first of the forms that is possible:
// unconverted, or also converted if converting is set. Callers try without first, because the first
// conversion is expensive.
func findConversion(c store.Collection, forms []request.Form, converting bool) (conversion, bool) {
	from, kind := formOf(c), convert.Kind{APIVersion: c.APIVersion, Kind: c.Kind}
	if slices.Contains(forms, from) {
		return conversion{from, from, kind, nil}, !converting
	}
	if !converting || from.Format == nil {
		return conversion{}, false
	}
	for _, to := range forms {
		if f := convert.Find(kind, from, to); f != nil {
			return conversion{from, to, kind.In(to.Representation), f}, true
		}
	}
	return conversion{}, false
}

// formOf returns the form in which a collection was recorded.
func formOf(c store.Collection) request.Form {
	return request.Form{Format: wire.FormatOf(c.MediaType), Representation: request.Representation(c.Representation)}
}

// converted returns an object in the form to. Its payload may be in buf.
func (c *conversion) converted(buf []byte, o store.Object) (store.Object, error) {
	if c.convert == nil {
		return o, nil
	}
	var err error
	o.Payload, err = c.convert(buf, o.Payload)
	switch {
	case c.to.Format == wire.Protobuf:
		o.Encoding = store.Protobuf
	case c.to.Representation == request.Metadata:
		o.Encoding = store.JSON
	default:
		o.Encoding = store.JSONBare
	}
	return o, err
}

// typed appends an object in the form to, with its kind and apiVersion.
func (c *conversion) typed(dst []byte, o store.Object) []byte {
	if o.Encoding == store.JSON {
		return append(dst, o.Payload...)
	}
	return c.to.Format.AppendTyped(dst, c.kind.Kind, c.kind.APIVersion, o.Payload)
}
