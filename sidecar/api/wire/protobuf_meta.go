package wire

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

func (protobufFormat) ParseItem(item []byte) (m Meta, err error) {
	var l labels
	err = fields(item, func(number protowire.Number, contents []byte) error {
		if number != objectMetadata {
			return nil
		}
		return fields(contents, func(number protowire.Number, contents []byte) error {
			switch number {
			case metaName:
				m.Name = string(contents)
			case metaNamespace:
				m.Namespace = string(contents)
			case metaUID:
				m.UID = string(contents)
			case metaResourceVersion:
				m.ResourceVersion = string(contents)
			case metaLabels:
				key, value, err := entry(contents)
				l.add(key, value)
				return err
			case metaAnnotations:
				key, value, err := entry(contents)
				m.InitialEventsEnd = m.InitialEventsEnd || (string(key) == InitialEventsEnd && string(value) == "true")
				return err
			}
			return nil
		})
	})
	if err != nil {
		return Meta{}, fmt.Errorf("object metadata: %w", err)
	}
	m.Labels, err = l.object()
	return m, err
}

// entry reads an entry of a map from string to string.
func entry(message []byte) (key, value []byte, err error) {
	err = fields(message, func(number protowire.Number, contents []byte) error {
		switch number {
		case entryKey:
			key = contents
		case entryValue:
			value = contents
		}
		return nil
	})
	return key, value, err
}

// labels collects the labels of an object as a JSON object.
type labels struct {
	json []byte            // without its end
	last []byte            // key; each is above the one before, as the API server sorts them
	all  map[string]string // nil: they are sorted
}

func (l *labels) add(key, value []byte) {
	if l.all == nil && (l.json == nil || string(key) > string(l.last)) {
		open := byte(',')
		if l.json == nil {
			l.json, open = make([]byte, 0, 128), '{'
		}
		l.json = appendText(append(l.json, open), key)
		l.json = appendText(append(l.json, ':'), value)
		l.last = key
		return
	}
	if l.all == nil {
		l.all = map[string]string{}
		_ = json.Unmarshal(append(l.json, '}'), &l.all) // it was written above
	}
	l.all[string(key)] = string(value)
}

// object returns the JSON object, nil if there are no labels.
func (l *labels) object() ([]byte, error) {
	switch {
	case l.all != nil:
		return json.Marshal(l.all)
	case l.json != nil:
		return append(l.json, '}'), nil
	}
	return nil, nil
}

// appendText adds a JSON string. Most labels need no escapes.
func appendText(dst, text []byte) []byte {
	for _, c := range text {
		if c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return appendString(dst, string(text))
		}
	}
	dst = append(append(dst, '"'), text...)
	return append(dst, '"')
}
