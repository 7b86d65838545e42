package replay

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

func TestAnswers(t *testing.T) {
	const table = "application/json;as=Table;v=v1;g=meta.k8s.io"
	tests := []struct {
		name        string
		url, accept string
		want        string
	}{
		{"the recorded list", "/api/v1/namespaces/shop/pods?limit=500", "", "PodList@20 a@1 b@2"},
		{"all namespaces", "/api/v1/pods", "", "PodList@10 x@3 a@1 b@2"},
		{"one namespace of a list of all", "/api/v1/namespaces/bar/pods", "", "PodList@10 x@3"},
		{"an empty namespace", "/api/v1/namespaces/empty/pods", "", "PodList@10"},
		{"a label selector on the newest list", "/api/v1/namespaces/shop/pods?labelSelector=app%3Db", "", "PodList@20 b@2"},
		{"a label selector whose own list is newest", "/api/v1/pods?labelSelector=app+in+(x)", "", "PodList@30 x@3"},
		{"a label selector, not from the list of another selector", "/api/v1/namespaces/bar/pods?labelSelector=app", "", "PodList@10 x@3"},
		{"a name as a field selector", "/api/v1/namespaces/shop/pods?fieldSelector=metadata.name%3Da", "", "PodList@20 a@1"},
		{"a namespace as a field selector", "/api/v1/pods?fieldSelector=metadata.namespace%3Dbar", "", "PodList@10 x@3"},
		{"two namespaces at once", "/api/v1/namespaces/shop/pods?fieldSelector=metadata.namespace%3Dbar", "", "PodList@20"},
		{"two names at once", "/api/v1/pods?fieldSelector=metadata.name%3Da,metadata.name%3Db", "", "PodList@10"},
		{"all names but one", "/api/v1/pods?fieldSelector=metadata.name!%3Da", "", "PodList@10 x@3 b@2"},
		{"a field that no object has", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn", "", "PodList@10"},
		{"a field, a label and a namespace", "/api/v1/namespaces/shop/pods?fieldSelector=spec.nodeName!%3Dn,spec.hostNetwork%3D%3Dfalse&labelSelector=app%3Db", "", "PodList@20 b@2"},
		{"a field that is not selectable", "/api/v1/pods?fieldSelector=spec.priority%3D1", "", "not recorded"},
		{"a resource that was never listed", "/api/v1/services", "", "not recorded"},
		{"another version of the group", "/apis/x.io/v1/pods", "", "not recorded"},
		{"kubectl prefers a table and accepts the list", "/api/v1/namespaces/shop/pods", table + ",application/json", "PodList@20 a@1 b@2"},
		{"a table only", "/api/v1/namespaces/shop/pods", table, "not recorded"},
		{"a further page", "/api/v1/pods?continue=abc", "", "410 Expired"},
		{"any version", "/api/v1/pods?resourceVersion=0", "", "PodList@10 x@3 a@1 b@2"},
		{"not older than the recorded version", "/api/v1/pods?resourceVersion=9&resourceVersionMatch=NotOlderThan", "", "PodList@10 x@3 a@1 b@2"},
		{"newer than the recorded version", "/api/v1/pods?resourceVersion=11", "", "504 Timeout"},
		{"exactly the recorded version", "/api/v1/pods?resourceVersion=10&resourceVersionMatch=Exact", "", "PodList@10 x@3 a@1 b@2"},
		{"exactly another version", "/api/v1/pods?resourceVersion=9&resourceVersionMatch=Exact", "", "410 Expired"},
		{"an object, from the newest list", "/api/v1/namespaces/shop/pods/b", "", "Pod b@2"},
		{"an object whose newest state is in a selection", "/api/v1/namespaces/bar/pods/x", "", "Pod x@3"},
		{"an object read by GET as it is in the lists", "/api/v1/namespaces/shop/pods/a", "", "Pod a@1"},
		{"an absent object", "/api/v1/namespaces/bar/pods/nope", "", "404 NotFound"},
		{"an object read by GET, of a resource never listed", "/api/v1/namespaces/shop/services/s", "", "Pod s@5"},
		{"an object of a resource never listed", "/api/v1/namespaces/shop/services/t", "", "not recorded"},
		{"a subresource", "/api/v1/namespaces/shop/pods/b/log", "", "not recorded"},
		{"health", "/healthz", "", "not recorded"},
	}
	h := newHarness(t)
	h.record("/api/v1/pods", 10, bare("shop", "a", 1), bare("shop", "b", 2), bare("bar", "x", 3))
	h.record("/api/v1/namespaces/shop/pods", 20, bare("shop", "a", 1), bare("shop", "b", 2))
	h.record("/api/v1/pods?labelSelector=app+in+(x)", 30, bare("bar", "x", 3))
	h.update(func(tx *store.Tx) error {
		return errors.Join(h.putSingle(tx, scope("/api/v1/pods"), "Pod", "v1", bare("shop", "a", 1)), h.putSingle(tx, scope("/api/v1/services"), "Pod", "v1", bare("shop", "s", 5)))
	})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			if got := h.answer(ask(tt.url, tt.accept)); got != tt.want {
				t.Fatalf("got %s, want %s", got, tt.want)
			}
			other := ask(tt.url, tt.accept)
			other.Principal = "somebody else"
			if got := h.answer(other); got != "not recorded" && got != "410 Expired" {
				t.Fatalf("somebody else got %s", got)
			}
		})
	}
}

