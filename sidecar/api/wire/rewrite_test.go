package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// encodeList returns a ConfigMapList as the API server sends it.
func encodeList(t testing.TB, f Format, list *corev1.ConfigMapList) []byte {
	t.Helper()
	list.Kind, list.APIVersion = "ConfigMapList", "v1"
	raw, err := json.Marshal(list)
	if f == Protobuf {
		list.TypeMeta = metav1.TypeMeta{}
		inner, err := list.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		raw = f.AppendTyped(nil, "ConfigMapList", "v1", inner)
	}
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func decodeList(t testing.TB, f Format, raw []byte) (list corev1.ConfigMapList) {
	t.Helper()
	var err error
	if f == JSON {
		err = json.Unmarshal(raw, &list)
		list.TypeMeta = metav1.TypeMeta{}
	} else {
		var envelope runtime.Unknown
		if err = envelope.Unmarshal(raw[len(magic):]); err == nil {
			err = list.Unmarshal(envelope.Raw)
		}
	}
	if err != nil {
		t.Fatalf("%v: %q", err, raw)
	}
	return list
}

func rewrite(r Rewriter, body []byte, size int) (out []byte) {
	for len(body) > 0 {
		n := min(size, len(body))
		out = r.Append(out, body[:n])
		body = body[n:]
	}
	return out
}

func TestAListIsRewrittenInChunks(t *testing.T) {
	names := func(list corev1.ConfigMapList) string {
		var all []string
		for _, item := range list.Items {
			all = append(all, item.Name+"="+item.Data["k"])
		}
		return strings.Join(all, " ")
	}
	for _, format := range []Format{JSON, Protobuf} {
		for _, drop := range []string{"", "a", "b", "c", "abc", "ac"} {
			list := &corev1.ConfigMapList{ListMeta: metav1.ListMeta{ResourceVersion: "5", Continue: "more"}}
			var want []string
			for _, name := range []string{"a", "b", "c"} {
				list.Items = append(list.Items, corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"k": "old"}})
				if !strings.Contains(drop, name) {
					want = append(want, name+"="+map[bool]string{true: "newer", false: "old"}[name == "b"])
				}
			}
			body := encodeList(t, format, list)
			for _, size := range []int{1, 2, 7, 64, 1 << 20} {
				r := format.NewRewriter(func(raw []byte) ([]byte, bool) {
					m, err := format.ParseItem(raw)
					if err != nil {
						t.Fatal(err)
					}
					if m.Name == "b" {
						raw, err = format.Replace(nil, raw, Member{Name: "data", Number: 2}, func(data []byte) ([]byte, bool, error) {
							if format == JSON {
								return []byte(`{"k":"newer"}`), true, nil
							}
							return appendField(appendField(nil, entryKey, []byte("k")), entryValue, []byte("newer")), true, nil
						})
					}
					return raw, err == nil && !strings.Contains(drop, m.Name)
				}, 10)
				got := decodeList(t, format, rewrite(r, body, size))
				if names(got) != strings.Join(want, " ") || got.ResourceVersion != "5" || got.Continue != "more" || r.Peek().ResourceVersion != "5" || r.Err() != nil {
					t.Errorf("%s without %q in chunks of %d: %s, %+v, %v", format.MediaType(), drop, size, names(got), got.ListMeta, r.Err())
				}
			}
		}
	}
}

func TestTheSpaceOfLeftOutItemsIsFilled(t *testing.T) {
	for size := range 400 { // the padding takes all sizes that are possible
		list := &corev1.ConfigMapList{Items: []corev1.ConfigMap{{Data: map[string]string{"k": strings.Repeat("x", size)}}, {ObjectMeta: metav1.ObjectMeta{Name: "b"}}}}
		drop := true
		r := Protobuf.NewRewriter(func(raw []byte) ([]byte, bool) { drop = !drop; return raw, drop }, 0)
		if got := decodeList(t, Protobuf, rewrite(r, encodeList(t, Protobuf, list), 1<<20)); len(got.Items) != 1 || got.Items[0].Name != "b" {
			t.Fatalf("%d bytes: %+v", size, got)
		}
	}
}

func TestPaddingDoesNotCollect(t *testing.T) {
	list := &corev1.ConfigMapList{}
	for i := range 200 {
		list.Items = append(list.Items, corev1.ConfigMap{Data: map[string]string{"k": strings.Repeat("x", 1000+i)}})
	}
	body := encodeList(t, Protobuf, list)
	r := Protobuf.NewRewriter(func([]byte) ([]byte, bool) { return nil, false }, 0)
	var all []byte
	for len(body) > 0 {
		n := min(4096, len(body))
		out := r.Append(nil, body[:n])
		if len(out) > 2*largePadding {
			t.Fatalf("%d bytes at once", len(out))
		}
		all, body = append(all, out...), body[n:]
	}
	if got := decodeList(t, Protobuf, all); len(got.Items) != 0 {
		t.Errorf("%d items", len(got.Items))
	}
}

