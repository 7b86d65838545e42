package cache

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	testclock "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/pod/account"
	"rockpool.dev/store"
	"rockpool.dev/tests/authority"
	"rockpool.dev/tests/eventually"
)

// node has the pods of one workload.
type node struct {
	t         *testing.T
	directory string
	ca        []byte
}

func newNode(t *testing.T) *node { return &node{t, t.TempDir(), authority.New(t)} }

// pod is one of them, with its sidecar.
type pod struct {
	*Disk
	t       *testing.T
	clock   *testclock.FakeClock
	adopted chan struct{}
	stop    func()
}

// start starts the sidecar of the pod with this UID.
func (n *node) start(uid string) *pod {
	n.t.Helper()
	dir := n.t.TempDir()
	claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil,
		`{"sub":"system:serviceaccount:a:b","kubernetes.io":{"serviceaccount":{"uid":"one"},"pod":{"uid":%q}}}`, uid))
	for name, content := range map[string][]byte{account.CAFile: n.ca, account.TokenFile: []byte("eyJhbGciOiJSUzI1NiJ9." + claims + ".x\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	p := &pod{t: n.t, clock: testclock.NewFakeClock(time.Now()), adopted: make(chan struct{}, 8)}
	p.Disk = OpenDisk(n.t.Context(), Options{Directory: n.directory, MaxSize: 1 << 20, Account: dir, Logger: zap.NewNop(), Clock: p.clock})
	if p.Store() == nil {
		n.t.Fatal("the cache is not open")
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.Follow(ctx, func(context.Context) {}, func(context.Context) { p.adopted <- struct{}{} })
	}()
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		<-done
		p.Close()
	}
	n.t.Cleanup(p.stop)
	p.settle()
	return p
}

// settle waits until Follow has gone through a round and waits for the next.
func (p *pod) settle() {
	p.t.Helper()
	eventually.True(p.t, "the pod waits", p.clock.HasWaiters)
}

// minutes lets time pass.
func (p *pod) minutes(n int) {
	for range n {
		p.clock.Step(followInterval)
		p.settle()
	}
}

func (p *pod) isIn(slot string) {
	p.t.Helper()
	if got := filepath.Base(filepath.Dir(p.Store().Path())); got != slot {
		p.t.Errorf("the pod is in slot %s, want %s", got, slot)
	}
}

// record records a list.
func (p *pod) record(resourceVersion string) {
	p.t.Helper()
	scope := store.Scope{Principal: "p", Version: "v1", Resource: "configmaps", Representation: "object", MediaType: "application/json"}
	snapshot := store.NewSnapshot(scope, store.Evidence{Asked: p.Ask(), Told: p.Ask(), Read: store.Latest})
	err := p.Store().Update(p.t.Context(), func(tx *store.Tx) error {
		return snapshot.Commit(tx, store.CollectionMeta{Kind: "ConfigMap", APIVersion: "v1", Envelope: "{}", ResourceVersion: resourceVersion})
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *pod) knows(resourceVersion string) {
	p.t.Helper()
	all, err := p.Store().Collections(p.t.Context(), "p", "", "v1", "configmaps")
	if err != nil || len(all) != 1 || all[0].ResourceVersion != resourceVersion {
		p.t.Errorf("the pod knows %+v %v, want version %s", all, err, resourceVersion)
	}
}

func (p *pod) queue(name string) {
	p.t.Helper()
	_, err := p.Enqueue(p.t.Context(), store.Queued{Principal: "p", Path: "/api/v1/namespaces/a/events", Name: name, At: time.Now(), Object: []byte("{}")})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *pod) queued() (names string) {
	p.t.Helper()
	all, err := p.Outbox(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, q := range all {
		names += q.Name
	}
	return names
}

func TestARestartAfterARollingUpdateFindsWhatWasKnownAndQueued(t *testing.T) {
	n := newNode(t)
	first := n.start("one")
	first.isIn("0")
	first.record("10")
	second := n.start("two")
	second.isIn("1")
	second.knows("10")
	first.queue("a")
	first.stop()
	second.record("20")
	second.queue("b")
	second.stop()

	again := n.start("two")
	again.isIn("1")
	again.knows("20")
	<-again.adopted
	if got := again.queued(); got != "ba" {
		t.Errorf("the queue has %q", got)
	}
}

func TestTheEventsOfAPodThatEndsAreDeliveredByAnother(t *testing.T) {
	n := newNode(t)
	first, second := n.start("one"), n.start("two")
	second.minutes(2)
	first.queue("a")
	first.stop()
	if len(second.adopted) > 0 {
		t.Fatal("the Events of a running pod were taken")
	}
	second.minutes(1)
	<-second.adopted
	if got := second.queued(); got != "a" {
		t.Errorf("the queue has %q", got)
	}
	second.minutes(2)
	if len(second.adopted) > 0 {
		t.Error("the same Events were adopted again")
	}
}

func TestASlotThatIsOutOfDateIsSeededFromTheOneInUse(t *testing.T) {
	n := newNode(t)
	first := n.start("one")
	first.record("10")
	second := n.start("two")
	first.queue("a")
	first.stop()
	second.record("20")
	second.minutes(1) // adopts a
	<-second.adopted
	third := n.start("three")
	third.isIn("0")
	third.knows("20")
	if got := third.queued(); got != "" {
		t.Errorf("the queue has %q", got)
	}
	third.record("30")
	third.stop()
	again := n.start("three")
	again.isIn("0")
	again.knows("30") // its own, not another copy
	again.stop()
	fourth := n.start("four")
	fourth.isIn("0")
	fourth.knows("30") // it was left just now
}
