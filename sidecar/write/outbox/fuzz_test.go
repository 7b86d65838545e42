package outbox

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/write"
	"rockpool.dev/store"
)

// FuzzAccept sends an Event and a patch of it. An accepted write must be in the store, under its
// name and in its namespace.
func FuzzAccept(f *testing.F) {
	f.Add("application/json", []byte(event("a")), strategic, []byte(`{"count":2}`))
	f.Add("", []byte(`{"metadata":{"generateName":"a-"}}`), "application/merge-patch+json", []byte(`{"metadata":null}`))
	f.Add("application/vnd.kubernetes.protobuf", []byte("k8s\x00\n\x0b\n\x02v1\x12\x05Event\x12\x09\n\x07\n\x05web.1"), strategic, []byte(`{"metadata":{"labels":{"a":null}}}`))
	f.Add("application/json", []byte(`{"metadata":{"name":1,"namespace":[]}}`), strategic, []byte(`{"metadata":"x"}`))
	db, err := store.Open(f.Context(), f.TempDir(), store.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = db.Close() })
	f.Fuzz(func(t *testing.T, contentType string, body []byte, patchType string, patch []byte) {
		b := New(Options{Store: db, MaxCount: 1, MaxAge: time.Hour, Logger: zap.NewNop()})
		defer func() {
			for _, e := range b.snapshot() {
				b.drop(context.Background(), e, "aged")
			}
		}()
		create := request.Parse(httptest.NewRequest("POST", core, nil))
		if _, err := b.Accept(t.Context(), write.Request{Principal: "web", Info: &create, ContentType: contentType, Body: body}); err != nil {
			return
		}
		e := b.snapshot()[0]
		check := func() {
			q, err := db.Queued(t.Context(), e.id)
			if err != nil {
				t.Fatal(err)
			}
			o, err := write.Decode(q.Object)
			if err != nil || q.Name == "" || o.Text("metadata", "name") != q.Name || o.Text("metadata", "namespace") != "shop" || o.Text("kind") != "Event" {
				t.Fatalf("queued is %s as %q, %v", q.Object, q.Name, err)
			}
		}
		check()
		change := request.Parse(httptest.NewRequest("PATCH", core+"/x", nil))
		change.Name = e.name
		if _, err := b.Accept(t.Context(), write.Request{Principal: "web", Info: &change, ContentType: patchType, Body: patch}); err == nil {
			check()
		}
	})
}