func TestATooLargeVersionFailsAsOnTheServer(t *testing.T) {
	h := newHarness(t)
	h.record("/api/v1/pods", 10)
	if _, err := h.Answer(t.Context(), ask("/api/v1/pods?resourceVersion=11", "")); !apierrors.IsTimeout(err) || !apierrors.HasStatusCause(err, "ResourceVersionTooLarge") {
		t.Fatalf("clients do not recognize %v", err)
	}
}

func TestALongListIsStreamedCompletely(t *testing.T) {
	h := newHarness(t)
	var objects []store.Object
	want := "PodList@5000"
	for i := range 1700 {
		name := fmt.Sprintf("o%05d", i)
		objects, want = append(objects, bare("shop", name, i+1)), want+fmt.Sprintf(" %s@%d", name, i+1)
	}
	h.record("/api/v1/namespaces/shop/pods", 5000, objects...)
	if got := h.answer(ask("/api/v1/namespaces/shop/pods", "")); got != want {
		t.Fatalf("%d bytes, want %d", len(got), len(want))
	}
}

// usedOnce does something when a collection is used for the first time.
type usedOnce struct {
	unrecorded
	first *sync.Once
	do    func()
}

func (u usedOnce) Used(int64) { u.first.Do(u.do) }

func TestWhatChangesWhileItIsFoundIsFoundAgain(t *testing.T) {
	for name, find := range map[string]func(h *harness) error{
		"a list": func(h *harness) error {
			_, err := h.Answer(t.Context(), ask("/api/v1/pods", ""))
			return err
		},
		"the state that a watch begins with": func(h *harness) error {
			_, err := h.State(t.Context(), ask("/api/v1/pods?watch=true", ""))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.record("/api/v1/pods", 10, bare("shop", "a", 1))
			h.rec = usedOnce{first: &sync.Once{}, do: func() { h.record("/api/v1/pods", 11, bare("shop", "a", 11)) }}
			if err := find(h); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAListThatChangesWhileItIsReadIsCutOff(t *testing.T) {
	h := newHarness(t)
	var objects []store.Object
	for i := range 700 {
		objects = append(objects, bare("shop", fmt.Sprintf("o%05d", i), i+1))
	}
	h.record("/api/v1/pods", 5000, objects...)
	resp, err := h.Answer(t.Context(), ask("/api/v1/pods", ""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	h.record("/api/v1/pods", 5001, objects[1:]...)
	if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, store.ErrChanged) {
		t.Fatalf("two states were mixed: %v", err)
	}
}

func TestAgeIsTheTimeSinceTheRecording(t *testing.T) {
	h := newHarness(t)
	h.record("/api/v1/pods", 10)
	h.now = h.now.Add(90 * time.Second)
	resp, err := h.Answer(t.Context(), ask("/api/v1/pods", ""))
	if err != nil || resp.Header.Get("Age") != "90" {
		t.Fatalf("%v %v", resp, err)
	}
}

func TestDocumentsAreForTheIdenticalRequest(t *testing.T) {
	h := newHarness(t)
	h.update(func(tx *store.Tx) error {
		return tx.PutResponse(store.Response{Principal: who, Path: "/apis?timeout=32s", Accept: "application/json", Status: 200, MediaType: "application/json", ETag: `"x"`, Body: []byte(`{"kind":"APIGroupList"}`)})
	})
	read := func(q Request) (int, string) {
		t.Helper()
		resp, err := h.Answer(t.Context(), q)
		if errors.Is(err, ErrNotRecorded) {
			return 503, ""
		}
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		if err != nil || resp.Header.Get("ETag") != `"x"` {
			t.Fatalf("%v %v", resp.Header, err)
		}
		return resp.StatusCode, string(raw)
	}
	if code, body := read(ask("/apis?timeout=32s", "application/json")); code != 200 || body != `{"kind":"APIGroupList"}` {
		t.Errorf("%d %s", code, body)
	}
	same := ask("/apis?timeout=32s", "application/json")
	same.IfNoneMatch = `"x"`
	if code, body := read(same); code != 304 || body != "" {
		t.Errorf("%d %s for a client that has this ETag", code, body)
	}
	for _, q := range []Request{ask("/apis", "application/json"), ask("/apis?timeout=32s", "application/yaml")} {
		if code, _ := read(q); code != 503 {
			t.Errorf("%d for another request", code)
		}
	}
}

func TestANewerListIsPreferredToAnOlderTable(t *testing.T) {
	const accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	h := newHarness(t)
	read := func(url string) string {
		t.Helper()
		resp, err := h.Answer(t.Context(), ask(url, accept))
		if apierrors.IsNotFound(err) {
			return "absent"
		}
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), "Table") {
			return "table"
		}
		return "objects"
	}
	const list, one = "/api/v1/namespaces/shop/pods", "/api/v1/namespaces/shop/pods/a"
	h.record(list, 10, bare("shop", "a", 1))
	h.now = h.now.Add(time.Second)
	h.update(func(tx *store.Tx) error {
		table := store.Response{Principal: who, Told: h.db.Next(), Accept: accept, Status: 200, MediaType: "application/json", Body: []byte(`{"kind":"Table"}`)}
		table.Version, table.Asked, table.Read = "10", table.Told, store.Latest
		for _, table.Path = range []string{list, one} {
			if table.Path == one {
				table.Version = "1"
			}
			if err := tx.PutResponse(table); err != nil {
				return err
			}
		}
		return nil
	})
	for url, want := range map[string]string{list: "table", one: "table"} {
		if got := read(url); got != want {
			t.Errorf("%s: %s, want the %s, which is newest", url, got, want)
		}
	}
	h.now = h.now.Add(time.Second)
	h.record(list, 20)
	for url, want := range map[string]string{list: "objects", one: "absent"} {
		if got := read(url); got != want {
			t.Errorf("%s: %s, want %s from the newer list", url, got, want)
		}
	}
}

func TestAnObjectInOneFormOverridesAbsenceInAnother(t *testing.T) {
	h := newHarness(t)
	partial := scope("/api/v1/pods")
	partial.Representation = "metadata"
	snap := store.NewSnapshot(partial, h.asked())
	h.update(func(tx *store.Tx) error {
		return errors.Join(snap.Commit(tx, store.CollectionMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1", ResourceVersion: "10", Envelope: `{}`}),
			h.putSingle(tx, scope("/api/v1/pods"), "Pod", "v1", bare("shop", "z", 20)))
	})
	const metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	if got := h.answer(ask("/api/v1/namespaces/shop/pods/z", metadata+",application/json")); got != "PartialObjectMetadata z@20" {
		t.Errorf("a client that prefers metadata: %s", got)
	}
	if got := h.answer(ask("/api/v1/namespaces/shop/pods/z", "application/json,"+metadata)); got != "Pod z@20" {
		t.Errorf("a client that prefers objects: %s", got)
	}
	if got := h.answer(ask("/api/v1/namespaces/shop/pods/z", metadata)); got != "PartialObjectMetadata z@20" {
		t.Errorf("a client that accepts only metadata: %s", got)
	}
	h.update(func(tx *store.Tx) error {
		return h.putSingle(tx, partial, "PartialObjectMetadata", "meta.k8s.io/v1", store.Object{Namespace: "shop", Name: "y", ResourceVersion: "30", Encoding: store.JSON, Payload: []byte(`{}`)})
	})
	if got := h.answer(ask("/api/v1/namespaces/shop/pods/y", "application/json")); got != "not recorded" {
		t.Errorf("a client of objects whose metadata alone is recorded: %s", got)
	}
}

func TestAWatchBeginsWithTheRecordedState(t *testing.T) {
	h := newHarness(t)
	crd := store.Object{Namespace: "shop", Name: "c", UID: "u", ResourceVersion: "4", Encoding: store.JSON, Payload: []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"c","resourceVersion":"4"}}`)}
	h.record("/api/v1/namespaces/shop/pods", 10, bare("shop", "a", 1), crd)
	frames := func(q Request) (out []string) {
		t.Helper()
		state, err := h.State(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if state.ResourceVersion != "10" || state.Form != (request.Form{Format: wire.JSON, Representation: request.Object}) {
			t.Fatalf("%+v", state)
		}
		var raw []byte
		for last := false; !last; {
			if raw, last, err = state.AppendEvents(raw); err != nil {
				t.Fatal(err)
			}
		}
		for _, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
			e, err := wire.JSON.ParseEvent([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			m, err := wire.JSON.ParseMeta(e.Object)
			if err != nil || m.Kind != "Pod" || m.APIVersion != "v1" || !json.Valid([]byte(line)) {
				t.Fatalf("%s %v", line, err)
			}
			out = append(out, fmt.Sprintf("%s %s@%s %v", e.Type, m.Name, m.ResourceVersion, m.InitialEventsEnd))
		}
		return out
	}
	events := []string{"ADDED a@1 false", "ADDED c@4 false"}
	if d := cmp.Diff(events, frames(ask("/api/v1/namespaces/shop/pods?watch=1", ""))); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(append(events, "BOOKMARK @10 true"), frames(ask("/api/v1/namespaces/shop/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", ""))); d != "" {
		t.Error(d)
	}
	if _, err := h.State(t.Context(), ask("/api/v1/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "")); !errors.Is(err, ErrNotRecorded) {
		t.Errorf("an unrecorded state: %v", err)
	}
	if _, err := h.State(t.Context(), ask("/api/v1/namespaces/shop/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=11", "")); !apierrors.IsTimeout(err) {
		t.Errorf("a state newer than the recorded one: %v", err)
	}
}

func TestAVerbatimResponseDoesNotHideCorruptRows(t *testing.T) {
	const url = "/api/v1/namespaces/shop/pods/a"
	h := newHarness(t)
	h.update(func(tx *store.Tx) error {
		return tx.PutResponse(store.Response{Principal: who, Path: url, Status: 200, MediaType: "application/json", Body: []byte("{}")})
	})
	h.now = h.now.Add(time.Second)
	h.record("/api/v1/namespaces/shop/pods", 20, bare("shop", "a", 19))
	raw, err := sql.Open("sqlite3", "file:"+h.db.Path())
	if err != nil {
		t.Fatal(err)
	}
	_, err = raw.Exec(`UPDATE object SET checksum = checksum + 1`)
	if err := errors.Join(err, raw.Close()); err != nil {
		t.Fatal(err)
	}
	if resp, err := h.Answer(t.Context(), ask(url, "")); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("it answers %v, %v", resp, err)
	}
}

func TestAWatchOfMetadataDoesNotBeginInTheFormOfAnotherClientsList(t *testing.T) {
	h := newHarness(t)
	h.record("/api/v1/pods", 10, bare("shop", "z", 9)) // as another client recorded it
	const metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	form, ok := h.Form(t.Context(), ask("/api/v1/pods?watch=true", metadata+",application/json"))
	if !ok || form.Representation != request.Metadata {
		t.Errorf("%v %v, want metadata", form, ok)
	}
}

// full is a recorder of a cache into which the Secrets do not fit.
type full struct{ unrecorded }

func (full) Oversized(res store.Resource, _ string) string {
	if res.Resource != "secrets" {
		return ""
	}
	return "raise cache.memory-max-size"
}

func TestTheErrorSaysThatAListDoesNotFit(t *testing.T) {
	h := newHarness(t)
	h.rec = full{}
	for url, want := range map[string]bool{
		"/api/v1/namespaces/shop/secrets":    true,
		"/api/v1/secrets?watch=true":         true,
		"/api/v1/namespaces/shop/secrets/a":  true,
		"/api/v1/namespaces/shop/configmaps": false,
	} {
		t.Run(url, func(t *testing.T) {
			_, err := h.Answer(t.Context(), ask(url, ""))
			if strings.Contains(url, "watch") {
				_, err = h.State(t.Context(), ask(url, ""))
			}
			if !errors.Is(err, ErrNotRecorded) || strings.HasSuffix(err.Error(), "; raise cache.memory-max-size") != want {
				t.Errorf("%v", err)
			}
		})
	}
}
