package replay

import (
	"fmt"
	"io"
	"testing"

	"rockpool.dev/store"
)

// BenchmarkGetBesideManyCollections reads one pod while 1,000 other collections of pods are
// recorded. It also counts that the response is right.
func BenchmarkGetBesideManyCollections(b *testing.B) {
	const collections = 1000
	for _, tt := range []struct {
		name string
		last bool // they were recorded after the pod
		url  func(i int) string
		pod  func(i int) (namespace, name string)
	}{
		{"of other namespaces", false, func(i int) string { return fmt.Sprintf("/api/v1/namespaces/ns-%d/pods", i) },
			func(i int) (string, string) { return fmt.Sprint("ns-", i), "web" }},
		{"of one other object each", false, func(i int) string {
			return fmt.Sprintf("/api/v1/namespaces/shop/pods?fieldSelector=metadata.name=p-%d", i)
		},
			func(i int) (string, string) { return "shop", fmt.Sprint("p-", i) }},
		{"of other labels", true, func(i int) string { return fmt.Sprintf("/api/v1/namespaces/shop/pods?labelSelector=app=p-%d", i) },
			func(i int) (string, string) { return "shop", fmt.Sprint("p-", i) }},
		{"that have it too", true, func(i int) string { return fmt.Sprintf("/api/v1/namespaces/shop/pods?labelSelector=app!=p-%d", i) },
			func(int) (string, string) { return "shop", "web" }},
	} {
		b.Run(tt.name, func(b *testing.B) {
			h := newHarness(b)
			single := func() {
				h.update(func(tx *store.Tx) error {
					return h.putSingle(tx, scope("/api/v1/pods"), "Pod", "v1", bare("shop", "web", 5))
				})
			}
			if tt.last {
				single()
			}
			for i := range collections {
				namespace, name := tt.pod(i)
				h.record(tt.url(i), 10, bare(namespace, name, 5))
			}
			if !tt.last {
				single()
			}
			for b.Loop() {
				resp, err := h.Answer(b.Context(), ask("/api/v1/namespaces/shop/pods/web", ""))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("that have an older state of it", func(b *testing.B) {
		h := newHarness(b)
		for i := range collections {
			h.record(fmt.Sprintf("/api/v1/namespaces/shop/pods?labelSelector=app!=p-%d", i), 10, bare("shop", "web", 5))
		}
		newer := scope("/api/v1/pods")
		newer.MediaType = "application/yaml"
		h.update(func(tx *store.Tx) error { return h.putSingle(tx, newer, "Pod", "v1", bare("shop", "web", 11)) })
		for b.Loop() {
			if got := h.answer(ask("/api/v1/namespaces/shop/pods/web", "")); got != "not recorded" {
				b.Fatal(got)
			}
		}
	})
}
