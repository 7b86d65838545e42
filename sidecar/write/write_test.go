package write

import (
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"

	"rockpool.dev/sidecar/api/convert"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
)

var event = convert.Kind{APIVersion: "v1", Kind: "Event"}

const (
	strategic = string(types.StrategicMergePatchType)
	mergeType = string(types.MergePatchType)
)

// kind returns the kind of an error, empty for nil.
func kind(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrNeedsServer):
		return "needs server"
	case apierrors.IsBadRequest(err):
		return "bad request"
	}
	return err.Error()
}

func TestBodiesAreReadAsTheAPIServerReadsThem(t *testing.T) {
	for _, tt := range []struct{ name, contentType, body, want, kind string }{
		{"kind and apiVersion are added", "application/json", `{"count":1}`, `{"apiVersion":"v1","count":1,"kind":"Event"}`, ""},
		{"without a type it is JSON", "", `{}`, `{"apiVersion":"v1","kind":"Event"}`, ""},
		{"with a parameter", "application/json; charset=utf-8", `{}`, `{"apiVersion":"v1","kind":"Event"}`, ""},
		{"numbers stay as they are", "application/json", `{"n":12345678901234567890.10}`, `{"apiVersion":"v1","kind":"Event","n":12345678901234567890.10}`, ""},
		{"another kind", "application/json", `{"kind":"Pod"}`, "", "bad request"},
		{"another version", "application/json", `{"apiVersion":"events.k8s.io/v1"}`, "", "bad request"},
		{"a kind that is no string", "application/json", `{"kind":1}`, "", "bad request"},
		{"metadata that is a list", "application/json", `{"metadata":[]}`, "", "bad request"},
		{"a list", "application/json", `[]`, "", "bad request"},
		{"null", "application/json", `null`, "", "bad request"},
		{"two objects", "application/json", `{}{}`, "", "bad request"},
		{"half an object", "application/json", `{"kind":`, "", "bad request"},
		{"malformed protobuf", "application/vnd.kubernetes.protobuf", `{}`, "", "bad request"},
		{"YAML", "application/yaml", "kind: Event\ncount: 1\n", `{"apiVersion":"v1","count":1,"kind":"Event"}`, ""},
		{"CBOR", "application/cbor", "\xd9\xd9\xf7\xa1\x45count\x01", `{"apiVersion":"v1","count":1,"kind":"Event"}`, ""},
		{"malformed YAML", "application/yaml", `{`, "", "bad request"},
		{"malformed CBOR", "application/cbor", `x`, "", "bad request"},
		{"another type", "text/plain", `{}`, "", "needs server"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, err := Read(event, tt.contentType, []byte(tt.body))
			if got := kind(err); got != tt.kind {
				t.Fatalf("%v, want %q", err, tt.kind)
			}
			if err == nil && string(o.JSON()) != tt.want {
				t.Errorf("%s, want %s", o.JSON(), tt.want)
			}
		})
	}
}

func protobuf(t *testing.T, o runtime.Object) []byte {
	t.Helper()
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), wire.MediaTypeProtobuf)
	raw, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, o.GetObjectKind().GroupVersionKind().GroupVersion()), o)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestAnObjectInProtobufIsAnsweredInEveryForm(t *testing.T) {
	now, holder, seconds := metav1.NewMicroTime(time.Unix(1_700_000_000, 123000)), "web-0", int32(15)
	for _, object := range []runtime.Object{
		&corev1.Event{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web.1"},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "web"}, Reason: "Began", Count: 3, EventTime: now, Source: corev1.EventSource{Component: "web"},
		},
		&coordinationv1.Lease{
			TypeMeta: metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", ResourceVersion: "7"},
			Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now},
		},
	} {
		gvk := object.GetObjectKind().GroupVersionKind()
		k := convert.Kind{APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind}
		o, err := Read(k, "application/vnd.kubernetes.protobuf", protobuf(t, object))
		if err != nil {
			t.Fatal(err)
		}
		for accept, want := range map[string]string{
			"": wire.MediaTypeJSON, "application/json": wire.MediaTypeJSON,
			"application/vnd.kubernetes.protobuf":                           wire.MediaTypeProtobuf,
			"application/json;as=Table;v=v1;g=meta.k8s.io,application/json": wire.MediaTypeJSON,
			"application/vnd.kubernetes.protobuf,application/json":          wire.MediaTypeProtobuf,
			"application/cbor": "application/cbor", "application/yaml, image/x-icon": "application/yaml",
			"application/cbor;as=Table;v=v1;g=meta.k8s.io":                              "",
			"application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,image/x-icon": "",
		} {
			r := httptest.NewRequest("POST", "/", nil)
			r.Header.Set("Accept", accept)
			info := request.Parse(r)
			resp, err := Answer(&info, k, 201, o, "queued")
			if want == "" {
				if !errors.Is(err, ErrNeedsServer) {
					t.Errorf("%q: %v", accept, err)
				}
				continue
			}
			if err != nil || resp.StatusCode != 201 || resp.Header.Get("Content-Type") != want || resp.Header.Get("Cache-Status") != `rockpool; detail="queued"` {
				t.Fatalf("%q: %+v %v", accept, resp, err)
			}
			raw, err := io.ReadAll(resp.Body)
			if err != nil || int64(len(raw)) != resp.ContentLength {
				t.Fatal(err)
			}
			if want == request.MediaTypeCBOR {
				if raw, err = convert.ToJSON(want, raw); err != nil {
					t.Fatal(err)
				}
			}
			back, _, err := scheme.Codecs.UniversalDeserializer().Decode(raw, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			back.GetObjectKind().SetGroupVersionKind(gvk)
			if diff := cmp.Diff(object, back); diff != "" {
				t.Errorf("%q: %s", accept, diff)
			}
		}
	}
	o, err := Read(event, "application/json", []byte(`{"count":"many"}`))
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("Accept", wire.MediaTypeProtobuf)
	info := request.Parse(r)
	if _, err := Answer(&info, event, 201, o, "queued"); !apierrors.IsBadRequest(err) {
		t.Errorf("a field of another type gives %v", err)
	}
}

