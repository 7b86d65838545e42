package publish

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"rockpool.dev/tests/eventually"
)

// leases is an API server with one Lease at most.
type leases struct {
	mu      sync.Mutex
	lease   *coordinationv1.Lease
	version int
	down    bool
	calls   int
}

func (l *leases) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	w.Header().Set("Content-Type", "application/json")
	fail := func(code int, reason metav1.StatusReason) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Code: int32(code), Reason: reason, Status: metav1.StatusFailure})
	}
	if l.down {
		fail(http.StatusInternalServerError, metav1.StatusReasonInternalError)
		return
	}
	var given coordinationv1.Lease
	if r.Method != http.MethodGet {
		if err := json.NewDecoder(r.Body).Decode(&given); err != nil {
			fail(http.StatusBadRequest, metav1.StatusReasonBadRequest)
			return
		}
	}
	switch {
	case r.Method != http.MethodPost && l.lease == nil:
		fail(http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	case r.Method == http.MethodPost && l.lease != nil:
		fail(http.StatusConflict, metav1.StatusReasonAlreadyExists)
		return
	case r.Method == http.MethodPut && given.ResourceVersion != l.lease.ResourceVersion:
		fail(http.StatusConflict, metav1.StatusReasonConflict)
		return
	}
	if r.Method != http.MethodGet {
		l.version++
		given.ResourceVersion = strconv.Itoa(l.version)
		l.lease = &given
	}
	stored := l.lease.DeepCopy()
	stored.TypeMeta = metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"}
	_ = json.NewEncoder(w).Encode(stored)
}

func (l *leases) holder() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lease == nil {
		return ""
	}
	return ptr.Deref(l.lease.Spec.HolderIdentity, "")
}

// candidate is a replica that takes part.
type candidate struct {
	leads atomic.Bool
	clock *clocktesting.FakeClock
	stop  func()
}

func (l *leases) candidate(t *testing.T, identity string) *candidate {
	t.Helper()
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	c := &candidate{clock: clocktesting.NewFakeClock(time.Now())}
	e, err := NewElection(&rest.Config{Host: server.URL, RateLimiter: flowcontrol.NewFakeAlwaysRateLimiter()}, "rockpool-system", "publisher", identity, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	e.Clock = c.clock
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Run(ctx, func(ctx context.Context) {
			c.leads.Store(true)
			<-ctx.Done()
			c.leads.Store(false)
		})
	}()
	c.stop = func() { cancel(); <-done }
	t.Cleanup(func() {
		c.stop()
		e.Client.(*rest.RESTClient).Client.CloseIdleConnections()
	})
	eventually.True(t, identity+" takes part", c.clock.HasWaiters)
	return c
}

// step lets an interval pass for the candidate, and waits for its attempt.
func (l *leases) step(t *testing.T, c *candidate) {
	t.Helper()
	calls := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.calls
	}
	before := calls()
	c.clock.Step(renewInterval)
	eventually.True(t, "an attempt", func() bool { return calls() > before })
}

func TestOneCandidateLeadsAndGivesTheLeaseUpAtItsEnd(t *testing.T) {
	l := &leases{}
	a := l.candidate(t, "a")
	eventually.True(t, "a leads", a.leads.Load)
	b := l.candidate(t, "b")
	for range 10 { // a renews in between
		l.step(t, a)
		l.step(t, b)
	}
	if b.leads.Load() || !a.leads.Load() {
		t.Fatalf("a leads: %v, b leads: %v", a.leads.Load(), b.leads.Load())
	}
	a.stop()
	if a.leads.Load() || l.holder() != "" {
		t.Errorf("after its end a leads: %v, the Lease is held by %q", a.leads.Load(), l.holder())
	}
	l.step(t, b)
	eventually.True(t, "b leads", b.leads.Load)
}

func TestACandidateTakesTheLeaseOfOneThatHasDied(t *testing.T) {
	l := &leases{}
	l.lease = &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "rockpool-system", Name: "publisher", ResourceVersion: "0"},
		// By its clock, which was ahead, it still holds the Lease for a year.
		Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To("dead"), RenewTime: &metav1.MicroTime{Time: time.Now().AddDate(1, 0, 0)}},
	}
	b := l.candidate(t, "b")
	waited := time.Duration(0)
	for ; !b.leads.Load(); waited += renewInterval {
		if waited > 2*leaseDuration {
			t.Fatalf("b does not lead; the Lease is held by %q", l.holder())
		}
		if l.step(t, b); l.holder() == "b" {
			eventually.True(t, "b leads", b.leads.Load)
		}
	}
	if waited < leaseDuration {
		t.Errorf("b took the Lease after %s", waited)
	}
}

func TestACandidateThatCannotRenewStops(t *testing.T) {
	l := &leases{}
	a := l.candidate(t, "a")
	eventually.True(t, "a leads", a.leads.Load)
	l.mu.Lock()
	l.down = true
	l.mu.Unlock()
	l.step(t, a)
	if !a.leads.Load() {
		t.Error("one failure ends it")
	}
	for range int(renewDeadline / renewInterval) {
		l.step(t, a)
	}
	eventually.True(t, "a stops", func() bool { return !a.leads.Load() })
	l.mu.Lock()
	l.down = false
	l.mu.Unlock()
	l.step(t, a)
	eventually.True(t, "a leads again", a.leads.Load)
}
