package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// decoded is an answer of the API. The tests decode it without Rockpool's code.
type decoded struct {
	kind, apiVersion string
	version, next    string   // resourceVersion and continue of a list
	bookmarks        []string // of a watch: their resourceVersions, of which the last is version
	objects          map[string]decodedObject
	order            []string // the keys of objects, as they came
	ended            bool     // of a watch: the bookmark after the initial events has come
}

// decodedObject is one object of an answer.
type decodedObject struct {
	uid, version string
	raw          []byte // protobuf: the message without its envelope
	value        any    // JSON
}

const initialEventsEnd = "k8s.io/initial-events-end"

// decodeObject decodes the answer to a GET, which may be a Table of one row.
func decodeObject(f getResponse) (d decoded, err error) {
	d.objects = map[string]decodedObject{}
	if f.isProtobuf() {
		u, err := envelope(f.Body)
		if err != nil {
			return d, err
		}
		d.kind, d.apiVersion = u.Kind, u.APIVersion
		_, err = d.addMessage(u.Raw)
		return d, err
	}
	value, err := decodeJSON(f.Body)
	if err != nil {
		return d, err
	}
	d.kind, d.apiVersion = str(value["kind"]), str(value["apiVersion"])
	if d.kind == "Table" {
		return decodeList(f)
	}
	d.addValue(value)
	return d, nil
}

// decodeList decodes the answer to a LIST, which may be a Table.
func decodeList(f getResponse) (d decoded, err error) {
	d.objects = map[string]decodedObject{}
	if f.isProtobuf() {
		u, err := envelope(f.Body)
		if err != nil {
			return d, err
		}
		d.kind, d.apiVersion = u.Kind, u.APIVersion
		return d, eachField(u.Raw, func(number protowire.Number, contents []byte) error {
			switch number {
			case 1: // ListMeta
				var m metav1.ListMeta
				err := m.Unmarshal(contents)
				d.version, d.next = m.ResourceVersion, m.Continue
				return err
			case 2: // items
				_, err := d.addMessage(contents)
				return err
			}
			return fmt.Errorf("field %d in a list", number)
		})
	}
	value, err := decodeJSON(f.Body)
	if err != nil {
		return d, err
	}
	d.kind, d.apiVersion = str(value["kind"]), str(value["apiVersion"])
	m, _ := value["metadata"].(map[string]any)
	d.version, d.next = str(m["resourceVersion"]), str(m["continue"])
	if d.kind == "Table" {
		rows, _ := value["rows"].([]any)
		for _, row := range rows {
			fields, _ := row.(map[string]any)
			d.addValue(fields["object"])
		}
		return d, nil
	}
	items, ok := value["items"].([]any)
	if !ok && value["items"] != nil {
		return d, fmt.Errorf("items are a %T", value["items"])
	}
	for _, item := range items {
		d.addValue(item)
	}
	return d, nil
}

// decodeWatch decodes the frames of a watch that has sent only its initial events.
func decodeWatch(f getResponse) (d decoded, err error) {
	d.objects = map[string]decodedObject{}
	if f.isProtobuf() {
		return d, d.protobufFrames(f.Body)
	}
	frames := json.NewDecoder(bytes.NewReader(f.Body))
	frames.UseNumber()
	for {
		var event struct {
			Type   string
			Object map[string]any
		}
		if err := frames.Decode(&event); errors.Is(err, io.EOF) {
			return d, nil
		} else if err != nil {
			return d, err
		}
		m, _ := event.Object["metadata"].(map[string]any)
		annotations, _ := m["annotations"].(map[string]any)
		switch event.Type {
		case "ADDED":
			d.kind, d.apiVersion = str(event.Object["kind"]), str(event.Object["apiVersion"])
			d.addValue(event.Object)
		case "BOOKMARK":
			d.version, d.ended = str(m["resourceVersion"]), d.ended || annotations[initialEventsEnd] == "true"
			d.bookmarks = append(d.bookmarks, d.version)
		default:
			return d, fmt.Errorf("event %s of %v", event.Type, event.Object)
		}
	}
}

