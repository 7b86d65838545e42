package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// jsonFormat is application/json.
type jsonFormat struct{}

func (jsonFormat) MediaType() string      { return MediaTypeJSON }
func (jsonFormat) WatchMediaType() string { return MediaTypeJSON }

func (jsonFormat) NewList(item func([]byte) error) ListSplitter     { return &List{Item: item} }
func (jsonFormat) NewFrames(frame func([]byte) error) FrameSplitter { return &Frames{Frame: frame} }

func (jsonFormat) ParseEvent(frame []byte) (Event, error) {
	var e Event
	err := Members(frame, func(key string, val []byte) (err error) {
		switch key {
		case "type":
			e.Type, err = Unquote(val)
		case "object":
			e.Object = val
		}
		return err
	})
	if err != nil {
		return Event{}, fmt.Errorf("watch event: %w", err)
	}
	if e.Type == "" || e.Object == nil {
		return Event{}, fmt.Errorf("watch event: %w: type and object are needed", errSyntax)
	}
	return e, nil
}

func (jsonFormat) AppendFrame(dst, frame []byte) []byte {
	return append(append(dst, frame...), '\n')
}

func (jsonFormat) AppendEvent(dst []byte, kind string, object []byte) []byte {
	dst = append(dst, `{"type":"`...)
	dst = append(dst, kind...)
	dst = append(dst, `","object":`...)
	dst = append(dst, bytes.TrimRight(object, " \r\n\t")...)
	return append(dst, "}\n"...)
}

func (jsonFormat) ParseMeta(object []byte) (Meta, error) {
	var m Meta
	err := Members(object, func(key string, val []byte) (err error) {
		switch key {
		case "kind":
			m.Kind, err = Unquote(val)
		case "apiVersion":
			m.APIVersion, err = Unquote(val)
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

// ParseItem is ParseMeta: an item of a list is an object that need not say its
// kind.
func (f jsonFormat) ParseItem(item []byte) (Meta, error) { return f.ParseMeta(item) }

func (m *Meta) parse(metadata []byte) error {
	if bytes.Equal(metadata, []byte("null")) {
		return nil
	}
	return Members(metadata, func(key string, val []byte) (err error) {
		switch key {
		case "namespace":
			m.Namespace, err = Unquote(val)
		case "name":
			m.Name, err = Unquote(val)
		case "uid":
			m.UID, err = Unquote(val)
		case "resourceVersion":
			m.ResourceVersion, err = Unquote(val)
		case "labels":
			if len(val) > 0 && val[0] == '{' {
				m.Labels = val
			}
		case "annotations":
			if len(val) > 0 && val[0] == '{' {
				err = Members(val, func(key string, val []byte) error {
					m.InitialEventsEnd = m.InitialEventsEnd || (key == InitialEventsEnd && string(val) == `"true"`)
					return nil
				})
			}
		}
		return err
	})
}

// Bare reports false for an object that does not start with kind and apiVersion:
// items of lists, and objects of custom resources, which say kind and apiVersion
// wherever they stand, also in lists.
func (jsonFormat) Bare(object []byte) ([]byte, bool) {
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

func (jsonFormat) AppendTyped(dst []byte, kind, apiVersion string, bare []byte) []byte {
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

func (jsonFormat) Bookmark(kind, apiVersion, resourceVersion string, end bool) []byte {
	out := fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":%q,"creationTimestamp":null`, kind, apiVersion, resourceVersion)
	if end {
		out = fmt.Appendf(out, `,"annotations":{%q:"true"}`, InitialEventsEnd)
	}
	return append(out, "}}"...)
}

func appendString(dst []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil { // a string always marshals
		panic(err)
	}
	return append(dst, quoted...)
}
