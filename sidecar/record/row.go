package record

import (
	"hash/maphash"
	"io"
	"net/http"
	"slices"
	"strings"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// objectTee records the body of one object while it is read.
type objectTee struct {
	tee
	body   bodyBuffer
	source *Source
	format wire.Format
}

// teeObject records the body of a successful GET of one object while it is read. If it is not an
// object but, for example, a Table, it is recorded verbatim.
func (r *Recorder) teeObject(source *Source, format wire.Format, resp *http.Response) io.ReadCloser {
	if format == nil { // CBOR, YAML: it cannot be parsed
		return r.teeDocument(*source, format, resp)
	}
	t := &objectTee{source: source, format: format}
	t.body.recorder, t.body.max, t.body.source, t.body.done = r, wire.MaxValue, source, t.record
	t.body.pool()
	t.tee = teeOf(resp, &t.body)
	return t
}

// record records the whole body.
func (t *objectTee) record(raw []byte) {
	r := t.body.recorder
	if r.repeatsPoll(t.source, t.format, raw) {
		return
	}
	m, err := t.format.ParseMeta(raw)
	if err != nil {
		r.doubtOf(t.source)
		return
	}
	o, ok := r.recordRow(t.source, t.format, raw, m)
	if !ok {
		r.recordDocument(t.source, t.source.response(t.format.MediaType()), raw)
	}
	t.body.kept = o.Encoding != store.JSONBare // which has a copy
}

// recordSingle records an object. It returns false if raw is not an object.
func (r *Recorder) recordSingle(source *Source, format wire.Format, raw []byte, m wire.Meta) bool {
	_, ok := r.recordRow(source, format, raw, m)
	return ok
}

// recordRow is recordSingle that returns the row, too.
func (r *Recorder) recordRow(source *Source, format wire.Format, raw []byte, m wire.Meta) (o store.Object, ok bool) {
	rep, ok := representation(m.Kind)
	if !ok || m.Name == "" {
		return o, false
	}
	form := request.Form{Format: format, Representation: rep}
	o = objectRow(form, raw, m)
	e := source.evidence(store.Present, m.ResourceVersion)
	o.UpdatedAt, o.Asked, o.Told, o.Read = r.clock.Now(), e.Asked, e.Told, e.Read
	op := &putSingle{recorder: r, scope: source.singleScope(form), kind: m.Kind, apiVersion: m.APIVersion, object: o}
	if source.Info.Class == request.ClassGet {
		op.poll, op.hash = pollOf(source, format), itemHash(raw)
	}
	if !r.enqueueSingle(op) {
		op.lost()
	}
	return o, true
}

// isTable reports whether a body is a Table, in JSON or protobuf.
func isTable(raw []byte) bool {
	for _, format := range []wire.Format{wire.JSON, wire.Protobuf} {
		if m, err := format.ParseMeta(raw); err == nil && m.Kind == "Table" {
			return true
		}
	}
	return false
}

// representation is that of the objects, or lists, of a kind, or false if they have no rows.
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

// hashSeed makes the hashes of items those of this process.
var hashSeed = maphash.MakeSeed()

// itemHash is store.Object.Hash of an item of a list.
func itemHash(raw []byte) uint64 { return max(1, maphash.Bytes(hashSeed, raw)) }

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
