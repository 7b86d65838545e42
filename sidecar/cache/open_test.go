package cache

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	testclock "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/pod/account"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/store"
	"rockpool.dev/tests/authority"
	"rockpool.dev/tests/eventually"
)

// In a rolling update the new pod starts while the old pod runs, so it takes another slot.
func TestANewSlotIsSeededFromAnotherPodOfItsCluster(t *testing.T) {
	o := Options{Directory: t.TempDir(), MaxSize: 1 << 20, Logger: zap.NewNop()}
	first, second := authority.New(t), authority.New(t)
	open := func(ca []byte) *Disk {
		t.Helper()
		o.Account = t.TempDir()
		if err := os.WriteFile(filepath.Join(o.Account, account.CAFile), ca, 0o600); err != nil {
			t.Fatal(err)
		}
		c := OpenDisk(t.Context(), o)
		if c.Store() == nil {
			t.Fatal("the cache is not open")
		}
		t.Cleanup(c.Close)
		return c
	}
	scope := store.Scope{Principal: "p", Version: "v1", Resource: "configmaps", Representation: "object", MediaType: "application/json"}
	putList := func(c *Disk, resourceVersion string) {
		t.Helper()
		snapshot := store.NewSnapshot(scope, store.Evidence{Asked: c.Ask(), Told: c.Ask(), Read: store.Latest})
		err := c.Store().Update(t.Context(), func(tx *store.Tx) error {
			return snapshot.Commit(tx, store.CollectionMeta{Kind: "ConfigMap", APIVersion: "v1", Envelope: "{}", ResourceVersion: resourceVersion})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	wantLists := func(c *Disk, want ...string) {
		t.Helper()
		all, err := c.Store().Collections(t.Context(), scope.Principal, "", "v1", "configmaps")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, found := range all {
			got = append(got, found.ResourceVersion)
		}
		if !slices.Equal(got, want) {
			t.Errorf("slot %s has %v, want %v", filepath.Base(c.slot.Path), got, want)
		}
	}

	old := open(first)
	wantLists(old)
	putList(old, "10")
	fresh := open(first)
	wantLists(fresh, "10")
	putList(fresh, "20")
	wantLists(old, "10")

	putList(old, "30")
	fresh.Close()
	wantLists(open(first), "20") // the slot's file, not another copy
	wantLists(open(second))
}

// A service account that was deleted and created again may have another owner.
func TestACacheIsEmptyForAnotherAccountOfTheSameName(t *testing.T) {
	o := Options{Directory: t.TempDir(), MaxSize: 1 << 20, Account: t.TempDir(), Logger: zap.NewNop()}
	ca := authority.New(t)
	open := func(uid string) *Disk {
		t.Helper()
		claims := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"system:serviceaccount:a:b","kubernetes.io":{"serviceaccount":{"uid":"` + uid + `"}}}`))
		for name, content := range map[string][]byte{account.CAFile: ca, account.TokenFile: []byte("eyJhbGciOiJSUzI1NiJ9." + claims + ".x\n")} {
			if err := os.WriteFile(filepath.Join(o.Account, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := OpenDisk(t.Context(), o)
		if c.Store() == nil || !c.Bound() {
			t.Fatal("the cache is not open, or not bound")
		}
		return c
	}
	for _, step := range []struct {
		uid  string
		kept bool // whether the fact of the previous step is still there
	}{{"one", false}, {"one", true}, {"another", false}} {
		c := open(step.uid)
		value, _, err := c.Store().Fact(t.Context(), "of")
		if err != nil || (value != nil) != step.kept {
			t.Errorf("account %s: the fact is %q, %v", step.uid, value, err)
		}
		if err := c.Store().PutFact(t.Context(), "of", []byte(step.uid)); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// A volume may be mounted late, a disk full for a while.
func TestACacheThatCouldNotBeOpenedIsTriedAgain(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	clock := testclock.NewFakeClock(time.Now())
	o := Options{Directory: filepath.Join(t.TempDir(), "late"), MaxSize: 1 << 20, Account: t.TempDir(), Logger: zap.New(core), Clock: clock}
	for name, content := range map[string][]byte{account.CAFile: authority.New(t), account.TokenFile: []byte("token")} {
		if err := os.WriteFile(filepath.Join(o.Account, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cacheOpen.Set(0)
	c := OpenDisk(t.Context(), o)
	defer c.Close()
	if c.Store() != nil || c.Ready() || !c.Bound() {
		t.Fatal("the cache is open")
	}
	// What goes on meanwhile is not lost for good.
	c.Link("offline", "a reason")
	servers := []string{"https://192.0.2.1:6443"}
	if rate, err := c.Rate(t.Context(), servers); rate != 0 || err != nil {
		t.Errorf("a closed cache has a rate of %d, %v", rate, err)
	}
	c.PutRate(store.Rate{Servers: servers, BytesPerSecond: 125_000})
	source := record.Source{Principal: "p", Info: request.Parse(httptest.NewRequest("GET", "/api/v1/configmaps?watch=true&resourceVersion=10", nil))}
	watch := c.Watch(source, wire.JSON)
	watch.Event(wire.Event{Type: wire.Added}, wire.Meta{ResourceVersion: "11", Kind: "ConfigMap"})
	ended := c.Watch(source, wire.JSON)
	ended.Close()
	if _, err := c.Enqueue(t.Context(), store.Queued{}); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed cache queues an Event: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	bound := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	running.Go(func() { _ = c.Follow(ctx, func(context.Context) { close(bound) }, nil) })
	for _, wait := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		eventually.True(t, "the next attempt waits", clock.HasWaiters)
		if clock.Step(wait*time.Second - 1); !clock.HasWaiters() {
			t.Fatalf("an attempt before %d s", wait)
		}
		clock.Step(1)
	}
	eventually.True(t, "the next attempt waits", clock.HasWaiters)
	if err := os.Mkdir(o.Directory, 0o700); err != nil {
		t.Fatal(err)
	}
	clock.Step(longestRetry)
	<-bound
	if c.Store() == nil || !c.Ready() || testutil.ToFloat64(cacheOpen) != 1 {
		t.Error("the cache is not open")
	}
	watch.Event(wire.Event{Type: wire.Bookmark}, wire.Meta{ResourceVersion: "12", Kind: "ConfigMap"})
	stale := <-c.Stale()
	if got := stale.Source.Info; got.Resource != "configmaps" || got.ResourceVersion != "11" {
		t.Errorf("%s is listed from %s", got.Resource, got.ResourceVersion)
	}
	watch.Close()
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rate, err := c.Rate(t.Context(), servers); rate != 125_000 || err != nil {
		t.Errorf("a rate of %d, %v", rate, err)
	}
	var messages []string
	for _, entry := range logs.All() {
		messages = append(messages, entry.Message)
	}
	want := []string{"cannot open the cache; requests pass through, and nothing is recorded until it can be opened", "cache is open"}
	if !slices.Equal(messages, want) {
		t.Errorf("the log has %q", messages)
	}
	cancel()
	running.Wait()
}

// Without the budget of its options, a cache would write without asking what was written.
func TestTheRecorderOfACacheHasItsBudget(t *testing.T) {
	asked := make(chan struct{}, 1)
	o := Options{Directory: t.TempDir(), MaxSize: 1 << 20, Account: t.TempDir(), Logger: zap.NewNop()}
	o.Budget = record.Budget{PerDay: 1 << 30, Written: func() (int64, error) {
		select {
		case asked <- struct{}{}:
		default:
		}
		return 0, nil
	}}
	c := OpenDisk(t.Context(), o)
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = c.Run(ctx) })
	c.Link("online", "a reason")
	eventually.Receive(t, "the question how much was written", asked)
}

func TestACacheThatIsNeverOpenedEndsWithItsContext(t *testing.T) {
	o := Options{Directory: filepath.Join(t.TempDir(), "never"), Logger: zap.NewNop()}
	c := OpenDisk(t.Context(), o)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := errors.Join(c.Run(ctx), c.Follow(ctx, nil, nil), (&Cache{}).Run(ctx)); err != nil {
		t.Error(err)
	}
	c.Close()
}

func TestAnEmptyFileInPlaceOfADamagedOneIsTold(t *testing.T) {
	var told []string
	o := Options{
		Directory: t.TempDir(), MaxSize: 1 << 20, Account: t.TempDir(), Logger: zap.NewNop(),
		Rebuilt: func(what string) { told = append(told, what) }, Evicted: func(what string) { t.Error(what) },
	}
	for i, damage := range []func(path string) error{
		func(string) error { return nil },
		func(path string) error { return os.WriteFile(path, []byte("no database"), 0o600) },
	} {
		c := OpenDisk(t.Context(), o)
		if c.Store() == nil {
			t.Fatal("the cache is not open")
		}
		path := c.Store().Path()
		c.Close()
		if len(told) != 0 {
			t.Errorf("opened %d times: %q", i+1, told)
		}
		if err := damage(path); err != nil {
			t.Fatal(err)
		}
	}
	c := OpenDisk(t.Context(), o)
	defer c.Close()
	if c.Store() == nil || len(told) != 1 || !strings.Contains(told[0], "starting with an empty cache") {
		t.Errorf("told: %q", told)
	}
}
