package convert

import (
	"bytes"
	"encoding/json"
	"math/rand"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/kubernetes/scheme"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
)

var (
	jsonObject       = request.Form{Format: wire.JSON, Representation: request.Object}
	jsonMetadata     = request.Form{Format: wire.JSON, Representation: request.Metadata}
	protobufObject   = request.Form{Format: wire.Protobuf, Representation: request.Object}
	protobufMetadata = request.Form{Format: wire.Protobuf, Representation: request.Metadata}
)

// generated has the methods that the generated code of k8s.io/api adds to its types.
type generated interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// forEachKind calls f with random objects of each kind. They are decoded from protobuf, as a server
// reads them from etcd.
func forEachKind(t *testing.T, f func(t *testing.T, kind schema.GroupVersionKind, object generated, raw []byte)) {
	all := kinds()
	if len(all) < 150 {
		t.Fatalf("only %d kinds", len(all))
	}
	random := fuzzer.FuzzerFor(metafuzzer.Funcs, rand.NewSource(7), scheme.Codecs)
	for kind, typ := range all {
		t.Run(kind.String(), func(t *testing.T) {
			for round := range 8 {
				object := reflect.New(typ).Interface().(generated)
				if round > 0 { // the first object is empty
					random.NilChance(1-float64(round)/20).NumElements(1, 3).Fill(object)
					reflect.ValueOf(object).Elem().FieldByName("TypeMeta").SetZero()
				}
				raw, err := object.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				stored := reflect.New(typ).Interface().(generated)
				if err := stored.Unmarshal(raw); err != nil {
					t.Fatal(err)
				}
				f(t, kind, stored, raw)
			}
		})
	}
}

func convert(t *testing.T, kind schema.GroupVersionKind, from, to request.Form, object []byte) []byte {
	t.Helper()
	conversion := Find(Kind{kind.GroupVersion().String(), kind.Kind}, from, to)
	if conversion == nil {
		t.Fatalf("no conversion from %+v to %+v", from, to)
	}
	const before = "before"
	out, err := conversion([]byte(before), object)
	if err != nil {
		t.Fatalf("%v\n%s", err, object)
	}
	rest, ok := bytes.CutPrefix(out, []byte(before))
	if !ok {
		t.Fatalf("dst was overwritten: %q", out)
	}
	return rest
}

func marshalJSON(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestEveryKindIsConvertedLikeItsGoType(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind schema.GroupVersionKind, object generated, raw []byte) {
		if kind.Kind == wire.PartialKind {
			t.Skip("has its kind in JSON; see the other tests")
		}
		text := marshalJSON(t, object)
		got := convert(t, kind, protobufObject, jsonObject, raw)
		if d := cmp.Diff(string(text), string(got)); d != "" {
			t.Fatalf("to JSON: %s", d)
		}
		// JSON may lose information that protobuf has, such as empty fields.
		again := reflect.New(reflect.TypeOf(object).Elem()).Interface().(generated)
		if err := utiljson.Unmarshal(text, again); err != nil {
			t.Fatal(err)
		}
		want, err := again.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if got := convert(t, kind, jsonObject, protobufObject, text); !bytes.Equal(want, got) {
			t.Fatalf("to protobuf:\n%q, want\n%q, from\n%s", got, want, text)
		}
		if got := convert(t, kind, protobufObject, jsonObject, want); !bytes.Equal(text, got) {
			t.Fatalf("to protobuf and back:\n%s, want\n%s", got, text)
		}
	})
}

func TestEveryKindIsConvertedToItsMetadata(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind schema.GroupVersionKind, object generated, raw []byte) {
		partial := &metav1.PartialObjectMetadata{ObjectMeta: *reflect.ValueOf(object).Elem().FieldByName("ObjectMeta").Addr().Interface().(*metav1.ObjectMeta)}
		inProtobuf, err := partial.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		partial.TypeMeta = metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"}
		inJSON, text := marshalJSON(t, partial), marshalJSON(t, object)
		for _, from := range []struct {
			form   request.Form
			object []byte
		}{{protobufObject, raw}, {jsonObject, text}, {protobufMetadata, inProtobuf}, {jsonMetadata, inJSON}} {
			for form, want := range map[request.Form][]byte{jsonMetadata: inJSON, protobufMetadata: inProtobuf} {
				if from.form == form {
					continue
				}
				if got := convert(t, kind, from.form, form, from.object); !bytes.Equal(want, got) {
					t.Fatalf("%+v to %+v:\n%q, want\n%q", from.form, form, got, want)
				}
			}
		}
	})
}

