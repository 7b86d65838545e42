package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/client-go/kubernetes/scheme"
)

// The tests compare with the serializers of k8s.io/apimachinery.

var serializer = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)

func encode(t testing.TB, object runtime.Object) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := scheme.Codecs.EncoderForVersion(serializer, schema.GroupVersion{Version: "v1"}).Encode(object, &buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func decode[T any](t testing.TB, raw []byte) *T {
	t.Helper()
	object, _, err := serializer.Decode(raw, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, ok := any(object).(*T)
	if !ok {
		t.Fatalf("a %T", object)
	}
	return out
}

func pod(name string, rv int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", UID: "u", ResourceVersion: fmt.Sprint(rv), Generation: 3,
			Labels: map[string]string{"app": name, "x": "\""}, Annotations: map[string]string{"k": "v"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i", Args: []string{"a", ""}}}},
	}
}

func splitProtobuf(body []byte, cut func() int) (items [][]byte, meta ListMeta, err error) {
	l := Protobuf.NewList(func(raw []byte) error {
		items = append(items, bytes.Clone(raw))
		return nil
	})
	for len(body) > 0 {
		n := min(max(1, cut()), len(body))
		if _, err := l.Write(body[:n]); err != nil {
			return items, ListMeta{}, err
		}
		body = body[n:]
	}
	meta, err = l.ListMeta()
	return items, meta, err
}

func TestAProtobufListIsSplitInChunksOfAnySize(t *testing.T) {
	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "77", Continue: "more"}}
	for i := range 5 {
		list.Items = append(list.Items, *pod(fmt.Sprintf("p%d", i), i))
	}
	body := encode(t, list)
	for round := range 200 {
		size := round + 1
		items, meta, err := splitProtobuf(body, func() int {
			if round > 100 {
				return rand.IntN(300)
			}
			return size
		})
		if err != nil {
			t.Fatal(err)
		}
		want := ListMeta{Kind: "PodList", APIVersion: "v1", ResourceVersion: "77", Continue: "more", HasItems: true}
		if d := cmp.Diff(want, meta); d != "" || len(items) != 5 {
			t.Fatalf("%d items: %s", len(items), d)
		}
		for i, item := range items {
			m, err := Protobuf.ParseItem(item)
			if err != nil || m.Name != list.Items[i].Name || m.Namespace != "shop" || m.UID != "u" || m.ResourceVersion != fmt.Sprint(i) {
				t.Fatalf("%+v %v", m, err)
			}
			var labels map[string]string
			if err := json.Unmarshal(m.Labels, &labels); err != nil || !cmp.Equal(labels, list.Items[i].Labels) {
				t.Fatalf("%s %v", m.Labels, err)
			}
			got := decode[corev1.Pod](t, Protobuf.AppendTyped(nil, "Pod", "v1", item))
			if d := cmp.Diff(list.Items[i].Spec, got.Spec); d != "" {
				t.Fatal(d)
			}
		}
	}
	// Two empty fields follow the list, which is complete without them.
	for cut := range body[:len(body)-4] {
		if _, _, err := splitProtobuf(body[:cut], func() int { return 64 }); err == nil {
			t.Fatalf("%d of %d bytes were accepted as a list", cut, len(body))
		}
	}
}

func TestAProtobufListIsBuiltAsByTheServer(t *testing.T) {
	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "77"}, Items: []corev1.Pod{*pod("a", 1), *pod("b", 2)}}
	want := encode(t, list)
	items, _, err := splitProtobuf(want, func() int { return 1 << 20 })
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for _, item := range items {
		size += ItemSize(len(item))
	}
	got := AppendListHead(nil, "PodList", "v1", "77", size)
	for _, item := range items {
		got = AppendItem(got, item)
	}
	if got = AppendEnvelopeEnd(got); !bytes.Equal(got, want) {
		t.Fatalf("the list is\n%x\nthe server's\n%x", got, want)
	}
	if alone := Protobuf.AppendTyped(nil, "Pod", "v1", items[0]); !bytes.Equal(alone, encode(t, pod("a", 1))) {
		t.Fatalf("an object is\n%x", alone)
	}
}

