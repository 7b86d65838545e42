package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func split(t *testing.T, body string, chunk int) (items []string, meta ListMeta, err error) {
	t.Helper()
	l := &List{Item: func(raw []byte) error {
		items = append(items, string(raw))
		return nil
	}}
	for i := 0; i < len(body); i += chunk {
		if _, err := l.Write([]byte(body[i:min(i+chunk, len(body))])); err != nil {
			return nil, ListMeta{}, err
		}
	}
	meta, err = l.ListMeta()
	return items, meta, err
}

func TestListIsSplitInChunksOfAnySize(t *testing.T) {
	tests := []struct {
		name, body string
		items      []string
		meta       ListMeta
	}{
		{
			name:  "a typed list starts with kind and metadata",
			body:  `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"abc"},"items":[{"a":"]}\""},{"b":[1,{"c":"\\"}]}]}` + "\n",
			items: []string{`{"a":"]}\""}`, `{"b":[1,{"c":"\\"}]}`},
			meta:  ListMeta{Kind: "PodList", APIVersion: "v1", ResourceVersion: "7", Continue: "abc", Metadata: []byte(`{"resourceVersion":"7","continue":"abc"}`), HasItems: true},
		},
		{
			name:  "a list of custom resources has kind and metadata after its items",
			body:  ` { "apiVersion" : "x/v1" , "items" : [ {"n":1} , {"n":2} ] , "kind" : "FooList", "metadata": {"resourceVersion":"9"} } `,
			items: []string{`{"n":1}`, `{"n":2}`},
			meta:  ListMeta{Kind: "FooList", APIVersion: "x/v1", ResourceVersion: "9", Metadata: []byte(`{"resourceVersion":"9"}`), HasItems: true},
		},
		{
			name: "null items are an empty list",
			body: `{"kind":"PodList","apiVersion":"v1","metadata":{},"items":null}`,
			meta: ListMeta{Kind: "PodList", APIVersion: "v1", Metadata: []byte(`{}`), HasItems: true},
		},
		{
			name: "a document without items is not a list",
			body: `{"kind":"Status","apiVersion":"v1","metadata":{},"code":404,"ok":true}`,
			meta: ListMeta{Kind: "Status", APIVersion: "v1", Metadata: []byte(`{}`)},
		},
		{
			name:  "items inside the metadata are not the list's items",
			body:  `{"metadata":{"items":[1]},"items":["x"]}`,
			items: []string{`"x"`},
			meta:  ListMeta{Metadata: []byte(`{"items":[1]}`), HasItems: true},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for chunk := 1; chunk <= len(tt.body); chunk++ {
				items, meta, err := split(t, tt.body, chunk)
				if err != nil {
					t.Fatalf("chunks of %d: %v", chunk, err)
				}
				if d := cmp.Diff(tt.items, items); d != "" {
					t.Fatalf("chunks of %d: items: %s", chunk, d)
				}
				if d := cmp.Diff(tt.meta, meta); d != "" {
					t.Fatalf("chunks of %d: meta: %s", chunk, d)
				}
			}
		})
	}
}

func TestListRejects(t *testing.T) {
	tests := []struct {
		name, body string
		want       error
	}{
		{"a truncated body", `{"items":[{"a":1},{"b"`, ErrTruncated},
		{"a body truncated between items", `{"items":[{"a":1}`, ErrTruncated},
		{"an empty body", ``, ErrTruncated},
		{"a body that is not an object", `[1,2]`, errSyntax},
		{"text", `service unavailable`, errSyntax},
		{"two documents in one body", `{"items":[]} {"items":[]}`, errSyntax},
		{"a kind that is not a string", `{"kind":7,"items":[]}`, errSyntax},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := split(t, tt.body, 3); !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
		})
	}
}

