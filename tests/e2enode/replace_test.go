package e2enode

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The link goes when the kubelet has all that it needs of the API server, a token above all, and
// before it has started anything. A little later, and the sidecar might have begun online.
func TestAReplacementPodStartsOfflineWithTheCache(t *testing.T) {
	for _, kind := range []struct{ name, app string }{{"of a StatefulSet", "db"}, {"of a DaemonSet", "agent"}} {
		t.Run(kind.name, func(t *testing.T) {
			s := newSite(t, "replace-"+kind.app)
			s.kubectl("apply", "-f", "testdata/workloads.yaml", "-l", "app="+kind.app)
			old := s.pod(kind.app)
			old.sees("app", "present", "greeting")
			old.sees("app", "synced")
			old.recorded()

			s.kubectl("delete", "pod", old.Name, "--timeout=60s")
			fresh := &pod{Pod: s.replacement(old), site: s}
			s.awaitVolumes(fresh)
			testEnv.node.Link.Cut()
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
			testEnv.node.Link.Restore()
			fresh.linkIs("online")
			fresh.sees("app", "updated", "greeting")
			if now := s.pod(kind.app); now.UID != fresh.UID {
				t.Errorf("the pod was replaced once more, by %s", now.Name)
			}
		})
	}
}

// replacement waits for the pod that a controller makes in place of another.
func (s *site) replacement(old *pod) (found *corev1.Pod) {
	s.t.Helper()
	s.until("a pod in its place", func(ctx context.Context) error {
		pods, err := testEnv.Client().CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + old.Labels["app"]})
		if err != nil {
			return err
		}
		i := slices.IndexFunc(pods.Items, func(p corev1.Pod) bool { return p.UID != old.UID })
		if i < 0 {
			return errors.New("there is none")
		}
		found = &pods.Items[i]
		return nil
	})
	return found
}

// awaitVolumes waits until the kubelet has filled the pod's volumes, for which it needs the link:
// that with the token, and that with the settings.
func (s *site) awaitVolumes(p *pod) {
	s.t.Helper()
	want := 0
	for _, v := range p.Spec.Volumes {
		if v.Projected != nil {
			want++
		}
	}
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		filled, err := testEnv.node.ProjectedVolumes(p.Pod)
		s.try(err)
		if len(filled) == want {
			return
		}
		time.Sleep(2 * time.Millisecond) // the pod starts meanwhile
	}
	s.t.Fatal(fmt.Errorf("the kubelet does not fill the volumes of %s", p.Name))
}
