package convert

import (
	stdjson "encoding/json"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"rockpool.dev/sidecar/api/request"
)

// selfDescribed is the tag with which the API server begins CBOR (RFC 8949 §3.4.6).
var selfDescribed = []byte{0xd9, 0xd9, 0xf7}

// FromJSON converts an object or a list from JSON to YAML or CBOR, as the API server encodes it. It
// holds the whole value in memory, in about 15 times the size of raw. The error is
// errors.ErrUnsupported for other media types.
func FromJSON(mediaType string, raw []byte) ([]byte, error) {
	switch mediaType {
	case request.MediaTypeYAML:
		return yaml.JSONToYAML(raw)
	case request.MediaTypeCBOR:
		var value any // whole numbers must not become floating-point ones
		if err := json.Unmarshal(raw, &value); err != nil {
			return nil, err
		}
		data, err := direct.Marshal(value)
		if err != nil {
			return nil, err
		}
		return append(selfDescribed[:len(selfDescribed):len(selfDescribed)], data...), nil
	}
	return nil, fmt.Errorf("%w: JSON to %s", errors.ErrUnsupported, mediaType)
}

// ToJSON converts an object in YAML or CBOR to JSON, as the API server reads it. The error is
// errors.ErrUnsupported for other media types.
func ToJSON(mediaType string, raw []byte) ([]byte, error) {
	switch mediaType {
	case request.MediaTypeYAML:
		return yaml.YAMLToJSON(raw)
	case request.MediaTypeCBOR:
		var object map[string]any
		if err := direct.Unmarshal(raw, &object); err != nil {
			return nil, err
		}
		return stdjson.Marshal(object)
	}
	return nil, fmt.Errorf("%w: %s to JSON", errors.ErrUnsupported, mediaType)
}
