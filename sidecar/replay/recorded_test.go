package replay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"

	"rockpool.dev/store"
)

func TestARecordedCollectionIsExactlyWhatIsAskedFor(t *testing.T) {
	h := newHarness(t)
	h.record("/api/v1/pods", 20, bare("shop", "a", 5), bare("bank", "b", 6))
	h.record("/api/v1/namespaces/shop/pods", 30, bare("shop", "a", 5))
	h.record("/api/v1/pods?labelSelector=app%3Da", 25, bare("shop", "a", 5))
	for name, c := range map[string]struct {
		url, accept string
		want        string // empty: there is none
	}{
		"all":                       {"/api/v1/pods", "application/json", "20"},
		"a namespace":               {"/api/v1/namespaces/shop/pods", "application/json", "30"},
		"labels":                    {"/api/v1/pods?labelSelector=app%3Da", "application/json", "25"},
		"whatever version it names": {"/api/v1/pods?resourceVersion=99", "application/json", "20"},
		"a part of a wider one":     {"/api/v1/namespaces/bank/pods", "application/json", ""},
		"another selector":          {"/api/v1/pods?labelSelector=app%3Db", "application/json", ""},
		"another form":              {"/api/v1/pods", "application/vnd.kubernetes.protobuf,application/json", ""},
		"another representation":    {"/api/v1/pods", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", ""},
		"a Table, else the list":    {"/api/v1/pods", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", ""},
		"a wildcard, which is JSON": {"/api/v1/pods", "*/*", "20"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := h.Recorded(t.Context(), ask(c.url, c.accept))
			if errors.Is(err, ErrNotRecorded) && c.want == "" {
				return
			}
			if err != nil || got.ResourceVersion != c.want || got.Bytes == 0 {
				t.Fatalf("%+v, %v; want version %q", got.Collection, err, c.want)
			}
			if by, err := got.Overtaken(t.Context()); err != nil || by != "" {
				t.Errorf("it is overtaken by %q, %v", by, err)
			}
		})
	}
	t.Run("something newer is known", func(t *testing.T) {
		h.update(func(tx *store.Tx) error {
			return h.putSingle(tx, scope("/api/v1/namespaces/shop/pods"), "Pod", "v1", bare("shop", "a", 40))
		})
		got, err := h.Recorded(t.Context(), ask("/api/v1/pods", "application/json"))
		if err != nil {
			t.Fatal(err)
		}
		if by, err := got.Overtaken(t.Context()); err != nil || by == "" {
			t.Errorf("%+v is not overtaken, %v", got.Collection, err)
		}
	})
}

func TestARecordedListStaysTheSameWhileItIsRead(t *testing.T) {
	h := newHarness(t)
	var objects []store.Object
	for i := range 2000 {
		objects = append(objects, bare("shop", fmt.Sprintf("p%04d", i), 5))
	}
	h.record("/api/v1/pods", 20, objects...)
	found, err := h.Recorded(t.Context(), ask("/api/v1/pods", "application/json"))
	if err != nil || found.Objects != len(objects) {
		t.Fatalf("%d objects, %v", found.Objects, err)
	}
	key := store.Key{Namespace: "shop", Name: "p0007"}
	if uid, version, err := found.Object(t.Context(), key); uid != "u" || version != "5" || err != nil {
		t.Errorf("%s@%s, %v", uid, version, err)
	}
	if _, version, err := found.Object(t.Context(), store.Key{Namespace: "shop", Name: "x"}); version != "" || err != nil {
		t.Errorf("an object that is not there: %q, %v", version, err)
	}
	resp, err := found.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	h.record("/api/v1/pods", 30, objects[:3]...)
	var list struct {
		Metadata struct{ ResourceVersion string }
		Items    []any
	}
	raw, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, json.Unmarshal(raw, &list)); err != nil || len(list.Items) != len(objects) || list.Metadata.ResourceVersion != "20" {
		t.Errorf("%d objects at %q, %v", len(list.Items), list.Metadata.ResourceVersion, err)
	}
	if _, err := found.List(t.Context()); !errors.Is(err, store.ErrChanged) {
		t.Errorf("the list that was replaced: %v", err)
	}
	if _, _, err := found.Object(t.Context(), key); !errors.Is(err, store.ErrChanged) {
		t.Errorf("its object: %v", err)
	}
}
