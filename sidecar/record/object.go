package record

import (
	"io"
	"net/http"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
)

// teeObject records the body of a successful GET of one object while it is read. If it is not an
// object but, for example, a Table, it is recorded verbatim.
func (r *Recorder) teeObject(source Source, format wire.Format, resp *http.Response) io.ReadCloser {
	if format == nil { // CBOR, YAML: it cannot be parsed
		return r.teeDocument(source, format, resp)
	}
	return newTee(resp, r.bodyBuffer(wire.MaxValue, func(raw []byte) {
		m, err := format.ParseMeta(raw)
		if err == nil && !r.recordSingle(source, format, raw, m) {
			r.recordDocument(&source, source.response(format.MediaType()), raw)
		}
	}))
}

// recordSingle records an object. It returns false if raw is not an object.
func (r *Recorder) recordSingle(source Source, format wire.Format, raw []byte, m wire.Meta) bool {
	rep, ok := representation(m.Kind)
	if !ok || m.Name == "" {
		return false
	}
	form := request.Form{Format: format, Representation: rep}
	o := objectRow(form, raw, m)
	o.UpdatedAt = r.clock.Now()
	op := putSingle{scope: source.singleScope(form), kind: m.Kind, apiVersion: m.APIVersion, object: o, source: &source}
	if !r.enqueueSingle(op) && source.wantsLatest() {
		r.invalidateObject(&source, o.Namespace, o.Name)
	}
	return true
}
