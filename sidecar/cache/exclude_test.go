package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/exclude"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

const reader = "system:serviceaccount:shop:web"

// caches are two caches in a temporary directory, with their recorders running.
func caches(t *testing.T) (Caches, *store.DB) {
	t.Helper()
	db, err := store.Open(t.Context(), t.TempDir(), store.Options{MaxSize: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	all := Caches{Memory: &Cache{}, Exclude: &exclude.Current{}}
	all.Disk = NewOf(record.Options{DB: db, Name: "test", Logger: zap.NewNop(), Exclude: all.Exclude})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- all.Disk.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, db.Close()); err != nil {
			t.Error(err)
		}
	})
	return all, db
}

func source(c *Cache, path string) record.Source {
	r, err := http.NewRequest(http.MethodGet, path, nil)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Accept", "application/json")
	return record.Source{Info: request.Parse(r), Path: path, Principal: reader, Started: time.Now(), Asked: c.Ask()}
}

// list is the answer to a list of ConfigMaps.
func list(names ...string) *http.Response {
	var items []string
	for i, name := range names {
		items = append(items, fmt.Sprintf(`{"metadata":{"namespace":"shop","name":%q,"uid":%q,"resourceVersion":"%d"}}`, name, name, i+1))
	}
	text := `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"100"},"items":[` + strings.Join(items, ",") + `]}`
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text))}
}

func (c Caches) answers(t *testing.T, path string) error {
	t.Helper()
	if err := c.Disk.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := source(c.Disk, path)
	resp, err := c.Disk.Answer(t.Context(), replay.Request{Principal: reader, Info: s.Info, Path: path})
	if err == nil {
		resp.Body.Close()
	}
	return err
}

func rows(t *testing.T, db *store.DB) int {
	t.Helper()
	known, err := db.Known(t.Context(), store.Resource{Principal: reader, Resource: "configmaps"}, store.Key{Namespace: "shop", Name: "a"}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	return len(known.States)
}

const shop = "/api/v1/namespaces/shop/configmaps"

func TestWhatIsExcludedIsNeitherRecordedNorAnsweredAndWhatWasIsDeleted(t *testing.T) {
	c, db := caches(t)
	record := func(path string) {
		resp := list("a", "b")
		c.Disk.Record(new(source(c.Disk, path)), resp)
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	record(shop)
	if err := c.answers(t, shop); err != nil || rows(t, db) == 0 {
		t.Fatalf("before: %v, %d rows", err, rows(t, db))
	}
	rules, err := exclude.Parse("shop/configmaps")
	if err != nil {
		t.Fatal(err)
	}
	c.SetExclude(rules)
	for _, path := range []string{shop, "/api/v1/configmaps", shop + "/a"} {
		record(path)
		if err := c.answers(t, path); !errors.Is(err, ErrExcluded) || !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if n := rows(t, db); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	c.SetExclude(nil)
	if err := c.answers(t, shop); !errors.Is(err, replay.ErrNotRecorded) {
		t.Errorf("no longer excluded, before the next list: %v", err)
	}
	record(shop)
	if err := c.answers(t, shop); err != nil {
		t.Errorf("no longer excluded, after the next list: %v", err)
	}
}

func TestAListThatWasUnderWayWhenItWasExcludedIsNotRecorded(t *testing.T) {
	c, db := caches(t)
	resp := list("a", "b")
	c.Disk.Record(new(source(c.Disk, shop)), resp)
	if _, err := io.ReadFull(resp.Body, make([]byte, 150)); err != nil { // within the items
		t.Fatal(err)
	}
	c.SetExclude(exclude.Rules{{Resource: "configmaps"}})
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := c.Disk.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := rows(t, db); n != 0 {
		t.Errorf("%d rows were recorded", n)
	}
}

func TestAWatchIsNoLongerRecordedOnceItWasExcluded(t *testing.T) {
	c, db := caches(t)
	events := c.Disk.Watch(source(c.Disk, shop+"?watch=true&resourceVersion=100"), wire.JSON)
	defer events.Close()
	event := func(version int) {
		object := fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"namespace":"shop","name":"a","uid":"a","resourceVersion":"%d"}}`, version)
		meta, err := wire.JSON.ParseMeta([]byte(object))
		if err != nil {
			t.Fatal(err)
		}
		events.Event(wire.Event{Type: wire.Added, Object: []byte(object)}, meta)
		if err := c.Disk.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	event(101)
	if rows(t, db) == 0 {
		t.Fatal("the event was not recorded, so this test shows nothing")
	}
	c.SetExclude(exclude.Rules{{Resource: "configmaps"}})
	event(102)
	if n := rows(t, db); n != 0 {
		t.Errorf("%d rows while it is excluded", n)
	}
	c.SetExclude(nil)
	event(103)
	if n := rows(t, db); n != 0 {
		t.Errorf("%d rows of a watch that has missed events", n)
	}
}
