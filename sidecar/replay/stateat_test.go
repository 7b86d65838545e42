package replay

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/store"
)

func at(version string) func(store.Collection) bool {
	return func(c store.Collection) bool { return c.ResourceVersion == version }
}

// names lists the objects of a state.
func names(t *testing.T, p *StateAt) string {
	t.Helper()
	var all []string
	err := p.Each(func(o store.Object) error {
		all = append(all, o.Name+"@"+o.ResourceVersion)
		if typed := string(p.Typed(o)); !strings.Contains(typed, `"apiVersion":"`) || !strings.Contains(typed, o.Name) {
			t.Errorf("%s is %s", o.Name, typed)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func TestStateAtIsACollectionAtOneVersion(t *testing.T) {
	tests := map[string]struct {
		url     string
		version string
		form    request.Form
		want    string // empty: not recorded
	}{
		"the collection itself":          {"/api/v1/namespaces/shop/pods", "10", jsonObject, "a@1 b@2"},
		"a wider one at its own version": {"/api/v1/namespaces/shop/pods", "20", jsonObject, "a@1 b@15"},
		"a part by label":                {"/api/v1/pods?labelSelector=app%3Db", "20", jsonObject, "b@15"},
		"a part by field":                {"/api/v1/pods?fieldSelector=metadata.name%3Dc", "20", jsonObject, "c@3"},
		"its metadata":                   {"/api/v1/namespaces/shop/pods", "10", jsonMetadata, "a@1 b@2"},
		"not at a version in between":    {"/api/v1/namespaces/shop/pods", "15", jsonObject, ""},
		"not the narrower one":           {"/api/v1/pods", "10", jsonObject, ""},
		"not another resource":           {"/api/v1/services", "10", jsonObject, ""},
		"not by an unknown field":        {"/api/v1/pods?fieldSelector=spec.unknown%3Dx", "20", jsonObject, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.record("/api/v1/namespaces/shop/pods", 10, bare("shop", "a", 1), bare("shop", "b", 2))
			h.record("/api/v1/pods", 20, bare("shop", "a", 1), bare("shop", "b", 15), bare("other", "c", 3))
			q := ask(tt.url+sign(tt.url)+"watch=true&resourceVersion=20", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
			p, err := h.StateAt(t.Context(), q, tt.form, at(tt.version))
			if tt.want == "" {
				if !errors.Is(err, ErrNotRecorded) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			kind, api := p.Kind()
			if got := names(t, p); got != tt.want || kind == "" || api == "" {
				t.Errorf("%s of %s %s, want %s", got, api, kind, tt.want)
			}
			if got := names(t, p); got != tt.want {
				t.Errorf("the second time: %s", got)
			}
		})
	}
}

func sign(url string) string {
	if strings.Contains(url, "?") {
		return "&"
	}
	return "?"
}

func TestStateAtFailsWhenSomethingNewerIsRecorded(t *testing.T) {
	h := newHarness(t)
	var objects []store.Object
	for i := range 700 {
		objects = append(objects, bare("shop", fmt.Sprintf("o%05d", i), i+1))
	}
	h.record("/api/v1/pods", 5000, objects...)
	p, err := h.StateAt(t.Context(), ask("/api/v1/pods?watch=true", ""), jsonObject, at("5000"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = p.Each(func(store.Object) error {
		if n++; n == 500 { // after the first page
			h.record("/api/v1/pods", 5001, objects[1:]...)
		}
		return nil
	})
	if !errors.Is(err, store.ErrChanged) || n != 500 {
		t.Errorf("after %d objects: %v", n, err)
	}
}

func TestStateAtDoesNotChangeTheSharedCollections(t *testing.T) {
	h := newHarness(t)
	h.record("/api/v1/pods", 20, bare("shop", "a", 1), bare("other", "c", 3))
	h.record("/api/v1/namespaces/shop/pods", 10, bare("shop", "a", 1))
	for range 2 {
		q := ask("/api/v1/namespaces/shop/pods?watch=true", "")
		if p, err := h.StateAt(t.Context(), q, jsonObject, at("10")); err != nil || names(t, p) != "a@1" {
			t.Fatalf("%v", err)
		}
	}
	p, err := h.StateAt(t.Context(), ask("/api/v1/pods?watch=true", ""), jsonObject, at("20"))
	if err != nil {
		t.Fatalf("the shared collections were changed: %v", err)
	}
	if got := names(t, p); got != "c@3 a@1" {
		t.Errorf("%s", got)
	}
}
