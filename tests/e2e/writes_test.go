package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// leader runs the program leader instead of the informer.
func (s *site) leader(annotations map[string]string, args ...string) *testPod {
	s.t.Helper()
	s.allow(rbacv1.PolicyRule{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}})
	s.allow(rbacv1.PolicyRule{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update"}})
	return s.pod(func(p *corev1.Pod) {
		for key, value := range annotations {
			p.Annotations[key] = value
		}
		p.Spec.Containers[0].Image, p.Spec.Containers[0].Args = "leader:dev", args
		if slices.Contains(args, "-content-type=application/cbor") {
			withCBOR(p)
		}
	})
}

// kill kills the sidecar and waits until it runs again.
func (p *testPod) kill() {
	p.site.t.Helper()
	before := p.restarts("rockpool-sidecar")
	if err := p.KillContainer("rockpool-sidecar", syscall.SIGKILL); err != nil {
		p.site.t.Fatal(err)
	}
	if err := p.WaitRestarted(p.site.ctx, "rockpool-sidecar", before+1); err != nil {
		p.site.t.Fatal(err)
	}
}

// outbox returns the names of the queued Events, in order.
func (s *site) outbox(where string) []string {
	s.t.Helper()
	return strings.Fields(s.sql("SELECT name FROM outbox WHERE " + where + " ORDER BY id"))
}

// events returns the Events of the namespace in the order of their resourceVersions.
func (s *site) events() []corev1.Event {
	s.t.Helper()
	list, err := s.cluster.Client().CoreV1().Events(s.namespace).List(s.ctx, metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	version := func(e corev1.Event) int {
		n, err := strconv.Atoi(e.ResourceVersion)
		if err != nil {
			s.t.Fatal(err)
		}
		return n
	}
	slices.SortFunc(list.Items, func(a, b corev1.Event) int { return version(a) - version(b) })
	return list.Items
}

// beats is how often the Event with the reason Beat was counted.
func (s *site) beats() (most int32) {
	s.t.Helper()
	for _, e := range s.events() {
		if e.Reason == "Beat" {
			most = max(most, e.Count)
		}
	}
	return most
}

func TestEventsOfAnOutageArriveOnceAndInOrder(t *testing.T) {
	t.Parallel()
	for name, contentType := range map[string]string{"default": "", "JSON": "application/json"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			p := s.leader(map[string]string{"rockpool.dev/offline-events": "true"}, "-tick=200ms", "-content-type="+contentType)
			p.sees(`{"count":3,"event":"tick"}`)
			s.until("Events arrive online", func() bool { return len(s.events()) >= 3 })
			// Not in the middle of a write: what became of that nobody could say.
			before := s.beats()
			s.until("those of a tick have just arrived", func() bool { return s.beats() > before })
			p.offline()
			ticks := "json_extract(object, '$.reason') LIKE 'Tick%'"
			s.until("Events are queued", func() bool { return len(s.outbox(ticks)) >= 5 })
			p.kill()
			queuedBefore := s.outbox("1")
			s.until("the restarted sidecar queues Events", func() bool { return len(s.outbox(ticks)) >= 10 })
			if now := s.outbox("1"); !slices.Equal(now[:len(queuedBefore)], queuedBefore) {
				t.Errorf("queued before the restart: %v, after it: %v", queuedBefore, now)
			}
			queued := s.outbox(ticks)
			if n := len(s.outbox("json_extract(object, '$.reason') = 'Beat' AND patch <> ''")); n != 1 {
				t.Errorf("%d Events with the reason Beat are queued, want 1, from before the outage", n)
			}
			p.online()
			s.until("all are delivered", func() bool { return len(s.outbox("1")) == 0 })
			last := 0
			logs := mustLogs(t, p, "app")
			for line := range strings.Lines(logs) {
				_, _ = fmt.Sscanf(line, `{"count":%d,"event":"tick"}`, &last)
			}
			var got []corev1.Event
			counts := map[string]int{}
			beats := func() int32 {
				got, counts = s.events(), map[string]int{}
				most := int32(0)
				for _, e := range got {
					counts[e.Reason]++
					if e.Reason == "Beat" {
						most = max(most, e.Count)
					}
				}
				return most
			}
			// The recorder counts, so with this Event all earlier ones have arrived. The newer
			// recorder retries after ten seconds the writes that failed while no sidecar ran.
			s.until("the last Events arrive", func() bool {
				most := beats()
				tocks := 0
				for n := 1; n < last/2; n++ {
					tocks += min(1, counts[fmt.Sprint("Tock", n)])
				}
				return most >= int32(last) && tocks == last/2-1
			})
			for n := 1; n <= last; n++ {
				if reason := fmt.Sprint("Tick", n); counts[reason] != 1 {
					t.Errorf("%d Events with the reason %s, want 1", counts[reason], reason)
				}
			}
			for n := 1; n < last/2; n++ {
				if reason := fmt.Sprint("Tock", n); counts[reason] != 1 {
					t.Errorf("%d Events of the newer recorder with the reason %s, want 1", counts[reason], reason)
				}
			}
			if counts["Beat"] != 1 {
				t.Errorf("%d Events with the reason Beat, want 1", counts["Beat"])
			}
			var arrived []string
			for _, e := range got {
				if slices.Contains(queued, e.Name) {
					arrived = append(arrived, e.Name)
				}
			}
			if !slices.Equal(arrived, queued) {
				t.Errorf("order of arrival: %v, want that of the queue: %v", arrived, queued)
			}
			// The newer recorder does not keep the order: it patches an Event that it could not
			// create while no sidecar ran, and gets an error.
			for line := range strings.Lines(mustLogs(t, p, "app")) {
				if strings.Contains(line, "Server rejected") && !strings.Contains(line, "event_broadcaster.go") {
					t.Errorf("the recorder logs an error: %s", line)
				}
			}
		})
	}
}

