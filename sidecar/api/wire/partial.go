package wire

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Kind and apiVersion of the metadata of an object.
const (
	PartialKind       = "PartialObjectMetadata"
	PartialAPIVersion = "meta.k8s.io/v1"
)

func (f jsonFormat) AppendPartial(dst, item []byte) ([]byte, error) {
	metadata := []byte("{}")
	err := Members(item, func(key string, val []byte) error {
		if key == "metadata" {
			metadata = val
		}
		return nil
	})
	if err != nil {
		return dst, fmt.Errorf("object: %w", err)
	}
	dst = f.AppendTyped(dst, PartialKind, PartialAPIVersion, []byte(`{"metadata":`))
	return append(append(dst, metadata...), '}'), nil
}

// AppendPartial copies the metadata, which has the same field number in every object and in
// PartialObjectMetadata.
func (protobufFormat) AppendPartial(dst, item []byte) ([]byte, error) {
	err := fields(item, func(number protowire.Number, contents []byte) error {
		if number == objectMetadata && contents != nil {
			dst = appendField(dst, objectMetadata, contents)
		}
		return nil
	})
	if err != nil {
		return dst, fmt.Errorf("object: %w", err)
	}
	return dst, nil
}
