package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	nodeName    = Field{Members: []string{"spec", "nodeName"}, Numbers: []protowire.Number{2, 10}}
	hostNetwork = Field{Members: []string{"spec", "hostNetwork"}, Numbers: []protowire.Number{2, 11}, Type: Boolean}
	priority    = Field{Members: []string{"spec", "priority"}, Numbers: []protowire.Number{2, 25}, Type: Integer}
)

func TestAFieldIsReadInEachFormat(t *testing.T) {
	low := int32(-7)
	tests := []struct {
		name string
		pod  corev1.Pod
		want string
	}{
		{"set", corev1.Pod{Spec: corev1.PodSpec{NodeName: "a\"\u00fc", HostNetwork: true, Priority: &low}}, "a\"\u00fc true -7"},
		{"not set", corev1.Pod{}, " false 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text, err := json.Marshal(tt.pod)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := tt.pod.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			for format, item := range map[Format][]byte{JSON: text, Protobuf: raw} {
				if got, err := lookupAll(format, item); err != nil || got != tt.want {
					t.Errorf("%s: %q %v, want %q", format.MediaType(), got, err, tt.want)
				}
			}
		})
	}
}

// lookupAll reads the three fields of an item.
func lookupAll(format Format, item []byte) (string, error) {
	a, errA := format.Lookup(item, nodeName)
	b, errB := format.Lookup(item, hostNetwork)
	c, errC := format.Lookup(item, priority)
	return a + " " + b + " " + c, errors.Join(errA, errB, errC)
}

func TestLookupInInvalidInputFails(t *testing.T) {
	for _, bad := range []string{``, `[]`, `{`, `{"spec":[]}`, `{"spec":"x"}`, `{"spec":{"nodeName":1}}`, `{"spec":{"hostNetwork":"true"}}`, `{"spec":{"priority":1.5}}`} {
		if got, err := lookupAll(JSON, []byte(bad)); err == nil {
			t.Errorf("%s has %q", bad, got)
		}
	}
	for _, bad := range []string{"\xff", "\x12\x05ab", "\x10\x01", "\x12\x02\x50\x01", "\x12\x02\x5a\x00", "\x12\x01\xff"} {
		if got, err := lookupAll(Protobuf, []byte(bad)); err == nil {
			t.Errorf("%q has %q", bad, got)
		}
	}
	if got, err := lookupAll(JSON, []byte(`{"spec":null}`)); err != nil || got != " false 0" {
		t.Errorf("null has %q %v", got, err)
	}
}

func TestTheLastOfSeveralValuesCounts(t *testing.T) {
	got, err := lookupAll(Protobuf, []byte("\x12\x05\x52\x01a\x58\x01\x12\x03\x52\x01b"))
	if err != nil || got != "b true 0" {
		t.Fatalf("%q %v", got, err)
	}
}

func TestAppendPartialKeepsOnlyTheMetadata(t *testing.T) {
	for object, want := range map[string]string{
		`{"metadata":{"name":"a","future":[1]},"spec":{"metadata":1}}`: `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a","future":[1]}}`,
		`{"apiVersion":"x/v1","kind":"Foo","metadata":{}}`:             `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{}}`,
		`{}`: `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{}}`,
	} {
		if got, err := JSON.AppendPartial(nil, []byte(object)); err != nil || string(got) != want {
			t.Errorf("%s became %s %v", object, got, err)
		}
	}
	raw, err := pod("a", 7).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	item, err := Protobuf.AppendPartial(nil, raw)
	if err != nil {
		t.Fatal(err)
	}
	var got metav1.PartialObjectMetadata
	if err := got.Unmarshal(item); err != nil || got.Name != "a" || fmt.Sprint(got.Labels) != fmt.Sprint(pod("a", 7).Labels) {
		t.Fatalf("%+v %v", got, err)
	}
	for format, bad := range map[Format]string{JSON: `{"metadata":`, Protobuf: "\x0a\x05a"} {
		if got, err := format.AppendPartial(nil, []byte(bad)); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func FuzzLookup(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"a"},"spec":{"nodeName":"n","hostNetwork":true,"priority":5}}`))
	f.Add([]byte(`{"spec":null}`))
	f.Add([]byte("\x0a\x03\x0a\x01a\x12\x07\x52\x01n\x58\x01\xc8\x01"))
	f.Fuzz(func(t *testing.T, item []byte) {
		var want struct {
			Spec struct {
				NodeName *string `json:"nodeName"`
			} `json:"spec"`
		}
		got, err := JSON.Lookup(item, nodeName)
		if err == nil && bytes.Count(item, []byte("odeName")) == 1 && json.Unmarshal(item, &want) == nil && want.Spec.NodeName == nil && got != "" {
			t.Fatalf("%s has %q", item, got)
		}
		var pod corev1.Pod
		if pod.Unmarshal(item) != nil {
			_, _ = lookupAll(Protobuf, item)
			return
		}
		node, err := Protobuf.Lookup(item, nodeName)
		if err == nil && node != pod.Spec.NodeName {
			t.Fatalf("%q has %q, want %q", item, node, pod.Spec.NodeName)
		}
		host, err := Protobuf.Lookup(item, hostNetwork)
		if err == nil && host != fmt.Sprint(pod.Spec.HostNetwork) {
			t.Fatalf("%q has %q, want %v", item, host, pod.Spec.HostNetwork)
		}
	})
}
