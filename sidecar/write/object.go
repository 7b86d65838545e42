package write

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"rockpool.dev/sidecar/api/convert"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
)

// ErrNeedsServer says that only the API server can carry a write out. Its text, after this
// one, says why.
var ErrNeedsServer = errors.New("only the API server can do this")

// Object is an API object as encoding/json decodes it, but with numbers as they stand there.
type Object map[string]any

// Read reads the body of a POST or PUT of an object of a kind. Errors are ErrNeedsServer,
// and the API server's own for a body that is no such object.
func Read(kind convert.Kind, contentType string, body []byte) (Object, error) {
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.TrimSpace(mediaType)
	var err error
	switch format := wire.FormatOf(mediaType); {
	case mediaType == "": // is JSON to the API server
	case format == nil:
		body, err = convert.ToJSON(mediaType, body)
	case format == wire.Protobuf:
		body, err = toJSON(kind, body)
	}
	var o Object
	if err == nil {
		o, err = decode(body)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, fmt.Errorf("%w: read %s", ErrNeedsServer, mediaType)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest("the object provided cannot be read: " + err.Error())
	}
	for field, want := range map[string]string{"kind": kind.Kind, "apiVersion": kind.APIVersion} {
		if have := o.Text(field); have != want && o[field] != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the %s in the data (%s) does not match the expected %s (%s)", field, have, field, want))
		}
		o[field] = want
	}
	if _, ok := o["metadata"].(map[string]any); !ok && o["metadata"] != nil {
		return nil, apierrors.NewBadRequest("the metadata in the data is no object")
	}
	return o, nil
}

// Decode reads an object in JSON that was written here, or by the API server.
func Decode(body []byte) (Object, error) { return decode(body) }

func decode(body []byte) (Object, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var o Object
	if err := decoder.Decode(&o); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more behind the object")
	}
	if o == nil {
		return nil, errors.New("it is null")
	}
	return o, nil
}

// JSON is the object's encoding. Equal objects are equal bytes.
func (o Object) JSON() []byte {
	raw, err := json.Marshal(o)
	if err != nil { // it was decoded from JSON
		panic("written: " + err.Error())
	}
	return raw
}

// Text gives the string at a path of members, empty if there is none.
func (o Object) Text(path ...string) string {
	text, _ := o.at(path).(string)
	return text
}

// Int gives the whole number at a path of members, 0 if there is none.
func (o Object) Int(path ...string) int64 {
	number, _ := o.at(path).(json.Number)
	n, err := number.Int64()
	if err != nil {
		return 0
	}
	return n
}

func (o Object) at(path []string) any {
	var value any = map[string]any(o)
	for _, member := range path {
		members, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = members[member]
	}
	return value
}

// Metadata gives the object's metadata, to be changed.
func (o Object) Metadata() map[string]any {
	metadata, ok := o["metadata"].(map[string]any)
	if !ok {
		metadata = map[string]any{}
		o["metadata"] = metadata
	}
	return metadata
}

// toJSON reads a typed object in protobuf.
func toJSON(kind convert.Kind, body []byte) ([]byte, error) {
	m, err := wire.Protobuf.ParseMeta(body)
	if err != nil {
		return nil, err
	}
	bare, ok := wire.Protobuf.Bare(body)
	f := convert.Find(kind, form(wire.Protobuf), form(wire.JSON))
	if !ok || f == nil {
		return nil, fmt.Errorf("it is no %s in protobuf", kind.Kind)
	}
	raw, err := f(nil, bare)
	if err != nil {
		return nil, err
	}
	return wire.JSON.AppendTyped(nil, m.Kind, m.APIVersion, raw), nil
}

func form(f wire.Format) request.Form {
	return request.Form{Format: f, Representation: request.Object}
}

// Answer gives an object of a kind as the answer to a request, in the best of the forms that
// its client takes. Detail says to a person who looks at the headers what it is (RFC 9211).
// The error is ErrNeedsServer when the client takes no form that can be made here, and a
// BadRequest when the object has fields that its kind has not.
func Answer(info *request.Info, kind convert.Kind, code int, o Object, detail string) (*http.Response, error) {
	for _, to := range info.Forms() {
		if to.Representation != request.Object {
			continue
		}
		raw := o.JSON()
		if to.Format == wire.Protobuf {
			f := convert.Find(kind, form(wire.JSON), to)
			if f == nil {
				continue
			}
			bare, err := f(nil, raw)
			if err != nil {
				return nil, apierrors.NewBadRequest("the object provided cannot be read: " + err.Error())
			}
			raw = wire.Protobuf.AppendTyped(nil, kind.Kind, kind.APIVersion, bare)
		}
		return response(to.Format.MediaType(), code, raw, detail), nil
	}
	if inJSON, mediaType, ok := info.InJSON(); ok && slices.Contains(inJSON.Forms(), form(wire.JSON)) {
		raw, err := convert.FromJSON(mediaType, o.JSON())
		if err != nil {
			return nil, apierrors.NewBadRequest("the object provided cannot be read: " + err.Error())
		}
		return response(mediaType, code, raw, detail), nil
	}
	return nil, fmt.Errorf("%w: answer as %s", ErrNeedsServer, info.RawAccept)
}

func response(mediaType string, code int, raw []byte, detail string) *http.Response {
	return &http.Response{
		Status: fmt.Sprintf("%d %s", code, http.StatusText(code)), StatusCode: code,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {mediaType}, "Cache-Status": {fmt.Sprintf("rockpool; detail=%q", detail)}},
		Body:          io.NopCloser(bytes.NewReader(raw)),
		ContentLength: int64(len(raw)),
	}
}