func TestListBoundsTheMemoryOfOneItem(t *testing.T) {
	l := &List{Item: func([]byte) error { return nil }}
	if _, err := l.Write([]byte(`{"items":["`)); err != nil {
		t.Fatal(err)
	}
	piece := bytes.Repeat([]byte("x"), 1<<20)
	for range 20 {
		if _, err := l.Write(piece); err != nil {
			if !errors.Is(err, ErrTooLarge) {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("an item of 20 MiB was accepted")
}

func TestFramesAreSplitInChunksOfAnySize(t *testing.T) {
	body := `{"type":"ADDED","object":{"metadata":{"name":"a}"}}}` + "\n" + `{"type":"BOOKMARK","object":{}}` + "\n\n" + `{"type":"X","object":1}`
	want := []string{`{"type":"ADDED","object":{"metadata":{"name":"a}"}}}`, `{"type":"BOOKMARK","object":{}}`, `{"type":"X","object":1}`}
	for chunk := 1; chunk <= len(body); chunk++ {
		var got []string
		f := &Frames{Frame: func(raw []byte) error {
			got = append(got, string(raw))
			return nil
		}}
		for i := 0; i < len(body); i += chunk {
			if _, err := f.Write([]byte(body[i:min(i+chunk, len(body))])); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("chunks of %d: %s", chunk, d)
		}
		if f.Partial() {
			t.Fatalf("chunks of %d: the last frame is partial", chunk)
		}
	}
}

func TestATruncatedFrameIsPartial(t *testing.T) {
	f := &Frames{Frame: func([]byte) error { return nil }}
	if _, err := f.Write([]byte(`{"type":"ADDED","obj`)); err != nil {
		t.Fatal(err)
	}
	if !f.Partial() {
		t.Fatal("Partial returns false")
	}
}

func TestParseMeta(t *testing.T) {
	tests := []struct {
		name, object string
		want         Meta
	}{
		{
			name: "everything that identifies an object",
			object: `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"n","uid":"u","resourceVersion":"5",` +
				`"labels":{"app":"x"},"annotations":{"k8s.io/initial-events-end":"true"}},"spec":{"metadata":{"name":"no"}}}`,
			want: Meta{Kind: "Pod", APIVersion: "v1", Name: "a", Namespace: "n", UID: "u", ResourceVersion: "5", Labels: []byte(`{"app":"x"}`), InitialEventsEnd: true},
		},
		{
			name:   "escapes are decoded and null maps are empty",
			object: `{"metadata":{"name":"\u0061","labels":null,"annotations":null}}`,
			want:   Meta{Name: "a"},
		},
		{name: "null metadata", object: `{"metadata":null}`, want: Meta{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := JSON.ParseMeta([]byte(tt.object))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Fatal(d)
			}
		})
	}
	for _, bad := range []string{``, `{`, `[]`, `{"metadata":{"name":5}}`, `{"metadata" "x"}`, `{"a":1 "b":2}`, `{"metadata":`} {
		if m, err := JSON.ParseMeta([]byte(bad)); err == nil {
			t.Errorf("%q gave %+v", bad, m)
		}
	}
}

func TestBareAndAppendTypedAreInverse(t *testing.T) {
	typed := `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{}}`
	bare, ok := JSON.Bare([]byte(typed))
	if !ok || string(bare) != `{"metadata":{"name":"a"},"spec":{}}` {
		t.Fatalf("bare: %s %v", bare, ok)
	}
	if got := JSON.AppendTyped(nil, "Pod", "v1", bare); string(got) != typed {
		t.Fatalf("typed: %s", got)
	}
	if got := JSON.AppendTyped(nil, "Pod", "v1", []byte(`{}`)); string(got) != `{"kind":"Pod","apiVersion":"v1"}` {
		t.Fatalf("typed: %s", got)
	}
	for _, object := range []string{
		`{"apiVersion":"x/v1","kind":"Foo","metadata":{}}`,
		`{"metadata":{},"kind":"Pod"}`,
		`{"kind":"Pod","apiVersion":"v1"}`,
		`{}`, `[]`, ``,
	} {
		if bare, ok := JSON.Bare([]byte(object)); ok || string(bare) != object {
			t.Errorf("%s was changed to %s", object, bare)
		}
	}
}

func TestAppendedEventsAreParsed(t *testing.T) {
	frame := JSON.AppendEvent(nil, Deleted, []byte(`{"metadata":{}}`))
	e, err := JSON.ParseEvent(frame)
	if err != nil || e.Type != Deleted || string(e.Object) != `{"metadata":{}}` {
		t.Fatalf("%+v %v", e, err)
	}
	for _, bad := range []string{`{}`, `{"type":"ADDED"}`, `{"object":{}}`, `{"type":1,"object":{}}`, `x`} {
		if _, err := JSON.ParseEvent([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzList(f *testing.F) {
	f.Add([]byte(`{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":[{"a":1},2,"x"]}`), 3)
	f.Add([]byte(`{"items":null}`), 1)
	f.Add([]byte(`{"items":[1 2]}`), 2)
	f.Add([]byte(`{"\u0069tems":[[],{}]}`), 5)
	f.Fuzz(func(t *testing.T, body []byte, chunk int) {
		if chunk < 1 || chunk > 1<<16 {
			return
		}
		items, meta, err := split(t, string(body), chunk)
		again, meta2, err2 := split(t, string(body), len(body)+1)
		if (err == nil) != (err2 == nil) || !cmp.Equal(items, again) || !cmp.Equal(meta, meta2) {
			t.Fatalf("chunks of %d: %v %v %v; at once: %v %v %v", chunk, items, meta, err, again, meta2, err2)
		}
		var want struct {
			Items []json.RawMessage `json:"items"`
		}
		if strings.Count(string(body), "tems") > 1 || json.Unmarshal(body, &want) != nil || err != nil {
			return // not JSON, or "items" is ambiguous
		}
		if !meta.HasItems {
			return // encoding/json also takes "Items"
		}
		if len(want.Items) != len(items) {
			t.Fatalf("%d items, want %d", len(items), len(want.Items))
		}
		for i := range items {
			if items[i] != string(want.Items[i]) {
				t.Fatalf("item %d is %s, want %s", i, items[i], want.Items[i])
			}
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte(`{"type":"ADDED","object":{}}{"type":"DELETED","object":{"a":"}"}}`), 4)
	f.Add([]byte(`{"type":"ERROR","object":{"kind":"Status","code":410}}`+"\n"), 1)
	f.Fuzz(func(t *testing.T, body []byte, chunk int) {
		if chunk < 1 || chunk > 1<<16 {
			return
		}
		run := func(chunk int) (frames []string, failed bool) {
			s := &Frames{Frame: func(raw []byte) error {
				if _, err := JSON.ParseEvent(raw); err != nil {
					return err
				}
				frames = append(frames, string(raw))
				return nil
			}}
			for p := body; len(p) > 0; {
				n := min(chunk, len(p))
				if _, err := s.Write(p[:n]); err != nil {
					return frames, true
				}
				p = p[n:]
			}
			return frames, s.Partial()
		}
		a, aFailed := run(chunk)
		b, bFailed := run(len(body) + 1)
		if aFailed != bFailed || !cmp.Equal(a, b) {
			t.Fatalf("chunks of %d: %q %v; at once: %q %v", chunk, a, aFailed, b, bFailed)
		}
	})
}

func FuzzObject(f *testing.F) {
	f.Add([]byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","labels":{"a":"b"}},"spec":{}}`))
	f.Add([]byte(`{"kind":"Pod","apiVersion":"v1"}`))
	f.Fuzz(func(t *testing.T, object []byte) {
		m, err := JSON.ParseMeta(object)
		bare, ok := JSON.Bare(object)
		if err != nil || !ok || !json.Valid(object) {
			return
		}
		typed := JSON.AppendTyped(nil, m.Kind, m.APIVersion, bare)
		var a, b any
		if json.Unmarshal(object, &a) != nil || json.Unmarshal(typed, &b) != nil {
			t.Fatalf("%s became %s", object, typed)
		}
		if strings.Count(string(object), "ind") == 1 && strings.Count(string(object), "ersion") == 1 && !cmp.Equal(a, b) {
			t.Fatalf("%s became %s", object, typed)
		}
	})
}

// BenchmarkList splits a list in chunks as from the network, and reads the identity of each item.
func BenchmarkList(b *testing.B) {
	item := `{"metadata":{"name":"web-7c5ddbdf54-x2x9d","generateName":"web-7c5ddbdf54-","namespace":"default","uid":"7d8a1b3c-57a3-4b11-9d0e-0d6f6a1c2b3d",` +
		`"resourceVersion":"123456","creationTimestamp":"2026-01-02T03:04:05Z","labels":{"app":"web","pod-template-hash":"7c5ddbdf54"},` +
		`"managedFields":[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-01-02T03:04:05Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:generateName":{},"f:labels":{".":{},"f:app":{},"f:pod-template-hash":{}},"f:ownerReferences":{".":{},"k:{\\"uid\\":\\"7d8a1b3c\\"}":{}}},"f:spec":{` +
		strings.Repeat(`"f:containers":{"k:{\\"name\\":\\"web\\"}":{".":{},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:resources":{},"f:terminationMessagePath":{}}},`, 4) + `"f:dnsPolicy":{}}}}]},"spec":{"containers":[` +
		strings.Repeat(`{"name":"web","image":"registry.example.com/web:1.2.3","ports":[{"containerPort":8080,"protocol":"TCP"}],"env":[{"name":"MODE","value":"production"}],"resources":{"limits":{"cpu":"1","memory":"1Gi"}},"terminationMessagePath":"/dev/termination-log","imagePullPolicy":"IfNotPresent"},`, 3) +
		`{"name":"last"}],"restartPolicy":"Always","nodeName":"edge-0017"},"status":{"phase":"Running","conditions":[` +
		strings.Repeat(`{"type":"Ready","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-01-02T03:04:05Z"},`, 4) + `{"type":"PodScheduled","status":"True"}],"podIP":"10.1.2.3"}}`
	body := []byte(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[` + strings.Repeat(item+",", 999) + item + `]}`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		l := &List{Item: func(raw []byte) error {
			_, err := JSON.ParseItem(raw)
			return err
		}}
		for p := range slices.Chunk(body, 32<<10) {
			if _, err := l.Write(p); err != nil {
				b.Fatal(err)
			}
		}
	}
}