func TestOnlyPatchesWithoutASchemaAreRead(t *testing.T) {
	for _, tt := range []struct{ name, contentType, body, kind string }{
		{"a strategic merge patch", strategic, `{"count":2,"series":{"count":3}}`, ""},
		{"one that removes a member", strategic, `{"series":null}`, ""},
		{"one with a list", strategic, `{"metadata":{"finalizers":["a"]}}`, "needs server"},
		{"one with a directive", strategic, `{"series":{"$patch":"replace"}}`, "needs server"},
		{"a merge patch with a list", mergeType, `{"metadata":{"finalizers":["a"]}}`, ""},
		{"a JSON patch", "application/json-patch+json", `[]`, "needs server"},
		{"a server-side apply", "application/apply-patch+yaml", `{}`, "needs server"},
		{"a list", strategic, `[]`, "bad request"},
		{"half a patch", mergeType, `{"a"`, "bad request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ReadPatch(tt.contentType, []byte(tt.body)); kind(err) != tt.kind {
				t.Fatalf("%v, want %q", err, tt.kind)
			}
		})
	}
}

// FuzzPatch compares patches with the results of the libraries that the API server uses.
func FuzzPatch(f *testing.F) {
	f.Add(`{"count":1,"series":{"count":1}}`, `{"count":2,"series":null}`, `{"series":{"count":4}}`)
	f.Add(`{"metadata":{"annotations":{"a":"b"}}}`, `{"metadata":{"annotations":{"a":null,"c":"d"}}}`, `{"metadata":null}`)
	f.Add(`{}`, `{"source":{"component":"<&>"}}`, `{"source":{"host":null}}`)
	f.Add(`{"a":1}`, `{"a":{"b":null}}`, `{"a":[{"b":null}]}`)
	f.Fuzz(func(t *testing.T, object, first, second string) {
		o, err := decode([]byte(object))
		if err != nil {
			return
		}
		was := string(o.JSON())
		p, err := ReadPatch(mergeType, []byte(first))
		if err != nil {
			return
		}
		next, err := ReadPatch(mergeType, []byte(second))
		if err != nil {
			return
		}
		p.Apply(o)
		want, err := jsonpatch.MergePatch([]byte(was), p.JSON())
		if err == nil && !jsonpatch.Equal(o.JSON(), want) {
			t.Errorf("%s patched with %s gives %s, want %s", was, first, o.JSON(), want)
		}
		if _, err := ReadPatch(strategic, []byte(first)); err == nil {
			typed := corev1.Event{}
			if json.Unmarshal([]byte(was), &typed) == nil && json.Unmarshal(o.JSON(), &corev1.Event{}) == nil {
				want, err := strategicpatch.StrategicMergePatch([]byte(was), []byte(first), corev1.Event{})
				if err == nil && !jsonpatch.Equal(o.JSON(), want) {
					t.Errorf("%s patched strategically with %s gives %s, want %s", was, first, o.JSON(), want)
				}
			}
		}
		next.Apply(o)
		together, err := decode([]byte(was))
		if err != nil {
			t.Fatal(err)
		}
		both, err := DecodePatch(p.Then(next).JSON())
		if err != nil {
			t.Fatal(err)
		}
		both.Apply(together)
		// One patch merges an object into an object. Two patches can replace it, if the
		// first puts another value in its place. No field of an API object changes like that.
		if stable(p, next) && string(together.JSON()) != string(o.JSON()) {
			t.Errorf("%s patched with %s and then %s is %s, patched with %s it is %s", was, first, second, o.JSON(), both.JSON(), together.JSON())
		}
	})
}

// stable returns whether no member is an object in one patch and another value in the other.
func stable(a, b map[string]any) bool {
	for key, x := range a {
		y, both := b[key]
		if !both {
			continue
		}
		m, isM := x.(map[string]any)
		n, isN := y.(map[string]any)
		if isM != isN || (isM && !stable(m, n)) {
			return false
		}
	}
	return true
}

func FuzzRead(f *testing.F) {
	f.Add("application/json", []byte(`{"kind":"Event","metadata":{"name":"a"}}`))
	f.Add("application/json", []byte(`{"metadata":[]}`))
	f.Add(wire.MediaTypeProtobuf, []byte("k8s\x00\n\x0b\n\x02v1\x12\x05Event\x12\x09\n\x07\n\x05web.1"))
	f.Add(wire.MediaTypeProtobuf, []byte("k8s\x00"))
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("Accept", wire.MediaTypeProtobuf)
	info := request.Parse(r)
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		o, err := Read(event, contentType, body)
		if err != nil {
			if kind(err) != "needs server" && kind(err) != "bad request" {
				t.Fatal(err)
			}
			return
		}
		o.Metadata()["namespace"] = "shop"
		if again, err := Decode(o.JSON()); err != nil || string(again.JSON()) != string(o.JSON()) || again.Text("metadata", "namespace") != "shop" {
			t.Fatalf("%s is read as %s, %v", o.JSON(), again.JSON(), err)
		}
		if _, err := Answer(&info, event, 201, o, "queued"); err != nil && !strings.Contains(kind(err), "bad request") {
			t.Fatal(err)
		}
	})
}