func TestFindReturnsNilForAnImpossibleConversion(t *testing.T) {
	pod, custom := Kind{"v1", "Pod"}, Kind{"example.com/v1", "Foo"}
	tests := []struct {
		name     string
		kind     Kind
		from, to request.Form
		want     bool
	}{
		{"a built-in kind to JSON", pod, protobufObject, jsonObject, true},
		{"a built-in kind to protobuf", pod, jsonObject, protobufObject, true},
		{"a custom resource to protobuf", custom, jsonObject, protobufObject, false},
		{"a custom resource of a group that has built-in kinds", Kind{"apps/v1", "Foo"}, jsonObject, protobufObject, false},
		{"a kind in a version that it does not have", Kind{"v2", "Pod"}, jsonObject, protobufObject, false},
		{"an unknown kind", Kind{}, jsonObject, protobufObject, false},
		{"a list, which is not an object", Kind{"v1", "PodList"}, jsonObject, protobufObject, false},
		{"the metadata of a custom resource", custom, jsonObject, jsonMetadata, true},
		{"the metadata of a custom resource in protobuf", custom, jsonObject, protobufMetadata, true},
		{"metadata in another encoding", partial, jsonMetadata, protobufMetadata, true},
		{"an object from its metadata", pod, jsonMetadata, jsonObject, false},
		{"an object in another encoding from its metadata", pod, protobufMetadata, jsonObject, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Find(tt.kind, tt.from, tt.to) != nil; got != tt.want {
				t.Fatalf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestUnknownFieldsAreLostOnlyBetweenEncodings(t *testing.T) {
	custom, pod := schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Foo"}, corev1.SchemeGroupVersion.WithKind("Pod")
	const object = `{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"a","uid":"u","of":"tomorrow"},"spec":{"x":"<&>"}}`
	want := `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a","uid":"u","of":"tomorrow"}}`
	if got := convert(t, custom, jsonObject, jsonMetadata, []byte(object)); string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
	raw := convert(t, pod, jsonObject, protobufObject, []byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","labels":{"b":"2","a":"1"},"of":"tomorrow"},"spec":{"nodeName":"<&>","containers":null},"of":[1]}`))
	var got corev1.Pod
	if err := got.Unmarshal(raw); err != nil {
		t.Fatal(err)
	}
	wanted := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"a": "1", "b": "2"}}, Spec: corev1.PodSpec{NodeName: "<&>"}}
	if d := cmp.Diff(wanted, got); d != "" {
		t.Error(d)
	}
	if want, err := wanted.Marshal(); err != nil || !bytes.Equal(want, raw) {
		t.Errorf("%q, want %q %v", raw, want, err)
	}
}

func TestInvalidObjectsAreRejected(t *testing.T) {
	pod := Kind{"v1", "Pod"}
	for _, bad := range []string{``, `{`, `[]`, `null`, `{"metadata":[]}`, `{"metadata":{"name":1}}`, `{"metadata":{"labels":{"a":1}}}`, `{"spec":{"containers":{}}}`,
		`{"spec":{"terminationGracePeriodSeconds":"x"}}`, `{"metadata":{"creationTimestamp":"yesterday"}}`} {
		if out, err := Find(pod, jsonObject, protobufObject)(nil, []byte(bad)); err == nil {
			t.Errorf("%s became %q", bad, out)
		}
	}
	for _, bad := range []string{"\xff", "\x0a", "\x0a\x05ab", "\x08\x01", "\x12\x02\x50\x01"} {
		if out, err := Find(pod, protobufObject, jsonObject)(nil, []byte(bad)); err == nil {
			t.Errorf("%q became %s", bad, out)
		}
	}
}

// FuzzToJSON converts any message as a Pod: the result is an error or valid JSON.
func FuzzToJSON(f *testing.F) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Command: []string{"x"}}}}}
	raw, err := pod.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		out, err := Find(Kind{"v1", "Pod"}, protobufObject, jsonObject)(nil, raw)
		if err == nil && !json.Valid(out) {
			t.Fatalf("%q became %s", raw, out)
		}
	})
}

// FuzzToProtobuf converts any text as a Pod: the result is an error or a message that decodes as a
// Pod.
func FuzzToProtobuf(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"a","labels":{"a":"b"},"creationTimestamp":"2020-01-01T00:00:00Z"},"spec":{"containers":[{"name":"c","ports":[{"containerPort":80}]}]}}`))
	f.Add([]byte(`{"spec":{"hostNetwork":true,"volumes":[{"name":"v","emptyDir":{}}]},"status":{"phase":"Running"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var want, got corev1.Pod
		if utiljson.Unmarshal(text, &want) != nil {
			return
		}
		out, err := Find(Kind{"v1", "Pod"}, jsonObject, protobufObject)(nil, text)
		if err != nil {
			return // encoding/json accepts more, such as the number 1e3
		}
		if err := got.Unmarshal(out); err != nil {
			t.Fatalf("%s became %q: %v", text, out, err)
		}
	})
}

func BenchmarkConvert(b *testing.B) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "shop", UID: "u", Labels: map[string]string{"app": "a"}, Annotations: map[string]string{"k": "v"}}, Spec: corev1.PodSpec{NodeName: "n"}}
	for range 3 {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "c", Image: "registry.example.com/image:v1", Args: []string{"--one", "--two"},
			Env: []corev1.EnvVar{{Name: "A", Value: "B"}}, VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}, ReadinessProbe: &corev1.Probe{PeriodSeconds: 5}})
	}
	raw, err := pod.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	text, err := json.Marshal(pod)
	if err != nil {
		b.Fatal(err)
	}
	for name, conversion := range map[string]struct {
		from, to request.Form
		object   []byte
	}{"to JSON": {protobufObject, jsonObject, raw}, "to protobuf": {jsonObject, protobufObject, text}, "to metadata": {protobufObject, protobufMetadata, raw}} {
		b.Run(name, func(b *testing.B) {
			f, out := Find(Kind{"v1", "Pod"}, conversion.from, conversion.to), []byte(nil)
			b.ReportAllocs()
			for b.Loop() {
				if out, err = f(out[:0], conversion.object); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSchema(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parse(schemaText); err != nil {
			b.Fatal(err)
		}
	}
}
