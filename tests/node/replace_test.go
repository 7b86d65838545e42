package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The link goes when the kubelet has all that it needs of the API server, a token above all, and
// before it has started anything. A little later, and the sidecar might have begun online.
func TestAPodThatReplacesAnotherStartsWarmWithoutALink(t *testing.T) {
	s := newSite(t, "replace")
	s.kubectl("apply", "-f", "testdata/workloads.yaml", "-l", "app=db")
	old := s.pod("db")
	old.sees("app", "present", "greeting")
	old.sees("app", "synced")
	s.until("it is recorded", func(ctx context.Context) error {
		got, err := old.sql(ctx, "SELECT count(*) FROM v_object WHERE name = 'greeting'")
		if err == nil && got != "1" {
			err = fmt.Errorf("%s objects", got)
		}
		return err
	})

	s.try(cluster.Client().CoreV1().Pods(s.namespace).Delete(s.ctx, old.Name, metav1.DeleteOptions{}))
	fresh := &pod{Pod: s.replacement(old), site: s}
	s.awaitToken(fresh)
	cluster.node.Link.Cut()
	cut := time.Now()

	fresh.sees("app", "present", "greeting")
	fresh.sees("app", "synced")
	printed, err := lines(fresh.Pod, "rockpool-sidecar")
	s.try(err)
	if len(printed) == 0 || printed[0].Time.Before(cut) {
		t.Fatalf("the sidecar began before the link was cut at %s; this test shows nothing: %v", cut, printed)
	}
	fresh.linkIs("offline")
	if slots, err := fresh.slots(); err != nil || len(slots) != 1 || filepath.Base(slots[0]) != "0" {
		t.Errorf("slots %v, %v, want the one of the pod before", slots, err)
	}

	s.configMap("hello again")
	cluster.node.Link.Restore()
	fresh.linkIs("online")
	fresh.sees("app", "updated", "greeting")
	if now := s.pod("db"); now.UID != fresh.UID {
		t.Errorf("the pod was replaced once more, by %s", now.UID)
	}
}

// replacement waits for the pod that a controller makes in place of another.
func (s *site) replacement(old *pod) (found *corev1.Pod) {
	s.t.Helper()
	s.until("a pod in its place", func(ctx context.Context) (err error) {
		if found, err = s.find(ctx, old.Labels["app"]); err == nil && found.UID == old.UID {
			err = errors.New("it is still there")
		}
		return err
	})
	return found
}

// awaitToken waits until the kubelet has put a token into the pod's volume.
func (s *site) awaitToken(p *pod) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		volumes, err := cluster.node.TokenVolumes(p.Pod)
		s.try(err)
		for _, v := range volumes {
			if _, err := os.Stat(filepath.Join(v, "token")); err == nil {
				return
			}
		}
		time.Sleep(2 * time.Millisecond) // the pod starts meanwhile
	}
	s.t.Fatal("the kubelet gets no token for the pod")
}
