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

// The test cuts the link when the kubelet has everything that it needs from the API server, above
// all a token, and before it starts containers: otherwise the sidecar could start online.
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
				t.Fatalf("the sidecar started before the cut at %s, so this test shows nothing: %v", cut, printed)
			}
			fresh.linkIs("offline")
			if slots, err := fresh.slots(); err != nil || len(slots) != 1 || filepath.Base(slots[0]) != "0" {
				t.Errorf("slots %v, %v, want the slot of the replaced pod", slots, err)
			}

			s.configMap("hello again")
			testEnv.node.Link.Restore()
			fresh.linkIs("online")
			fresh.sees("app", "updated", "greeting")
			if now := s.pod(kind.app); now.UID != fresh.UID {
				t.Errorf("the pod was replaced again, by %s", now.Name)
			}
		})
	}
}

// replacement waits for the pod that a controller creates to replace another.
func (s *site) replacement(old *pod) (found *corev1.Pod) {
	s.t.Helper()
	s.until("the controller creates another pod", func(ctx context.Context) error {
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

// awaitVolumes waits until the kubelet has filled the volumes with the token and the settings, for
// which it needs the link.
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
		time.Sleep(2 * time.Millisecond) // short, because the pod is about to start
	}
	s.t.Fatal(fmt.Errorf("the kubelet does not fill the volumes of %s", p.Name))
}
