package replay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/sidecar/api/convert"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

const who = "system:serviceaccount:shop:web"

type harness struct {
	*Replayer
	t   testing.TB
	db  *store.DB
	now time.Time
}

func newHarness(t testing.TB) *harness {
	t.Helper()
	h := &harness{t: t, now: time.UnixMilli(1_700_000_000_000)}
	db, err := store.Open(t.Context(), t.TempDir(), store.Options{Now: func() time.Time { return h.now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	h.db, h.Replayer = db, New(db, func() time.Time { return h.now }, unrecorded{})
	return h
}

// unrecorded is a recorder that has nothing to say.
type unrecorded struct{}

func (unrecorded) Used(int64)                              {}
func (unrecorded) Doubtful(store.Resource, store.Key) bool { return false }
func (unrecorded) Oversized(store.Resource, string) string { return "" }
func (unrecorded) Damaged(int64)                           {}

// asked is when a list of the latest state was asked for and came: now.
func (h *harness) asked() store.Evidence {
	return store.Evidence{Asked: h.db.Next(), Told: h.db.Next(), Read: store.Latest}
}

// putSingle records an object that was read alone, now.
func (h *harness) putSingle(tx *store.Tx, s store.Scope, kind, apiVersion string, o store.Object) error {
	o.Asked, o.Told, o.Read = h.db.Next(), h.db.Next(), store.Latest
	return tx.PutSingle(s, kind, apiVersion, o)
}

func (h *harness) update(f func(*store.Tx) error) {
	h.t.Helper()
	if err := h.db.Update(h.t.Context(), f); err != nil {
		h.t.Fatal(err)
	}
}

func scope(url string) store.Scope {
	info := request.Parse(httptest.NewRequest(http.MethodGet, url, nil))
	return store.Scope{Principal: who, Group: info.Group, Version: info.Version, Resource: info.Resource, Namespace: info.Namespace,
		LabelSelector: info.LabelSelector, FieldSelector: info.FieldSelector, Representation: "object", MediaType: "application/json"}
}

func bare(namespace, name string, rv int) store.Object {
	labels := fmt.Sprintf(`{"app":%q}`, name)
	return store.Object{Namespace: namespace, Name: name, UID: "u", ResourceVersion: fmt.Sprint(rv), Labels: labels, Encoding: store.JSONBare,
		Payload: fmt.Appendf(nil, `{"metadata":{"name":%q,"namespace":%q,"resourceVersion":"%d","labels":%s}}`, name, namespace, rv, labels)}
}

func (h *harness) record(url string, rv int, objects ...store.Object) {
	h.t.Helper()
	snap := store.NewSnapshot(scope(url), h.asked())
	h.update(func(tx *store.Tx) error {
		for _, o := range objects {
			if err := snap.Add(tx, o); err != nil {
				return err
			}
		}
		return snap.Commit(tx, store.CollectionMeta{Kind: "Pod", APIVersion: "v1", ResourceVersion: fmt.Sprint(rv),
			Envelope: `{"kind":"PodList","apiVersion":"v1","metadata":{"selfLink":"kept"}}`})
	})
}

func ask(url, accept string) Request {
	r := httptest.NewRequest(http.MethodGet, url, nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	return Request{Principal: who, Info: request.Parse(r), Path: r.URL.RequestURI()}
}

// answer returns a response in short: "@version name name" for a list, the name and version of an
// object, the code of an error.
func (h *harness) answer(q Request) string {
	h.t.Helper()
	resp, err := h.Answer(h.t.Context(), q)
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, ErrNotRecorded):
		return "not recorded"
	case errors.As(err, &status):
		return fmt.Sprintf("%d %s", status.Status().Code, status.Status().Reason)
	case err != nil:
		h.t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		h.t.Fatal(err)
	}
	type object struct {
		Kind, APIVersion string
		Metadata         struct{ Name, ResourceVersion, SelfLink string }
	}
	var doc struct {
		object
		Items []object
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		h.t.Fatalf("%s: %v", raw, err)
	}
	if resp.Header.Get("Cache-Status") != "rockpool; hit" || resp.Header.Get("Age") == "" {
		h.t.Errorf("headers %v do not show that this is from a cache", resp.Header)
	}
	if doc.Kind == "Pod" || doc.Kind == "PartialObjectMetadata" {
		return doc.Kind + " " + doc.Metadata.Name + "@" + doc.Metadata.ResourceVersion
	}
	if doc.Metadata.SelfLink != "kept" {
		h.t.Errorf("the list metadata was lost: %s", raw)
	}
	out := doc.Kind + "@" + doc.Metadata.ResourceVersion
	for _, item := range doc.Items {
		if item.Kind != "" {
			h.t.Errorf("an item has a kind, unlike in a typed list: %s", raw)
		}
		out += " " + item.Metadata.Name + "@" + item.Metadata.ResourceVersion
	}
	return out
}

var (
	jsonObject       = request.Form{Format: wire.JSON, Representation: request.Object}
	jsonMetadata     = request.Form{Format: wire.JSON, Representation: request.Metadata}
	protobufObject   = request.Form{Format: wire.Protobuf, Representation: request.Object}
	protobufMetadata = request.Form{Format: wire.Protobuf, Representation: request.Metadata}
	allForms         = []request.Form{jsonObject, jsonMetadata, protobufObject, protobufMetadata}
)

// accept is an Accept header for one form only.
func accept(f request.Form) string {
	if f.Representation == request.Metadata {
		return f.Format.MediaType() + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	}
	return f.Format.MediaType()
}

// podOn is a pod on a node.
func podOn(namespace, name, node string, rv int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "u", ResourceVersion: fmt.Sprint(rv), Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: strings.Repeat("i", len(name)*100)}}},
	}
}

