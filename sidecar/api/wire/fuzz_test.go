package wire

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
)

// More fuzz targets are next to the tests of the same code: FuzzList, FuzzFrames, FuzzObject,
// FuzzProtobufList, FuzzProtobufWatch.

// FuzzMeta compares ParseMeta with encoding/json.
func FuzzMeta(f *testing.F) {
	f.Add([]byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"n","uid":"u","resourceVersion":"5","labels":{"a":"b"}}}`))
	f.Fuzz(func(t *testing.T, object []byte) {
		got, err := JSON.ParseMeta(object)
		if item, errItem := JSON.ParseItem(object); !cmp.Equal(got, item) || (err == nil) != (errItem == nil) {
			t.Fatalf("as an item it is %+v %v, alone %+v %v", item, errItem, got, err)
		}
		if err != nil || !json.Valid(object) || !utf8.Valid(object) || bytes.Count(object, []byte("metadata")) > 1 || bytes.Contains(object, []byte(`\`)) {
			return
		}
		if len(got.Labels) > 0 && !json.Valid(got.Labels) {
			t.Fatalf("labels %s", got.Labels)
		}
		var document map[string]any
		if json.Unmarshal(object, &document) != nil {
			return
		}
		metadata, _ := document["metadata"].(map[string]any)
		text := func(m map[string]any, key string) string {
			s, _ := m[key].(string)
			return s
		}
		want := Meta{
			Kind: text(document, "kind"), APIVersion: text(document, "apiVersion"),
			Name: text(metadata, "name"), Namespace: text(metadata, "namespace"), UID: text(metadata, "uid"), ResourceVersion: text(metadata, "resourceVersion"),
			Labels: got.Labels, InitialEventsEnd: got.InitialEventsEnd,
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

// FuzzEvent parses events and rebuilds them.
func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"a"}}}`))
	f.Fuzz(func(t *testing.T, frame []byte) {
		e, err := JSON.ParseEvent(frame)
		if err != nil {
			return
		}
		_, _ = JSON.ParseMeta(e.Object) // any result is fine, but it must return
		if !slices.Contains([]string{Added, Modified, Deleted, Bookmark, Error}, e.Type) || !json.Valid(e.Object) {
			return
		}
		body := JSON.AppendEvent(nil, e.Type, e.Object)
		if !json.Valid(body) {
			t.Fatalf("%s became %s", frame, body)
		}
		again, err := JSON.ParseEvent(bytes.TrimSpace(body))
		if err != nil || again.Type != e.Type || !bytes.Equal(bytes.TrimSpace(again.Object), bytes.TrimSpace(e.Object)) {
			t.Fatalf("%s %s became %s %s: %v", e.Type, e.Object, again.Type, again.Object, err)
		}
	})
}

// FuzzProtobufObject parses objects and rebuilds them.
func FuzzProtobufObject(f *testing.F) {
	f.Add(encode(f, pod("a", 1)))
	f.Add(Protobuf.Bookmark("Pod", "v1", "7", true))
	f.Fuzz(func(t *testing.T, object []byte) {
		original := bytes.Clone(object)
		m, err := Protobuf.ParseMeta(object)
		_, _ = Protobuf.ParseItem(object)
		bare, ok := Protobuf.Bare(object)
		if ok {
			clear(object) // bare must not share memory with it
		}
		if err != nil || !ok {
			return
		}
		item, err := Protobuf.ParseItem(bare)
		if err != nil {
			t.Fatalf("%q can be read and %q cannot: %v", original, bare, err)
		}
		typed := Protobuf.AppendTyped(nil, m.Kind, m.APIVersion, bare)
		again, err := Protobuf.ParseMeta(typed)
		// m.Labels may share memory with the cleared object; an item has no kind.
		m.Labels, item.Kind, item.APIVersion = item.Labels, again.Kind, again.APIVersion
		if err != nil || !cmp.Equal(again, item) || !cmp.Equal(again, m) {
			t.Fatalf("%+v became %+v and %+v: %v", m, again, item, err)
		}
	})
}

// FuzzProtobufFrames writes the same body in chunks and at once.
func FuzzProtobufFrames(f *testing.F) {
	f.Add(watchBody(f, pod("a", 1), pod("b", 2)), 7)
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 9, 0}, 1)
	f.Fuzz(func(t *testing.T, body []byte, chunk int) {
		if chunk < 1 || chunk > 1<<16 {
			return
		}
		run := func(chunk int) (frames []string, rebuilt []byte, failed bool) {
			s := Protobuf.NewFrames(func(raw []byte) error {
				frames = append(frames, string(raw))
				rebuilt = Protobuf.AppendFrame(rebuilt, raw)
				return nil
			})
			for p := range slices.Chunk(body, chunk) {
				if _, err := s.Write(p); err != nil {
					return frames, rebuilt, true
				}
			}
			return frames, rebuilt, s.Partial()
		}
		a, rebuilt, failedA := run(chunk)
		b, _, failedB := run(len(body) + 1)
		if failedA != failedB || !slices.Equal(a, b) {
			t.Fatalf("chunks of %d: %q %v; at once: %q %v", chunk, a, failedA, b, failedB)
		}
		if !strings.HasPrefix(string(body), string(rebuilt)) || (!failedA && len(rebuilt) != len(body)) {
			t.Fatalf("%q was rebuilt as %q", body, rebuilt)
		}
	})
}

// FuzzProtobufField compares the short way to a field with that of protowire.
func FuzzProtobufField(f *testing.F) {
	for _, seed := range []string{"\x0a\x01a", "\x08\x01", "\x0a\x80\x01", "\x08\x80\x01", "\xa2\x06\x03new", "\x00\x00", "\x0b\x0c", "\x0d\x01\x02\x03\x04", "\x0a\x05a"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		number, kind, begin, end, err := cutField(message)
		wantNumber, wantKind, tag := protowire.ConsumeTag(message)
		size := tag
		if tag >= 0 {
			if size = protowire.ConsumeFieldValue(wantNumber, wantKind, message[tag:]); size >= 0 {
				size += tag
			}
		}
		if (err == nil) != (size >= 0) {
			t.Fatalf("%v, and protowire says %v", err, size)
		}
		if err != nil {
			return
		}
		want := message[tag:size]
		if wantKind == protowire.BytesType {
			want, _ = protowire.ConsumeBytes(want)
		}
		if number != wantNumber || kind != wantKind || end != size || !bytes.Equal(message[begin:end], want) {
			t.Fatalf("field %d of kind %d at %d to %d, want %d %d to %d: %q", number, kind, begin, end, wantNumber, wantKind, size, want)
		}
	})
}
