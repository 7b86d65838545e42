package meter

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/store"
)

// fakeLink is a link whose state a test chooses.
type fakeLink struct {
	offline time.Duration
	left    time.Time // zero: it is online
	now     *time.Time
}

func (l *fakeLink) Offline() time.Duration { return l.offline }
func (l *fakeLink) LastOnline() time.Time {
	if l.left.IsZero() {
		return *l.now
	}
	return l.left
}

// recordList records an empty list of a resource, as of now.
func recordList(t *testing.T, db *store.DB, resource, namespace string) store.Scope {
	t.Helper()
	s := store.Scope{Principal: "web", Version: "v1", Resource: resource, Representation: "object", Namespace: namespace, MediaType: "application/json"}
	list := store.NewSnapshot(s, store.Evidence{Asked: db.Next(), Told: db.Next(), Read: store.Latest})
	if err := db.Update(t.Context(), func(tx *store.Tx) error {
		return list.Commit(tx, store.CollectionMeta{Kind: "X", APIVersion: "v1", ResourceVersion: "1"})
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAgesAreThoseOfTheAnswersInAnOutage(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	db, err := store.Open(t.Context(), t.TempDir(), store.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	recordList(t, db, "pods", "")
	recordList(t, db, "pods", "shop")
	recordList(t, db, "services", "")
	c := cache.New(db, "test", zap.NewNop())
	info := get("/api/v1/pods?watch=true&resourceVersion=1")
	watch := c.Watch(record.Source{Principal: "web", Info: *info, Path: "/api/v1/pods?watch=true"}, wire.JSON)
	link := &fakeLink{now: &now}
	s := &State{Link: link, Caches: []*cache.Cache{c, {}}, Now: func() time.Time { return now }}
	check := func(when string, pods, services time.Duration) {
		t.Helper()
		got, err := s.ages()
		want := map[aged]time.Duration{{"pods", ""}: pods, {"pods", "shop"}: services, {"services", ""}: services}
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v (%v), want %v", when, got, err, want)
		}
	}
	check("just recorded", 0, 0)
	now = now.Add(time.Hour)
	check("the watch keeps the pods in step, and nothing the services", 0, time.Hour)
	link.left = now.Add(time.Minute)
	now = now.Add(10 * time.Minute)
	check("the link is down for nine minutes", 9*time.Minute, 70*time.Minute)
	now = now.Add(time.Minute)
	watch.Close()
	check("and the watch is closed", 10*time.Minute, 71*time.Minute)
	link.left = time.Time{}
	check("the link is back, and nobody watches", 10*time.Minute, 71*time.Minute)
	recordList(t, db, "pods", "")
	check("listed again", 0, 71*time.Minute)
}

func TestTheOldestAgesAreKept(t *testing.T) {
	ages := map[aged]time.Duration{}
	for i := range 2 * maxAges {
		ages[aged{"pods", fmt.Sprint(i)}] = time.Duration(i)
	}
	if got := slices.Min(slices.Collect(maps.Values(oldest(ages)))); got != maxAges || len(ages) != maxAges {
		t.Errorf("%d ages from %d on", len(ages), got)
	}
}

func TestTheStateIsValidForPrometheus(t *testing.T) {
	now := time.Now()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(&State{Link: &fakeLink{offline: time.Minute, now: &now}, Version: "v1.2.3", Now: time.Now}, New(infoOf))
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if n, err := testutil.GatherAndCount(registry, "rockpool_build_info", "rockpool_link_offline_seconds_total", "rockpool_link_last_online_timestamp_seconds"); n != 3 || err != nil {
		t.Errorf("%d metrics, %v", n, err)
	}
}

func TestTheBytesOnDisksAreTheKernels(t *testing.T) {
	const accounting = "rchar: 4292\nwchar: 0\nsyscr: 13\nsyscw: 0\nread_bytes: 8\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n"
	if n, err := written([]byte(accounting)); n != 4096 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, bad := range []string{"", "write_bytes: many\n"} {
		if n, err := written([]byte(bad)); err == nil {
			t.Errorf("%q has %d", bad, n)
		}
	}
}
