package replay

import (
	"errors"
	"io"
	"net/http"
	"testing"

	"rockpool.dev/store"
)

func TestARecordedBodyReplacesA304(t *testing.T) {
	h := newHarness(t)
	q := ask("/apis", "")
	h.update(func(tx *store.Tx) error {
		return tx.PutResponse(store.Response{Principal: who, Path: "/apis", Status: 200, MediaType: "application/json", ETag: `"1"`,
			Headers: `{"Vary":["Accept","Accept-Encoding"],"Last-Modified":["yesterday"],"Cache-Control":["private"]}`, Body: []byte("groups")})
	})
	notModified := &http.Response{StatusCode: 304, Header: http.Header{"Date": {"now"}, "Etag": {`"1"`}, "Cache-Control": {"public"}, "Audit-Id": {"x"}, "Vary": {"Accept"}}, Body: http.NoBody}
	resp, err := h.Unchanged(t.Context(), q, `"1"`, notModified)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(raw) != "groups" || resp.ContentLength != 6 {
		t.Fatalf("%+v %s %v", resp, raw, err)
	}
	for name, want := range map[string]string{"Date": "now", "ETag": `"1"`, "Cache-Control": "public", "Audit-Id": "x", "Vary": "Accept", "Last-Modified": "yesterday",
		"Content-Type": "application/json", "Content-Length": "6", "Cache-Status": "", "Age": ""} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if vary := resp.Header.Values("Vary"); len(vary) != 2 {
		t.Errorf("Vary is %v", vary)
	}
	if len(notModified.Header) != 5 || notModified.StatusCode != 304 {
		t.Error("the 304 was changed")
	}
	if _, err := h.Unchanged(t.Context(), q, `"2"`, notModified); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("for another etag: %v", err)
	}
}

func TestIfNoneMatch(t *testing.T) {
	for _, tt := range []struct {
		header, etag string
		want         bool
	}{
		{`"1"`, `"1"`, true}, {`"2"`, `"1"`, false}, {``, `"1"`, false}, {`*`, `"1"`, true},
		{`"2", "1"`, `"1"`, true}, {`W/"1"`, `"1"`, true}, {`"1"`, `W/"1"`, true}, {`"11"`, `"1"`, false},
	} {
		if got := etagMatches(tt.header, tt.etag); got != tt.want {
			t.Errorf("%s matches %s: %v", tt.etag, tt.header, got)
		}
	}
}

func TestATableIsReplayedUntilSomethingNewerContradictsIt(t *testing.T) {
	const accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
	row := func(namespace, name, uid, version string) string {
		return `{"object":{"metadata":{"namespace":"` + namespace + `","name":"` + name + `","uid":"` + uid + `","resourceVersion":"` + version + `"}}}`
	}
	one := row("shop", "a", "u-a", "1")
	object := func(namespace, name, uid string, version int) store.Object {
		o := bare(namespace, name, version)
		o.UID = uid
		return o
	}
	a := object("shop", "a", "u-a", 1)
	for name, tt := range map[string]struct {
		path, rows string
		list       []store.Object
		want       bool
	}{
		"the same object":                        {"/api/v1/namespaces/shop/pods", one, []store.Object{a}, true},
		"nothing, as before":                     {"/api/v1/namespaces/shop/pods", "", nil, true},
		"nothing of this namespace":              {"/api/v1/namespaces/shop/pods", "", []store.Object{object("other", "a", "u-b", 15)}, true},
		"an older object with another label":     {"/api/v1/pods?labelSelector=x", one, []store.Object{a, object("shop", "b", "u-b", 5)}, true},
		"the object is gone":                     {"/api/v1/namespaces/shop/pods", one, nil, false},
		"the object has changed":                 {"/api/v1/namespaces/shop/pods", one, []store.Object{object("shop", "a", "u-a", 15)}, false},
		"an older state of the object":           {"/api/v1/namespaces/shop/pods", row("shop", "a", "u-a", "2"), []store.Object{a}, false},
		"another object with the name":           {"/api/v1/namespaces/shop/pods", one, []store.Object{object("shop", "a", "u-b", 1)}, false},
		"a new object":                           {"/api/v1/pods?labelSelector=x", one, []store.Object{a, object("shop", "b", "u-b", 15)}, false},
		"a new object beside no rows":            {"/api/v1/namespaces/shop/pods", "", []store.Object{object("shop", "b", "u-b", 15)}, false},
		"a row without a version":                {"/api/v1/namespaces/shop/pods", row("shop", "a", "u-a", ""), []store.Object{a}, false},
		"the same object, of all the namespaces": {"/api/v1/pods", one, []store.Object{a}, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.putTable(tt.path, accept, tt.rows)
			h.record("/api/v1/pods", 20, tt.list...)
			h.replays(tt.path, accept, tt.want)
		})
	}
	for name, tt := range map[string]struct {
		key  store.Key
		says store.Says
		want bool
	}{
		"a name that it does not have is absent": {store.Key{Namespace: "shop", Name: "b"}, store.Gone, true},
		"its object is absent":                   {store.Key{Namespace: "shop", Name: "a"}, store.Gone, false},
		"an object may have any state":           {store.Key{Namespace: "shop", Name: "b"}, store.Unknown, false},
		"an object exists":                       {store.Key{Namespace: "shop", Name: "b"}, store.Exists, false},
		"the namespace may have any state":       {store.Key{Namespace: "shop"}, store.Unknown, false},
		"all objects are gone":                   {store.Key{Namespace: "shop"}, store.Gone, false},
		"a doubt of another namespace":           {store.Key{Namespace: "other"}, store.Unknown, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			const path = "/api/v1/namespaces/shop/pods"
			h.putTable(path, accept, one)
			h.update(func(tx *store.Tx) error {
				e := h.asked()
				e.Says = tt.says
				return tx.Observe(scope(path).Of(), tt.key, e)
			})
			h.replays(path, accept, tt.want)
		})
	}
}

// putTable records a Table of version 10.
func (h *harness) putTable(path, accept, rows string) {
	h.t.Helper()
	h.update(func(tx *store.Tx) error {
		return tx.PutResponse(store.Response{Principal: who, Path: path, Accept: accept, Status: 200, MediaType: "application/json",
			Version: "10", Asked: h.db.Next(), Told: h.db.Next(), Read: store.Lagging,
			Body: []byte(`{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"10"},"rows":[` + rows + `]}`)})
	})
}

// replays checks whether a request gets an answer.
func (h *harness) replays(path, accept string, want bool) {
	h.t.Helper()
	resp, err := h.Answer(h.t.Context(), ask(path, accept))
	if err == nil {
		err = resp.Body.Close()
	}
	if got := err == nil; got != want || err != nil && !errors.Is(err, ErrNotRecorded) {
		h.t.Errorf("replayed: %v, want %v: %v", got, want, err)
	}
}
