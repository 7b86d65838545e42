package e2e

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/edge"
)

// createPod creates a pod that does not run.
func (s *site) createPod(pod *corev1.Pod) (*corev1.Pod, error) {
	return cluster.Client().CoreV1().Pods(s.namespace).Create(s.ctx, pod, metav1.CreateOptions{})
}

// reviews is how often the API server has called the injector, by its metrics.
func (s *site) reviews() string {
	s.t.Helper()
	text, err := cluster.Client().CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	var count []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "apiserver_admission_webhook_admission_duration_seconds_count") && strings.Contains(line, `name="inject.rockpool.dev"`) {
			count = append(count, line)
		}
	}
	if len(count) == 0 {
		s.t.Fatal("the API server has no metric of webhook calls")
	}
	return strings.Join(count, "")
}

func TestOnlyPodsWithTheAnnotationAreInjected(t *testing.T) {
	s := newSite(t)
	unannotated := func(name string) *corev1.Pod {
		pod := edge.Pod(s.namespace, name)
		pod.Annotations = nil
		return pod
	}

	t.Run("the API server does not send a pod without the annotation to the injector", func(t *testing.T) {
		before := s.reviews()
		pod, err := s.createPod(unannotated("plain"))
		if err != nil {
			t.Fatal(err)
		}
		if len(pod.Spec.InitContainers) != 0 || len(pod.Spec.Volumes) != 1 {
			t.Errorf("it was changed: %+v", pod.Spec)
		}
		declined := edge.Pod(s.namespace, "declined")
		declined.Annotations["rockpool.dev/inject"] = "false"
		if pod, err = s.createPod(declined); err != nil || len(pod.Spec.InitContainers) != 0 {
			t.Errorf("a pod that opts out: %v %+v", err, pod.Spec)
		}
		if after := s.reviews(); after != before {
			t.Errorf("the API server called the webhook:\n%s\n%s", before, after)
		}
		if _, err := s.createPod(edge.Pod(s.namespace, "counted")); err != nil {
			t.Fatal(err)
		}
		if s.reviews() == before {
			t.Error("the metric does not count webhook calls, so this test shows nothing")
		}
	})

	t.Run("while the injector is down", func(t *testing.T) {
		cluster.StopInjector()
		t.Cleanup(func() {
			if err := cluster.StartInjector(context.WithoutCancel(s.ctx)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.createPod(edge.Pod(s.namespace, "up-again")); err != nil {
				t.Errorf("with the injector up again: %v", err)
			}
		})
		if _, err := s.createPod(unannotated("plain-2")); err != nil {
			t.Errorf("a pod without the annotation is refused: %v", err)
		}
		_, err := s.createPod(edge.Pod(s.namespace, "refused"))
		if err == nil || !strings.Contains(err.Error(), `failed calling webhook "inject.rockpool.dev"`) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("a pod with the annotation: %v, want a refusal that names the webhook and the reason", err)
		}
	})

	for name, tt := range map[string]struct{ key, value, allowed string }{
		"a bad choice":          {"rockpool.dev/inject", "yes", "true, false"},
		"a misspelt annotation": {"rockpool.dev/cache-volumes", "emptyDir", "rockpool.dev/cache-volume"},
		"a bad address":         {"rockpool.dev/upstreams", "http://203.0.113.10", "https URLs"},
		"a bad log level":       {"rockpool.dev/log-level", "loud", "debug, info, warn, error"},
	} {
		t.Run(name+" is refused by name", func(t *testing.T) {
			pod := edge.Pod(s.namespace, "bad")
			pod.Annotations[tt.key] = tt.value
			_, err := s.createPod(pod)
			status, ok := err.(apierrors.APIStatus)
			if !ok || status.Status().Code != http.StatusUnprocessableEntity || !strings.Contains(err.Error(), tt.key) || !strings.Contains(err.Error(), tt.allowed) {
				t.Errorf("%v, want a refusal with %q and %q", err, tt.key, tt.allowed)
			}
		})
	}
}

func TestAnInjectedPodAsTheAPIServerReturnsIt(t *testing.T) {
	s := newSite(t)
	asked := edge.Pod(s.namespace, "")
	asked.GenerateName = "web-"
	asked.Spec.InitContainers = []corev1.Container{{Name: "migrate", Image: "shell:dev"}}
	first, err := s.createPod(asked)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, c := range first.Spec.InitContainers {
		order = append(order, c.Name)
	}
	if diff := cmp.Diff([]string{"rockpool-prepare", "rockpool-sidecar", "migrate"}, order); diff != "" {
		t.Errorf("init containers (-want +got):\n%s", diff)
	}
	if policy := first.Spec.InitContainers[1].RestartPolicy; policy == nil || *policy != corev1.ContainerRestartPolicyAlways {
		t.Errorf("the sidecar's restartPolicy is %v", policy)
	}
	for _, c := range append(first.Spec.InitContainers[2:], first.Spec.Containers...) {
		env := map[string]string{}
		for _, e := range c.Env {
			env[e.Name] = e.Value
		}
		if env["KUBERNETES_SERVICE_HOST"] != "127.0.0.1" || env["KUBERNETES_SERVICE_PORT"] != "10268" {
			t.Errorf("container %s has the API at %q:%q", c.Name, env["KUBERNETES_SERVICE_HOST"], env["KUBERNETES_SERVICE_PORT"])
		}
	}

	again := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: first.GenerateName, Annotations: first.Annotations, Labels: first.Labels},
		Spec:       *first.Spec.DeepCopy(),
	}
	second, err := s.createPod(again)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first.Spec, second.Spec); diff != "" {
		t.Errorf("a second injection changes the pod (-first +second):\n%s", diff)
	}
	if diff := cmp.Diff(first.Annotations, second.Annotations); diff != "" {
		t.Errorf("annotations (-first +second):\n%s", diff)
	}
}
