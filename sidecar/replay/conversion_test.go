package replay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

func TestAListIsAnsweredInAFormThatTheClientAccepts(t *testing.T) {
	const url = "/api/v1/namespaces/shop/pods"
	want := map[request.Form]string{
		jsonObject:       "json v1 PodList@10 a/n b/m",
		protobufObject:   "protobuf v1 PodList@10 a/n b/m",
		jsonMetadata:     "json meta.k8s.io/v1 PartialObjectMetadataList@10 PartialObjectMetadata a/ PartialObjectMetadata b/",
		protobufMetadata: "protobuf meta.k8s.io/v1 PartialObjectMetadataList@10 a/ b/",
	}
	for _, from := range allForms {
		h := newHarness(t)
		h.recordIn(from, "/api/v1/pods", 10, podOn("shop", "a", "n", 1), podOn("shop", "b", "m", 2), podOn("bar", "x", "n", 3))
		for _, to := range allForms {
			expected := want[to]
			if from.Representation == request.Metadata && to.Representation == request.Object {
				expected = "not recorded"
			}
			if got := h.list(ask(url, accept(to))); got != expected {
				t.Errorf("recorded in %s, asked for %s: %s, want %s", accept(from), accept(to), got, expected)
			}
			resp, err := h.Answer(t.Context(), ask(url+"/b", accept(to)))
			if expected == "not recorded" {
				if !errors.Is(err, ErrNotRecorded) {
					t.Errorf("recorded in %s, asked for %s: one object gave %v", accept(from), accept(to), err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			raw, err := io.ReadAll(resp.Body)
			if err != nil || resp.Header.Get("Content-Type") != to.Format.MediaType() || int64(len(raw)) != resp.ContentLength {
				t.Errorf("%v %v, %d bytes", resp.Header, err, len(raw))
			}
			kind := map[request.Representation]string{request.Object: "v1 Pod b", request.Metadata: "meta.k8s.io/v1 PartialObjectMetadata b"}[to.Representation]
			if m, err := to.Format.ParseMeta(raw); err != nil || m.APIVersion+" "+m.Kind+" "+m.Name != kind {
				t.Errorf("recorded in %s, asked for %s: %+v %v", accept(from), accept(to), m, err)
			}
		}
	}
}

func TestAListIsNarrowedAndConvertedAtOnce(t *testing.T) {
	h := newHarness(t)
	h.recordIn(protobufObject, "/api/v1/pods", 10, podOn("shop", "a", "n", 1), podOn("shop", "b", "m", 2), podOn("shop", "cc", "n", 4), podOn("bar", "x", "n", 3))
	const url = "/api/v1/namespaces/shop/pods?fieldSelector=spec.nodeName%3Dn&labelSelector=app!%3Da"
	for form, want := range map[request.Form]string{
		jsonObject:       "json v1 PodList@10 cc/n",
		protobufObject:   "protobuf v1 PodList@10 cc/n",
		protobufMetadata: "protobuf meta.k8s.io/v1 PartialObjectMetadataList@10 cc/",
	} {
		if got := h.list(ask(url, accept(form))); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	h = newHarness(t)
	h.recordIn(jsonMetadata, "/api/v1/pods", 10, podOn("shop", "a", "n", 1))
	if got := h.list(ask("/api/v1/pods?fieldSelector=spec.nodeName%3Dn", accept(jsonMetadata))); got != "not recorded" {
		t.Errorf("a field that the metadata does not have: %s", got)
	}
	if got := h.list(ask("/api/v1/pods?fieldSelector=metadata.name!%3Db", accept(protobufMetadata))); got != "protobuf meta.k8s.io/v1 PartialObjectMetadataList@10 a/" {
		t.Errorf("a field of the metadata: %s", got)
	}
}

func TestTheNewestListAnswers(t *testing.T) {
	tests := []struct {
		name   string
		record func(h *harness)
		accept []request.Form
		want   string
	}{
		{"even if it must be converted", func(h *harness) {
			h.recordIn(jsonObject, "/api/v1/pods", 10, podOn("shop", "old", "", 1))
			h.recordIn(protobufObject, "/api/v1/pods", 11, podOn("shop", "new", "", 11))
		}, []request.Form{jsonObject}, "json v1 PodList@11 new/"},
		{"unconverted, if the client accepts both", func(h *harness) {
			h.recordIn(jsonObject, "/api/v1/pods", 10, podOn("shop", "old", "", 1))
			h.recordIn(protobufObject, "/api/v1/pods", 11, podOn("shop", "new", "", 11))
		}, []request.Form{jsonObject, protobufObject}, "protobuf v1 PodList@11 new/"},
		{"in the form that the client prefers, of two", func(h *harness) {
			h.recordIn(jsonObject, "/api/v1/pods", 10, podOn("shop", "a", "", 1))
			h.recordIn(protobufObject, "/api/v1/pods", 10, podOn("shop", "a", "", 1))
		}, []request.Form{protobufObject, jsonObject}, "protobuf v1 PodList@10 a/"},
		{"in the form that the client prefers, converted", func(h *harness) {
			h.recordIn(jsonObject, "/api/v1/pods", 10, podOn("shop", "a", "", 1))
		}, []request.Form{protobufMetadata, jsonMetadata}, "protobuf meta.k8s.io/v1 PartialObjectMetadataList@10 a/"},
		{"unconverted, of equally new ones", func(h *harness) {
			h.recordIn(protobufObject, "/api/v1/namespaces/shop/pods", 10, podOn("shop", "converted", "", 1))
			h.recordIn(jsonObject, "/api/v1/pods", 10, podOn("shop", "recorded", "", 1))
		}, []request.Form{jsonObject}, "json v1 PodList@10 recorded/"},
		{"as an exact match, of equally new ones", func(h *harness) {
			h.recordIn(jsonObject, "/api/v1/pods", 10, podOn("shop", "wide", "", 1))
			h.recordIn(jsonObject, "/api/v1/namespaces/shop/pods", 10, podOn("shop", "exact", "", 1))
			h.recordIn(jsonObject, "/api/v1/pods?labelSelector=x", 10)
		}, []request.Form{jsonObject}, "json v1 PodList@10 exact/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t)
			tt.record(h)
			var clauses []string
			for _, f := range tt.accept {
				clauses = append(clauses, accept(f))
			}
			q := ask("/api/v1/namespaces/shop/pods", strings.Join(clauses, ","))
			if got := h.list(q); got != tt.want {
				t.Fatalf("%s, want %s", got, tt.want)
			}
			resp, err := h.Answer(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if form, ok := h.Form(t.Context(), q); !ok || form.Format.MediaType() != resp.Header.Get("Content-Type") || !slices.Contains(tt.accept, form) {
				t.Errorf("a watch from this list would be in %+v %v", form, ok)
			}
		})
	}
}

func TestALongListIsConvertedPageByPage(t *testing.T) {
	h := newHarness(t)
	var pods []*corev1.Pod
	for i := range 1200 {
		pods = append(pods, podOn("shop", fmt.Sprintf("p%d", i), []string{"n", "m"}[i%2], i+1))
	}
	h.recordIn(jsonObject, "/api/v1/pods", 5000, pods...)
	for url, want := range map[string]int{"/api/v1/pods": 1200, "/api/v1/pods?fieldSelector=spec.nodeName%3Dm": 600} {
		if got := strings.Count(h.list(ask(url, accept(protobufObject))), "/m"); got != 600 {
			t.Errorf("%s: %d pods on m", url, got)
		}
		if got := strings.Count(h.list(ask(url, accept(protobufObject))), " p"); got != want {
			t.Errorf("%s: %d pods, want %d", url, got, want)
		}
	}
}

func TestTheNewestStateOfAnObjectAnswers(t *testing.T) {
	h := newHarness(t)
	h.recordIn(jsonObject, "/api/v1/namespaces/shop/pods", 10, podOn("shop", "a", "old", 1))
	h.recordIn(protobufObject, "/api/v1/pods", 20, podOn("shop", "a", "new", 15))
	resp, err := h.Answer(t.Context(), ask("/api/v1/namespaces/shop/pods/a", accept(jsonObject)))
	if err != nil {
		t.Fatal(err)
	}
	var got corev1.Pod
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || got.Spec.NodeName != "new" || got.Kind != "Pod" {
		t.Fatalf("%+v %v", got, err)
	}
}

func TestAWatchBeginsInAFormThatTheClientAccepts(t *testing.T) {
	h := newHarness(t)
	h.recordIn(protobufObject, "/api/v1/pods", 10, podOn("shop", "a", "n", 1), podOn("shop", "b", "m", 2), podOn("bar", "x", "n", 3))
	for _, form := range allForms {
		state, err := h.State(t.Context(), ask("/api/v1/namespaces/shop/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&fieldSelector=spec.nodeName%3Dn", accept(form)))
		if err != nil {
			t.Fatal(err)
		}
		if state.Form != form || state.Header.Get("Content-Type") != form.Format.WatchMediaType() {
			t.Errorf("%+v %v, want %+v", state.Form, state.Header, form)
		}
		var raw []byte
		for last := false; !last; {
			if raw, last, err = state.AppendEvents(raw); err != nil {
				t.Fatal(err)
			}
		}
		var events []string
		frames := form.Format.NewFrames(func(frame []byte) error {
			e, err := form.Format.ParseEvent(frame)
			if err != nil {
				return err
			}
			m, err := form.Format.ParseMeta(e.Object)
			events = append(events, fmt.Sprintf("%s %s %s %s@%s %v", e.Type, m.APIVersion, m.Kind, m.Name, m.ResourceVersion, m.InitialEventsEnd))
			return err
		})
		if _, err := frames.Write(raw); err != nil {
			t.Fatal(err)
		}
		kind := map[request.Representation]string{request.Object: "v1 Pod", request.Metadata: "meta.k8s.io/v1 PartialObjectMetadata"}[form.Representation]
		if d := cmp.Diff([]string{"ADDED " + kind + " a@1 false", "BOOKMARK " + kind + " @10 true"}, events); d != "" {
			t.Errorf("%s: %s", accept(form), d)
		}
	}
}

func TestACustomResourceHasNoProtobuf(t *testing.T) {
	h := newHarness(t)
	const url = "/apis/example.com/v1/foos"
	snap := store.NewSnapshot(scope(url), h.asked())
	h.update(func(tx *store.Tx) error {
		o := store.Object{Name: "a", UID: "u", ResourceVersion: "1", Encoding: store.JSON, Payload: []byte(`{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"a"},"spec":{}}`)}
		return errors.Join(snap.Add(tx, o), snap.Commit(tx, store.CollectionMeta{Kind: "Foo", APIVersion: "example.com/v1", ResourceVersion: "10", Envelope: `{"kind":"FooList","apiVersion":"example.com/v1"}`}))
	})
	for accepts, want := range map[string]string{
		accept(protobufObject):                            "not recorded",
		accept(protobufObject) + "," + accept(jsonObject): "json example.com/v1 FooList@10 Foo a/",
		accept(protobufMetadata):                          "protobuf meta.k8s.io/v1 PartialObjectMetadataList@10 a/",
	} {
		if got := h.list(ask(url, accepts)); got != want {
			t.Errorf("%s: %s, want %s", accepts, got, want)
		}
	}
	if got := h.list(ask(url+"?fieldSelector=spec.x%3D1", accept(jsonObject))); got != "not recorded" {
		t.Errorf("an unknown field: %s", got)
	}
}

func TestAnInvalidPayloadIsAnErrorAndNotAShorterList(t *testing.T) {
	h := newHarness(t)
	s := scope("/api/v1/pods")
	s.MediaType = wire.MediaTypeProtobuf
	snap := store.NewSnapshot(s, h.asked())
	h.update(func(tx *store.Tx) error {
		return errors.Join(snap.Add(tx, store.Object{Name: "a", UID: "u", ResourceVersion: "1", Encoding: store.Protobuf, Payload: []byte("\xff")}),
			snap.Commit(tx, store.CollectionMeta{Kind: "Pod", APIVersion: "v1", ResourceVersion: "10", Envelope: `{"kind":"PodList","apiVersion":"v1"}`}))
	})
	for _, url := range []string{"/api/v1/pods", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn"} {
		resp, err := h.Answer(t.Context(), ask(url, accept(jsonObject)))
		if err != nil {
			continue
		}
		if raw, err := io.ReadAll(resp.Body); err == nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", url, resp.StatusCode, raw)
		}
	}
}
