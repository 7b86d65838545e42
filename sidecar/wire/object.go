package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// InitialEventsEnd is the annotation of the bookmark that ends the initial
// events of a watch with sendInitialEvents=true (KEP-3157).
const InitialEventsEnd = "k8s.io/initial-events-end"

// Meta is the part of an object that identifies it.
type Meta struct {
	Kind, APIVersion string
	Namespace, Name  string
	UID              string
	ResourceVersion  string
	// Labels is the JSON object of the labels, nil when there are none. It is a
	// part of the input.
	Labels []byte
	// InitialEventsEnd tells that the annotation of that name is "true".
	InitialEventsEnd bool
}

// ParseMeta reads the identity of an object, whatever its kind, without
// decoding the rest of it.
func ParseMeta(object []byte) (Meta, error) {
	var m Meta
	err := members(object, func(key string, val []byte) (err error) {
		switch key {
		case "kind":
			m.Kind, err = unquote(val)
		case "apiVersion":
			m.APIVersion, err = unquote(val)
		case "metadata":
			err = m.parse(val)
		}
		return err
	})
	if err != nil {
		return Meta{}, fmt.Errorf("object metadata: %w", err)
	}
	return m, nil
}

func (m *Meta) parse(metadata []byte) error {
	if bytes.Equal(metadata, []byte("null")) {
		return nil
	}
	return members(metadata, func(key string, val []byte) (err error) {
		switch key {
		case "namespace":
			m.Namespace, err = unquote(val)
		case "name":
			m.Name, err = unquote(val)
		case "uid":
			m.UID, err = unquote(val)
		case "resourceVersion":
			m.ResourceVersion, err = unquote(val)
		case "labels":
			if len(val) > 0 && val[0] == '{' {
				m.Labels = val
			}
		case "annotations":
			if len(val) > 0 && val[0] == '{' {
				err = members(val, func(key string, val []byte) error {
					m.InitialEventsEnd = m.InitialEventsEnd || (key == InitialEventsEnd && string(val) == `"true"`)
					return nil
				})
			}
		}
		return err
	})
}

// Bare takes kind and apiVersion off the head of a typed object, which makes it
// look as it does among the items of a typed list. It reports false for an
// object that does not start with the two: items of lists, and objects of custom
// resources, which say kind and apiVersion wherever they stand.
func Bare(object []byte) ([]byte, bool) {
	p := object[skipSpace(object):]
	if len(p) == 0 || p[0] != '{' {
		return object, false
	}
	p = p[1:]
	for _, want := range [...]string{"kind", "apiVersion"} {
		key, _, rest, err := member(p)
		if err != nil || key != want {
			return object, false
		}
		rest = rest[skipSpace(rest):]
		if len(rest) == 0 || rest[0] != ',' {
			return object, false
		}
		p = rest[1:]
	}
	bare := make([]byte, 0, len(p)+1)
	bare = append(bare, '{')
	return append(bare, p...), true
}

// AppendTyped adds a bare object with its kind and apiVersion to dst: the
// reverse of Bare.
func AppendTyped(dst []byte, kind, apiVersion string, bare []byte) []byte {
	p := bare[skipSpace(bare):]
	if len(p) == 0 || p[0] != '{' {
		return append(dst, bare...)
	}
	dst = append(dst, `{"kind":`...)
	dst = appendString(dst, kind)
	dst = append(dst, `,"apiVersion":`...)
	dst = appendString(dst, apiVersion)
	p = p[1:]
	if rest := p[skipSpace(p):]; len(rest) > 0 && rest[0] != '}' {
		dst = append(dst, ',')
	}
	return append(dst, p...)
}

func appendString(dst []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil { // a string always marshals
		panic(err)
	}
	return append(dst, quoted...)
}