func TestAnObjectIsNotAList(t *testing.T) {
	items, meta, err := splitProtobuf(encode(t, pod("a", 1)), func() int { return 50 })
	if err != nil || meta.HasItems || len(items) > 0 {
		t.Fatalf("%d items, %+v %v", len(items), meta, err)
	}
}

func TestProtobufObjectsAreReadAndRebuilt(t *testing.T) {
	raw := encode(t, pod("a", 7))
	m, err := Protobuf.ParseMeta(raw)
	if err != nil || m.Kind != "Pod" || m.APIVersion != "v1" || m.Name != "a" || m.ResourceVersion != "7" || m.InitialEventsEnd {
		t.Fatalf("%+v %v", m, err)
	}
	bare, ok := Protobuf.Bare(raw)
	again := decode[corev1.Pod](t, Protobuf.AppendTyped(nil, "Pod", "v1", bare))
	if d := cmp.Diff(decode[corev1.Pod](t, raw), again); d != "" || !ok {
		t.Fatalf("the rebuilt object differs: %s", d)
	}
	bookmark := Protobuf.Bookmark("Pod", "v1", "99", true)
	if m, err := Protobuf.ParseMeta(bookmark); err != nil || !m.InitialEventsEnd || m.ResourceVersion != "99" || m.Kind != "Pod" {
		t.Fatalf("%+v %v", m, err)
	}
	if p := decode[corev1.Pod](t, bookmark); p.Annotations[metav1.InitialEventsAnnotationKey] != "true" {
		t.Fatalf("%+v", p)
	}
	for _, bad := range [][]byte{nil, []byte("k8s"), []byte("{}"), raw[:len(raw)-5], append(bytes.Clone(magic), 0xff)} {
		if _, err := Protobuf.ParseMeta(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
		if got, ok := Protobuf.Bare(bad); ok || !bytes.Equal(got, bad) {
			t.Errorf("%q was changed", bad)
		}
	}
}

// watchBody encodes a watch as the API server does.
func watchBody(t testing.TB, pods ...*corev1.Pod) []byte {
	t.Helper()
	var buf bytes.Buffer
	framer := protobuf.LengthDelimitedFramer.NewFrameWriter(&buf)
	encoder := streaming.NewEncoder(framer, protobuf.NewRawSerializer(scheme.Scheme, scheme.Scheme))
	for _, p := range pods {
		event := &metav1.WatchEvent{Type: Added, Object: runtime.RawExtension{Raw: encode(t, p)}}
		if err := encoder.Encode(event); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

func TestProtobufFramesAreSplitInChunksOfAnySize(t *testing.T) {
	body := watchBody(t, pod("a", 1), pod("b", 2), pod("c", 3))
	for size := 1; size < len(body)+1; size += 7 {
		var names []string
		var again []byte
		f := Protobuf.NewFrames(func(raw []byte) error {
			e, err := Protobuf.ParseEvent(raw)
			if err != nil {
				return err
			}
			m, err := Protobuf.ParseMeta(e.Object)
			names = append(names, e.Type+" "+m.Kind+" "+m.Name)
			again = Protobuf.AppendFrame(again, raw)
			if rebuilt := Protobuf.AppendEvent(nil, e.Type, e.Object); !bytes.Equal(rebuilt[frameHeader:], raw) {
				t.Fatalf("the rebuilt event is\n%q, want\n%q", rebuilt[frameHeader:], raw)
			}
			return err
		})
		for p := body; len(p) > 0; {
			n := min(size, len(p))
			if _, err := f.Write(p[:n]); err != nil {
				t.Fatal(err)
			}
			p = p[n:]
		}
		if d := cmp.Diff([]string{"ADDED Pod a", "ADDED Pod b", "ADDED Pod c"}, names); d != "" || f.Partial() || !bytes.Equal(again, body) {
			t.Fatalf("chunks of %d: %s, partial: %v", size, d, f.Partial())
		}
	}
	f := Protobuf.NewFrames(func([]byte) error { return nil })
	if _, err := f.Write(body[:len(body)-1]); err != nil || !f.Partial() {
		t.Fatalf("a truncated frame is not partial: %v", err)
	}
	if _, err := Protobuf.NewFrames(nil).Write([]byte{0xff, 0, 0, 0, 1}); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("a frame of 4 GiB gave %v", err)
	}
}

func FuzzProtobufList(f *testing.F) {
	f.Add(encode(f, &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7"}, Items: []corev1.Pod{*pod("a", 1), *pod("b", 2)}}), 10)
	f.Add(encode(f, pod("a", 1)), 3)
	f.Add([]byte("k8s\x00\x0a\x06\x12\x04List\x12\x04\x12\x02ab"), 1)
	f.Fuzz(func(t *testing.T, body []byte, size int) {
		if size < 1 || size > 1<<16 {
			return
		}
		a, metaA, errA := splitProtobuf(body, func() int { return size })
		b, metaB, errB := splitProtobuf(body, func() int { return len(body) })
		if (errA == nil) != (errB == nil) || errA == nil && (!cmp.Equal(a, b) || !cmp.Equal(metaA, metaB)) {
			t.Fatalf("in chunks: %v %v %v; at once: %v %v %v", a, metaA, errA, b, metaB, errB)
		}
	})
}

func FuzzProtobufWatch(f *testing.F) {
	f.Add(watchBody(f, pod("a", 1)))
	f.Add([]byte{0, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		s := Protobuf.NewFrames(func(raw []byte) error {
			e, err := Protobuf.ParseEvent(raw)
			if err != nil {
				return err
			}
			m, err := Protobuf.ParseMeta(e.Object)
			if err != nil {
				return err
			}
			bare, ok := Protobuf.Bare(e.Object)
			if !ok {
				t.Fatal("the object has a kind, but Bare removes nothing")
			}
			if again, err := Protobuf.ParseMeta(Protobuf.AppendTyped(nil, m.Kind, m.APIVersion, bare)); err != nil || !cmp.Equal(m, again) {
				t.Fatalf("%+v became %+v %v", m, again, err)
			}
			return nil
		})
		_, _ = io.Copy(s, bytes.NewReader(body))
	})
}

func TestLabelsOfAProtobufObject(t *testing.T) {
	for name, entries := range map[string][][2]string{
		"none":                     nil,
		"sorted":                   {{"app", "web"}, {"tier", "edge"}},
		"not sorted":               {{"tier", "edge"}, {"app", "web"}, {"x", "y"}},
		"one is there twice":       {{"app", "web"}, {"app", "shop"}},
		"with characters to quote": {{"a\"b", "c\\d"}, {"b", "<&>\x00\n\u00e9\u2028"}},
		"empty":                    {{"", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			want := map[string]string{}
			var metadata []byte
			for _, e := range entries {
				want[e[0]] = e[1]
				metadata = appendField(metadata, metaLabels, appendField(appendField(nil, entryKey, []byte(e[0])), entryValue, []byte(e[1])))
			}
			m, err := Protobuf.ParseItem(appendField(nil, objectMetadata, metadata))
			if err != nil {
				t.Fatal(err)
			}
			if len(want) == 0 {
				if m.Labels != nil {
					t.Errorf("labels %s of an object without any", m.Labels)
				}
				return
			}
			if expected, err := json.Marshal(want); err != nil || string(m.Labels) != string(expected) {
				t.Errorf("labels %s, want %s: %v", m.Labels, expected, err)
			}
		})
	}
}