func (d *decoded) protobufFrames(body []byte) error {
	for len(body) > 0 {
		if len(body) < 4 || len(body)-4 < int(binary.BigEndian.Uint32(body)) {
			return io.ErrUnexpectedEOF
		}
		var event metav1.WatchEvent
		size := binary.BigEndian.Uint32(body)
		if err := event.Unmarshal(body[4 : 4+size]); err != nil {
			return err
		}
		body = body[4+size:]
		u, err := envelope(event.Object.Raw)
		if err != nil {
			return err
		}
		switch event.Type {
		case "ADDED":
			d.kind, d.apiVersion = u.Kind, u.APIVersion
			_, err = d.addMessage(u.Raw)
		case "BOOKMARK":
			var m metav1.ObjectMeta
			m, err = metaOf(u.Raw)
			d.version, d.ended = m.ResourceVersion, d.ended || m.Annotations[initialEventsEnd] == "true"
			d.bookmarks = append(d.bookmarks, d.version)
		default:
			err = fmt.Errorf("event %s of %s", event.Type, u.Kind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// envelope removes the magic number and runtime.Unknown.
func envelope(body []byte) (u runtime.Unknown, err error) {
	rest, ok := bytes.CutPrefix(body, []byte("k8s\x00"))
	if !ok {
		return u, fmt.Errorf("not Kubernetes protobuf: %.80q", body)
	}
	return u, u.Unmarshal(rest)
}

// metaOf decodes the metadata of a message without envelope: field 1 of every object.
func metaOf(message []byte) (m metav1.ObjectMeta, err error) {
	err = eachField(message, func(number protowire.Number, contents []byte) error {
		if number == 1 {
			return m.Unmarshal(contents)
		}
		return nil
	})
	return m, err
}

func eachField(message []byte, f func(protowire.Number, []byte) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		var contents []byte
		if kind == protowire.BytesType {
			contents, n = protowire.ConsumeBytes(message)
		} else {
			n = protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(number, contents); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}

func (d *decoded) addMessage(message []byte) (m metav1.ObjectMeta, err error) {
	if m, err = metaOf(message); err == nil {
		d.add(m.Namespace+"/"+m.Name, decodedObject{uid: string(m.UID), version: m.ResourceVersion, raw: message})
	}
	return m, err
}

func (d *decoded) addValue(value any) {
	fields, _ := value.(map[string]any)
	m, _ := fields["metadata"].(map[string]any)
	d.add(str(m["namespace"])+"/"+str(m["name"]), decodedObject{uid: str(m["uid"]), version: str(m["resourceVersion"]), value: value})
}

func (d *decoded) add(key string, o decodedObject) {
	if _, ok := d.objects[key]; !ok {
		d.order = append(d.order, key)
	}
	d.objects[key] = o
}

// decodeJSON decodes an object and keeps the text of numbers.
func decodeJSON(body []byte) (value map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&value); err != nil {
		return nil, err
	}
	if rest, err := io.ReadAll(d.Buffered()); err != nil || strings.TrimSpace(string(rest)) != "" {
		return nil, fmt.Errorf("data after the document: %q %v", rest, err)
	}
	return value, nil
}

func str(value any) string {
	s, _ := value.(string)
	return s
}

// newest returns the greater of two resourceVersions.
func newest(a, b string) string {
	x, _ := strconv.ParseUint(a, 10, 64) // an empty one is 0
	y, _ := strconv.ParseUint(b, 10, 64)
	if x > y {
		return a
	}
	return b
}

// isAsNewAsOneOf reports whether a resourceVersion is one of those, or newer than one of them: a
// watch of the sidecar's own may have moved a collection on.
func isAsNewAsOneOf(versions []string, version string) bool {
	return slices.ContainsFunc(versions, func(v string) bool { return v != "" && newest(v, version) == version })
}
