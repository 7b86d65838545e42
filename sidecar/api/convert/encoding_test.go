package convert

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/google/go-cmp/cmp"

	"rockpool.dev/sidecar/api/request"
)

// secret has what JSON, YAML and CBOR write in different ways.
func secret() *corev1.Secret {
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: "a", Generation: 1 << 53, Annotations: map[string]string{"yes": "no", "0": "1e3", "zß": "a\nb"}},
		Data:       map[string][]byte{"key": {0, 0xff, 'x'}, "empty": {}},
	}
}

func encode(t *testing.T, s runtime.Encoder, o runtime.Object) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Encode(o, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestEncodingsAreReadByTheirOwnLibraries converts from JSON, and reads the result with the
// serializers that the API server and client-go have, and the other way round.
func TestEncodingsAreReadByTheirOwnLibraries(t *testing.T) {
	inJSON := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{})
	for mediaType, s := range map[string]runtime.Serializer{
		request.MediaTypeYAML: json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Yaml: true}),
		request.MediaTypeCBOR: cbor.NewSerializer(scheme.Scheme, scheme.Scheme),
	} {
		t.Run(mediaType, func(t *testing.T) {
			want := secret()
			raw, err := FromJSON(mediaType, encode(t, inJSON, want))
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := s.Decode(raw, nil, nil)
			if err != nil || !cmp.Equal(got, runtime.Object(want)) {
				t.Errorf("from JSON: %v %s", err, cmp.Diff(want, got))
			}
			if mediaType == request.MediaTypeYAML && string(raw) != string(encode(t, s, want)) {
				t.Errorf("other bytes than the library's:\n%s", raw)
			}
			if raw, err = ToJSON(mediaType, encode(t, s, want)); err != nil {
				t.Fatal(err)
			}
			if got, _, err = inJSON.Decode(raw, nil, nil); err != nil || !cmp.Equal(got, runtime.Object(want)) {
				t.Errorf("to JSON: %v %s", err, cmp.Diff(want, got))
			}
		})
	}
}

func TestOtherEncodingsAreNotConverted(t *testing.T) {
	for _, mediaType := range []string{"", "application/json", "application/cbor-seq", "text/yaml", "application/vnd.kubernetes.protobuf"} {
		if _, err := FromJSON(mediaType, []byte(`{}`)); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("to %q: %v", mediaType, err)
		}
		if _, err := ToJSON(mediaType, []byte(`{}`)); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("from %q: %v", mediaType, err)
		}
	}
}

func TestMalformedEncodingsAreErrors(t *testing.T) {
	for _, tt := range []struct{ name, mediaType, raw string }{
		{"YAML", request.MediaTypeYAML, "a: [\n"},
		{"YAML with a key twice", request.MediaTypeYAML, "? [a]\n: b\n"},
		{"half an item", request.MediaTypeCBOR, "\xd9\xd9\xf7\xa1\x41a"},
		{"two items", request.MediaTypeCBOR, "\xa0\xa0"},
		{"a list", request.MediaTypeCBOR, "\x80"},
		{"a key twice", request.MediaTypeCBOR, "\xa2\x41a\x01\x41a\x02"},
		{"a number that is none in JSON", request.MediaTypeCBOR, "\xa1\x41a\xf9\x7e\x00"},
		{"empty", request.MediaTypeCBOR, ""},
	} {
		if raw, err := ToJSON(tt.mediaType, []byte(tt.raw)); err == nil {
			t.Errorf("%s: %s", tt.name, raw)
		}
	}
	for _, mediaType := range []string{request.MediaTypeYAML, request.MediaTypeCBOR} {
		if raw, err := FromJSON(mediaType, []byte(`{"a":`)); err == nil {
			t.Errorf("to %s: %s", mediaType, raw)
		}
	}
}

func decoded(t *testing.T, raw []byte) (value any) {
	t.Helper()
	if err := stdjson.Unmarshal(raw, &value); err != nil {
		t.Fatalf("%s is no JSON: %v", raw, err)
	}
	return value
}

// FuzzEncodings reads bodies of clients. What can be read can be written and read again.
func FuzzEncodings(f *testing.F) {
	for _, seed := range []string{"a: 1\n", "a: &x [1]\nb: *x\n", "\xd9\xd9\xf7\xa1\x41a\x42xy", "\xa1\x61a\xd6\x41x", "\xa1\x41\xff\x01", "\xa1\x41a\xfb\x3f\xf1\x99\x99\x99\x99\x99\x9a"} {
		f.Add(false, []byte(seed))
		f.Add(true, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, isYAML bool, raw []byte) {
		mediaType := request.MediaTypeCBOR
		if isYAML {
			mediaType = request.MediaTypeYAML
		}
		first, err := ToJSON(mediaType, raw)
		if err != nil || first[0] != '{' {
			return
		}
		again, err := FromJSON(mediaType, first)
		if err != nil {
			t.Fatalf("%s cannot be written: %v", first, err)
		}
		second, err := ToJSON(mediaType, again)
		if err != nil || !cmp.Equal(decoded(t, first), decoded(t, second)) {
			t.Fatalf("%s became %s: %v", first, second, err)
		}
	})
}