// recordIn records pods in a form.
func (h *harness) recordIn(form request.Form, url string, rv int, pods ...*corev1.Pod) {
	h.t.Helper()
	s := scope(url)
	s.MediaType, s.Representation = form.Format.MediaType(), string(form.Representation)
	snap := store.NewSnapshot(s, h.asked())
	head := store.CollectionMeta{Kind: "Pod", APIVersion: "v1", ResourceVersion: fmt.Sprint(rv), Envelope: `{"kind":"PodList","apiVersion":"v1","metadata":{"selfLink":"kept"}}`}
	if form.Representation == request.Metadata {
		head.Kind, head.APIVersion, head.Envelope = wire.PartialKind, wire.PartialAPIVersion, `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{}}`
	}
	h.update(func(tx *store.Tx) error {
		for _, p := range pods {
			labels, err := json.Marshal(p.Labels)
			if err != nil {
				return err
			}
			o := store.Object{Namespace: p.Namespace, Name: p.Name, UID: "u", ResourceVersion: p.ResourceVersion, Labels: string(labels), Encoding: store.Protobuf}
			if o.Payload, err = p.Marshal(); err != nil {
				return err
			}
			if form != protobufObject {
				if o.Payload, err = convert.Find(convert.Kind{APIVersion: "v1", Kind: "Pod"}, protobufObject, form)(nil, o.Payload); err != nil {
					return err
				}
			}
			switch form {
			case jsonObject:
				o.Encoding = store.JSONBare
			case jsonMetadata:
				o.Encoding = store.JSON
			}
			if err := snap.Add(tx, o); err != nil {
				return err
			}
		}
		return snap.Commit(tx, head)
	})
}

// list returns a list in short, in any form: the format, its apiVersion and kind, "@version" and
// the items, each with its kind if it has one, and its node.
func (h *harness) list(q Request) string {
	h.t.Helper()
	resp, err := h.Answer(h.t.Context(), q)
	if errors.Is(err, ErrNotRecorded) {
		return "not recorded"
	}
	if err != nil {
		h.t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	format := wire.FormatOf(resp.Header.Get("Content-Type"))
	out := ""
	split := format.NewList(func(item []byte) error {
		m, err := format.ParseItem(item)
		if err != nil {
			return err
		}
		node, err := format.Lookup(item, selectableField("spec.nodeName"))
		if m.Kind != "" {
			m.Kind = " " + m.Kind
		}
		out += m.Kind + " " + m.Name + "/" + node
		return err
	})
	if _, err := split.Write(raw); err != nil {
		h.t.Fatalf("%q: %v", raw, err)
	}
	head, err := split.ListMeta()
	if err != nil {
		h.t.Fatalf("%q: %v", raw, err)
	}
	name := map[wire.Format]string{wire.JSON: "json", wire.Protobuf: "protobuf"}[format]
	return name + " " + head.APIVersion + " " + head.Kind + "@" + head.ResourceVersion + out
}

func selectableField(name string) wire.Field {
	byName, _ := selectable("", "v1", "pods")
	return byName[name][0]
}