func TestAnItemWithoutRoomPassesUnchanged(t *testing.T) {
	list := &corev1.ConfigMapList{Items: []corev1.ConfigMap{{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, {ObjectMeta: metav1.ObjectMeta{Name: "b"}}}}
	r := Protobuf.NewRewriter(func(raw []byte) ([]byte, bool) {
		return appendField(bytes.Clone(raw), 100, make([]byte, 50)), true
	}, 60)
	got := decodeList(t, Protobuf, rewrite(r, encodeList(t, Protobuf, list), 16))
	if len(got.Items) != 2 || r.Err() != ErrNoRoom {
		t.Errorf("%+v: %v", got, r.Err())
	}
}

func TestATableIsRewritten(t *testing.T) {
	body := `{"kind":"Table","metadata":{"resourceVersion":"3"},"columnDefinitions":[{"name":"a"}],"rows":[ {"cells":[1]} , {"cells":[2]} ]}`
	for size := 1; size < len(body); size++ {
		r := JSON.NewRewriter(func(raw []byte) ([]byte, bool) { return raw, !bytes.Contains(raw, []byte("1")) }, 0)
		got := string(rewrite(r, []byte(body), size))
		if strings.Join(strings.Fields(got), "") != `{"kind":"Table","metadata":{"resourceVersion":"3"},"columnDefinitions":[{"name":"a"}],"rows":[{"cells":[2]}]}` {
			t.Fatal(got)
		}
	}
}

func TestABodyThatIsNoListPassesUnchanged(t *testing.T) {
	list := encodeList(t, Protobuf, &corev1.ConfigMapList{Items: []corev1.ConfigMap{{ObjectMeta: metav1.ObjectMeta{Name: "a"}}}})
	for _, body := range []string{`{"kind":"Status","code":500}`, `[1,2]`, `{"items":[{"a":1},{"b":`, `{"items":[{"a":1} x]}`, "k8s\x00\x08", "nonsense", ""} {
		for _, format := range []Format{JSON, Protobuf} {
			for size := 1; size < 10; size++ {
				r := format.NewRewriter(func(raw []byte) ([]byte, bool) { return raw, true }, 0)
				got := string(rewrite(r, []byte(body), size))
				// An item that the body breaks off in is held back: the end of the body is an error anyway.
				if !strings.HasPrefix(body, got) || (r.Err() != nil && got != body) {
					t.Errorf("%q in %s, chunks of %d: %q, %v", body, format.MediaType(), size, got, r.Err())
				}
			}
		}
	}
	if got := rewrite(Protobuf.NewRewriter(func(raw []byte) ([]byte, bool) { return raw, true }, 0), list[:len(list)-1], 3); len(got) == 0 {
		t.Error("nothing of a list that breaks off")
	}
}

func FuzzRewriter(f *testing.F) {
	for _, format := range []Format{JSON, Protobuf} {
		f.Add(encodeList(f, format, &corev1.ConfigMapList{Items: []corev1.ConfigMap{{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, {}}}), format == JSON, uint8(3), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, asJSON bool, size uint8, keep bool) {
		format := Protobuf
		if asJSON {
			format = JSON
		}
		edit := func(raw []byte) ([]byte, bool) { return raw, keep }
		a := rewrite(format.NewRewriter(edit, 0), body, int(size)+1)
		b := rewrite(format.NewRewriter(edit, 0), body, 1<<20)
		if !bytes.HasPrefix(a, b) && !bytes.HasPrefix(b, a) {
			t.Errorf("depends on the size of chunks: %q, %q", a, b)
		}
	})
}

func TestValues(t *testing.T) {
	raw := []byte(`{"a":null,"b":[1, 2,3],"m":{"k\u002fx":"v","n":null},"s":"t"}`)
	if v, err := JSON.First(raw, Member{Name: "a"}); v != nil || err != nil {
		t.Errorf("null: %q, %v", v, err)
	}
	if v, err := JSON.Entry(raw, Member{Name: "m"}, "k/x"); string(v) != `"v"` || err != nil {
		t.Errorf("an escaped key: %q %v", v, err)
	}
	for _, key := range []string{"n", "absent"} {
		if v, err := JSON.Entry(raw, Member{Name: "m"}, key); v != nil || err != nil {
			t.Errorf("no value of %s: %q %v", key, v, err)
		}
	}
	for value, want := range map[string]string{`"plain"`: "plain", `"\u0061b"`: "ab", `""`: ""} {
		if text, err := JSON.TextBytes([]byte(value)); string(text) != want || err != nil {
			t.Errorf("text of %s: %q %v", value, text, err)
		}
	}
	if text, err := JSON.TextBytes([]byte(`7`)); err == nil {
		t.Errorf("text of a number: %q", text)
	}
	for keep, want := range map[string]string{"123": `[1, 2,3]`, "13": `[1,3]`, "": `[]`} {
		got, err := JSON.Replace(nil, raw, Member{Name: "b", Repeated: true}, func(v []byte) ([]byte, bool, error) { return v, strings.Contains(keep, string(v)), nil })
		if err != nil || string(got) != strings.Replace(string(raw), `[1, 2,3]`, want, 1) {
			t.Errorf("%q: %s %v", keep, got, err)
		}
	}
	m := JSON.Merge(MemberValue{Member: Member{Name: "l", Repeated: true}, Value: JSON.Quote("x")}, MemberValue{Member: Member{Name: "b"}, Value: JSON.Bool(true), Scalar: true})
	if string(m) != `{"l":["x"],"b":true}` {
		t.Errorf("%s", m)
	}
	if _, err := Protobuf.First([]byte{0x0a, 5}, Member{Name: "x", Number: 1}); err == nil || !strings.Contains(fmt.Sprint(err), "x:") {
		t.Errorf("a message that breaks off: %v", err)
	}
}
