package wire

import (
	"bytes"
	"encoding/json"
	"errors"
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

// ParseMeta stops after the metadata if the rest contains neither kind nor apiVersion. They seldom
// follow, and the rest is most of an object.
func (jsonFormat) ParseMeta(object []byte) (Meta, error) {
	var m Meta
	_, err := members(object, func(key, p []byte) (rest []byte, err error) {
		var val []byte
		switch string(key) {
		case `"metadata"`:
			if rest, err = m.read(p); err == nil && !bytes.Contains(rest, []byte(`kind"`)) && !bytes.Contains(rest, []byte(`apiVersion"`)) {
				err = errFound
			}
			return rest, err
		case `"kind"`:
			val, rest, err = cutValue(p)
			m.Kind = unquote(val, &err)
		case `"apiVersion"`:
			val, rest, err = cutValue(p)
			m.APIVersion = unquote(val, &err)
		default:
			_, rest, err = cutValue(p)
		}
		return rest, err
	})
	if err != nil && !errors.Is(err, errFound) {
		return Meta{}, fmt.Errorf("object metadata: %w", err)
	}
	return m, nil
}

// unquote calls Unquote unless *err is set, and sets *err.
func unquote(val []byte, err *error) (s string) {
	if *err == nil {
		s, *err = Unquote(val)
	}
	return s
}

// ParseItem is ParseMeta, which allows an object without a kind.
func (f jsonFormat) ParseItem(item []byte) (Meta, error) { return f.ParseMeta(item) }

// read reads the metadata at the start of p, and returns the bytes after it.
func (m *Meta) read(p []byte) (rest []byte, err error) {
	if len(p) == 0 || p[0] != '{' {
		val, rest, err := cutValue(p)
		if err == nil && !bytes.Equal(val, []byte("null")) {
			err = fmt.Errorf("%w: an object was expected", errSyntax)
		}
		return rest, err
	}
	return members(p, func(key, p []byte) ([]byte, error) {
		val, rest, err := cutValue(p)
		if err != nil {
			return nil, err
		}
		switch string(key) {
		case `"namespace"`:
			m.Namespace, err = Unquote(val)
		case `"name"`:
			m.Name, err = Unquote(val)
		case `"uid"`:
			m.UID, err = Unquote(val)
		case `"resourceVersion"`:
			m.ResourceVersion, err = Unquote(val)
		case `"labels"`:
			if val[0] == '{' {
				m.Labels, err = val, onlyTexts(val)
			}
		case `"annotations"`:
			if val[0] == '{' && bytes.Contains(val, []byte(InitialEventsEnd)) {
				err = Members(val, func(key string, val []byte) error {
					m.InitialEventsEnd = m.InitialEventsEnd || (key == InitialEventsEnd && string(val) == `"true"`)
					return nil
				})
			}
		}
		return rest, err
	})
}

// onlyTexts returns an error unless all members of an object are strings or null.
func onlyTexts(object []byte) error {
	_, err := members(object, func(key, p []byte) ([]byte, error) {
		val, rest, err := cutValue(p)
		if err == nil && val[0] != '"' && val[0] != 'n' {
			err = fmt.Errorf("%w: label %s: a string was expected, not %q", errSyntax, key, val[0])
		}
		return rest, err
	})
	return err
}

// Bare reports false for an object that does not start with kind and apiVersion: an item of a list,
// or a custom resource, which has kind and apiVersion also as an item.
func (jsonFormat) Bare(object []byte) ([]byte, bool) {
	p := object[skipSpace(object):]
	if len(p) == 0 || p[0] != '{' {
		return object, false
	}
	p = p[1:]
	for _, want := range [...]string{`"kind"`, `"apiVersion"`} {
		key, rest, err := cutKey(p)
		if err != nil || string(key) != want {
			return object, false
		}
		if _, rest, err = cutValue(rest); err != nil {
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
	out := fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":%q,"creationTimestamp":null`,
		kind, apiVersion, resourceVersion)
	if end {
		out = fmt.Appendf(out, `,"annotations":{%q:"true"}`, InitialEventsEnd)
	}
	return append(out, "}}"...)
}

func appendString(dst []byte, s string) []byte {
	if isPlain(s) {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	quoted, err := json.Marshal(s)
	if err != nil { // a string always marshals
		panic(err)
	}
	return append(dst, quoted...)
}

// isPlain reports whether a string is quoted in JSON as it is.
func isPlain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '/', c == '-':
		default:
			return false
		}
	}
	return true
}
