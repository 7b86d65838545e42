package cache

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// An event that nobody here can read may be the change that a collection lacks.
func TestAnUnreadableEventBeforeACacheIsOpenIsNotSkipped(t *testing.T) {
	const path = "/api/v1/namespaces/shop/configmaps"
	for name, unreadable := range map[string]bool{"all events can be read": false, "one cannot": true} {
		t.Run(name, func(t *testing.T) {
			db, err := store.Open(t.Context(), t.TempDir(), store.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			c := New(db, "disk", zap.NewNop())
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			defer running.Wait()
			defer cancel()
			running.Go(func() { _ = c.Run(ctx) })
			sourceOf := func(query string) record.Source {
				r := httptest.NewRequest(http.MethodGet, path+query, nil)
				r.Header.Set("Accept", "application/json")
				return record.Source{Principal: "p", Info: request.Parse(r), Path: r.URL.RequestURI(), Asked: c.Ask()}
			}
			list := sourceOf("")
			resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: -1}
			resp.Body = io.NopCloser(strings.NewReader(`{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"10"},"items":[]}`))
			c.Record(&list, resp)
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Fatal(err)
			}
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}

			late := &lateEvents{cache: c, source: sourceOf("?watch=true&resourceVersion=10"), format: wire.JSON}
			if unreadable {
				late.Event(wire.Event{Type: wire.Modified}, wire.Meta{})
			}
			late.begin(c.open.Load().recorder)
			defer late.Close()
			object := []byte(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"b","namespace":"shop","uid":"b","resourceVersion":"12"}}`)
			late.Event(wire.Event{Type: wire.Added, Object: object}, wire.Meta{Kind: "ConfigMap", APIVersion: "v1", Namespace: "shop", Name: "b", UID: "b", ResourceVersion: "12"})
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			found, err := c.Recorded(t.Context(), replay.Request{Principal: "p", Info: list.Info, Path: path})
			by := ""
			if err == nil {
				by, err = found.Overtaken(t.Context())
			}
			if certain := err == nil && by == ""; certain == unreadable {
				t.Errorf("the collection is at version %q, overtaken by %q: %v", found.ResourceVersion, by, err)
			}
		})
	}
}
