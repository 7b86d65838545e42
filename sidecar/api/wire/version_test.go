package wire

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestAtVersionChangesOnlyTheVersion(t *testing.T) {
	t.Run("protobuf", func(t *testing.T) {
		raw := encode(t, pod("a", 7))
		original := bytes.Clone(raw)
		got, err := Protobuf.AtVersion(raw, "123456")
		if err != nil || !bytes.Equal(raw, original) {
			t.Fatalf("%v, the original is unchanged: %v", err, bytes.Equal(raw, original))
		}
		if d := cmp.Diff(decode[corev1.Pod](t, encode(t, pod("a", 123456))), decode[corev1.Pod](t, got)); d != "" {
			t.Error(d)
		}
	})
	for name, tt := range map[string]struct{ object, want string }{
		"as the server writes it": {
			`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"7","labels":{"resourceVersion":"7"}},"spec":{}}`,
			`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"123","labels":{"resourceVersion":"7"}},"spec":{}}`,
		},
		"with space and the same words elsewhere": {
			` { "spec" : {"metadata":{"resourceVersion":"7"}}, "metadata" : { "resourceVersion" : "7" } } `,
			` { "spec" : {"metadata":{"resourceVersion":"7"}}, "metadata" : { "resourceVersion" : "123" } } `,
		},
	} {
		t.Run("JSON "+name, func(t *testing.T) {
			got, err := JSON.AtVersion([]byte(tt.object), "123")
			if err != nil || string(got) != tt.want {
				t.Errorf("%s %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestAtVersionFailsForAnObjectWithoutAVersion(t *testing.T) {
	for name, tt := range map[string]struct {
		format Format
		object string
	}{
		"JSON without metadata":         {JSON, `{"kind":"Pod"}`},
		"JSON without a version":        {JSON, `{"metadata":{"name":"a"}}`},
		"JSON whose metadata is a text": {JSON, `{"metadata":"a"}`},
		"truncated JSON":                {JSON, `{"metadata":{"resourceVersion":"7"`},
		"nothing":                       {JSON, ``},
		"protobuf without metadata":     {Protobuf, string(Protobuf.AppendTyped(nil, "Pod", "v1", nil))},
		"protobuf without its prefix":   {Protobuf, "abc"},
		"truncated protobuf":            {Protobuf, "k8s\x00\x12\x05\x0a"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := tt.format.AtVersion([]byte(tt.object), "1"); err == nil {
				t.Errorf("it became %q", got)
			}
		})
	}
}

func TestAnOrdinaryBookmarkHasOnlyAVersion(t *testing.T) {
	for _, format := range []Format{JSON, Protobuf} {
		m, err := format.ParseMeta(format.Bookmark("Pod", "v1", "99", false))
		if err != nil || m.InitialEventsEnd || m.ResourceVersion != "99" || m.Kind != "Pod" || m.APIVersion != "v1" {
			t.Errorf("%s: %+v %v", format.MediaType(), m, err)
		}
	}
}

// FuzzAtVersion changes the version of objects.
func FuzzAtVersion(f *testing.F) {
	f.Add([]byte(`{"kind":"Pod","metadata":{"name":"a","resourceVersion":"5"}}`))
	f.Add(encode(f, pod("a", 1)))
	f.Fuzz(func(t *testing.T, object []byte) {
		for _, format := range []Format{JSON, Protobuf} {
			before, err := format.ParseMeta(object)
			if err != nil {
				continue
			}
			got, err := format.AtVersion(object, "12345")
			if err != nil || bytes.Count(object, []byte("resourceVersion")) > 1 || bytes.Contains(object, []byte(`\`)) {
				continue
			}
			if format == JSON && json.Valid(object) && utf8.Valid(object) && !json.Valid(got) {
				t.Fatalf("%s became %s", object, got)
			}
			after, err := format.ParseMeta(got)
			before.ResourceVersion = "12345"
			if d := cmp.Diff(before, after); format == Protobuf && (err != nil || d != "") {
				t.Fatalf("%q became %q: %v %s", object, got, err, d)
			}
		}
	})
}
