package e2e

import (
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestASecondPodStartsWithTheCacheOfTheFirst starts a second pod of a workload offline, while the
// first pod runs, as in a rolling update.
func TestASecondPodStartsWithTheCacheOfTheFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configMap("greeting", "hello")
	replica := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.GenerateName, p.Name = "web-", name }
	}
	first := s.pod(replica("web-1"))
	first.sees("present", "greeting", "hello")
	first.sees("synced")
	first.offline()

	second := s.pod(replica("web-2"))
	second.sees("present", "greeting", "hello")
	second.sees("synced")
	if a := first.python("get", "greeting"); a.Data["value"] != "hello" {
		t.Errorf("the first pod: %+v", a)
	}
	s.configMap("greeting", "good morning")
	s.Link.Restore()
	first.sees("updated", "greeting", "good morning")
	second.sees("updated", "greeting", "good morning")
}

// TestARestartAfterARollingUpdateFindsWhatThePodKnew restarts the sidecar of the new pod after the
// old one has ended. Then both slots are free, and the old pod's is out of date.
func TestARestartAfterARollingUpdateFindsWhatThePodKnew(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configMap("greeting", "hello")
	replica := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.GenerateName, p.Name = "web-", name }
	}
	first := s.pod(replica("web-1"))
	first.sees("synced")
	second := s.pod(replica("web-2"))
	second.sees("synced")
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	s.configMap("greeting", "good morning")
	second.sees("updated", "greeting", "good morning")
	for range 2 {
		second.restart("rockpool-sidecar")
		s.Link.Cut()
		s.until("the cache answers as the pod knew it", func() bool {
			r := second.ask(get(s.configMaps() + "/greeting"))[0]
			if r.Status == http.StatusOK && !strings.Contains(r.Body, "good morning") {
				t.Fatalf("the pod gets an older state: %s", r.Body)
			}
			return r.Status == http.StatusOK && r.Headers["Cache-Status"] != ""
		})
	}
}
