package record

import (
	"slices"
	"strings"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// representation is the representation of objects, or of lists, of a kind.
func representation(kind string) (request.Representation, bool) {
	switch kind {
	case "PartialObjectMetadata", "PartialObjectMetadataList":
		return request.Metadata, true
	case "Table", "Status":
		return "", false
	}
	return request.Object, true
}

// objectRow makes a row of an object that came alone. Rows are like the items of a list: without
// kind and apiVersion if items do not have them.
func objectRow(f request.Form, raw []byte, m wire.Meta) store.Object {
	// Partial objects have a kind in JSON lists, too.
	if f.Format == wire.JSON && f.Representation != request.Object {
		return itemRow(f, raw, m)
	}
	bare, ok := f.Format.Bare(raw)
	if !ok {
		return itemRow(f, raw, m)
	}
	o := itemRow(f, nil, m)
	o.Payload = bare
	if f.Format == wire.JSON {
		o.Encoding = store.JSONBare
	}
	return o
}

// itemRow makes a row of an item of a list.
func itemRow(f request.Form, raw []byte, m wire.Meta) store.Object {
	o := store.Object{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID,
		ResourceVersion: m.ResourceVersion, Labels: string(m.Labels),
	}
	switch {
	case f.Format == wire.Protobuf:
		o.Encoding = store.Protobuf
	case m.Kind == "":
		o.Encoding = store.JSONBare
	default:
		o.Encoding = store.JSON
	}
	o.Payload = slices.Clone(raw) // the caller reuses raw
	return o
}

// listKind is the kind of a list of objects of a kind.
func listKind(kind string) string { return kind + "List" }
func isListKind(kind string) bool { return strings.HasSuffix(kind, "List") }
func itemKind(list string) string { return strings.TrimSuffix(list, "List") }