// outage is the length of an outage and the timing of the Lease.
type outage struct {
	lasts                  time.Duration
	duration, renew, retry time.Duration
}

// newOutage returns an outage of many renewal deadlines. With ROCKPOOL_OUTAGE=3m it has that
// length, and the defaults of client-go.
func newOutage(t *testing.T) outage {
	t.Helper()
	long := os.Getenv("ROCKPOOL_OUTAGE")
	if long == "" {
		return outage{lasts: 15 * time.Second, duration: 4 * time.Second, renew: 3 * time.Second, retry: 500 * time.Millisecond}
	}
	lasts, err := time.ParseDuration(long)
	if err != nil {
		t.Fatal(err)
	}
	return outage{lasts: lasts, duration: 15 * time.Second, renew: 10 * time.Second, retry: 2 * time.Second}
}

// candidate runs a leader and waits until it leads.
func (o outage) candidate(s *site, annotations map[string]string) *testPod {
	s.t.Helper()
	p := s.leader(annotations, "-lease=main", "-lease-duration="+o.duration.String(), "-renew-deadline="+o.renew.String(), "-retry-period="+o.retry.String())
	p.sees(`"event":"leading"`)
	return p
}

// pass waits until the Lease has been renewed for the length of the outage.
func (o outage) pass(p *testPod) {
	p.site.t.Helper()
	began := time.Now()
	renewed := int(o.lasts/o.retry) / 2
	err := wait.PollUntilContextTimeout(p.site.ctx, 200*time.Millisecond, 2*o.lasts+patience, true, func(context.Context) (bool, error) {
		return time.Since(began) >= o.lasts && p.metric(`rockpool_lease_writes_total{result="renewed"}`) >= renewed, nil
	})
	if err != nil {
		p.site.t.Fatalf("the Lease is not renewed %d times: %v", renewed, err)
	}
	p.site.t.Logf("offline for %v, renewed %d times", time.Since(began).Round(time.Second), p.metric(`rockpool_lease_writes_total{result="renewed"}`))
}

func (s *site) mainLease() *coordinationv1.Lease {
	s.t.Helper()
	l, err := s.cluster.Client().CoordinationV1().Leases(s.namespace).Get(s.ctx, "main", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

var keepsLeases = map[string]string{"rockpool.dev/offline-leases": "true"}

func TestALeaderKeepsItsLeaseThroughAnOutage(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	t.Run("with offline-leases", func(t *testing.T) {
		t.Parallel()
		s := newSite(t)
		p := o.candidate(s, keepsLeases)
		p.offline()
		before := s.mainLease()
		o.pass(p)
		if now := s.mainLease(); now.ResourceVersion != before.ResourceVersion {
			t.Error("the API server was reached")
		}
		p.online()
		s.until("the API server's Lease is renewed", func() bool { return s.mainLease().Spec.RenewTime.After(before.Spec.RenewTime.Time) })
		after := s.mainLease()
		if *after.Spec.HolderIdentity != "edge" || *after.Spec.LeaseTransitions != *before.Spec.LeaseTransitions || !after.Spec.AcquireTime.Equal(before.Spec.AcquireTime) {
			t.Errorf("%+v, want %+v", after.Spec, before.Spec)
		}
		p.sidecarSays("the API server's Lease counts again")
		if text := mustLogs(t, p, "app"); strings.Contains(text, `"stopped"`) || p.restarts("app") > 0 {
			t.Errorf("the leader has stopped:\n%s", text)
		}
	})
	t.Run("not without offline-leases", func(t *testing.T) {
		t.Parallel()
		s := newSite(t)
		p := o.candidate(s, nil)
		p.offline()
		p.sees(`"event":"stopped"`)
	})
	t.Run("not when another holder has the Lease", func(t *testing.T) {
		t.Parallel()
		s := newSite(t)
		p := o.candidate(s, keepsLeases)
		p.offline()
		s.until("it is renewed", func() bool { return p.metric(`rockpool_lease_writes_total{result="renewed"}`) > 0 })
		taken, cloud, now := s.mainLease(), "cloud", metav1.NowMicro()
		taken.Spec.HolderIdentity, taken.Spec.RenewTime, taken.Spec.AcquireTime = &cloud, &now, &now
		if _, err := cluster.Client().CoordinationV1().Leases(s.namespace).Update(t.Context(), taken, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		p.online()
		p.sees(`"event":"stopped"`)
		if now := s.mainLease(); *now.Spec.HolderIdentity != "cloud" && now.Spec.AcquireTime.Sub(taken.Spec.AcquireTime.Time) < o.duration {
			t.Errorf("the Lease was taken from its holder: %+v", now.Spec)
		}
	})
	t.Run("not after a restart of the sidecar", func(t *testing.T) {
		t.Parallel()
		s := newSite(t)
		p := o.candidate(s, keepsLeases)
		p.offline()
		s.until("it is renewed", func() bool { return p.metric(`rockpool_lease_writes_total{result="renewed"}`) > 0 })
		p.kill()
		p.sees(`"event":"stopped"`)
	})
}
