package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"rockpool.dev/tests/edge"
)

// label sets a label of the site's namespace. Call it before the first pod: the injector caches
// namespaces for a while.
func (s *site) label(key, value string) {
	s.t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]string{key: value}}})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := cluster.Client().CoreV1().Namespaces().Patch(s.ctx, s.namespace, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// tryPod creates a pod that never runs, with a generated name, so that a test can repeat it.
func (s *site) tryPod(change func(*corev1.Pod)) (*corev1.Pod, error) {
	pod := edge.Pod(s.namespace, "")
	pod.GenerateName = "tried-"
	change(pod)
	return s.createPod(pod)
}

func cacheVolume(pod *corev1.Pod) *corev1.Volume {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Name == "rockpool-cache" {
			return v
		}
	}
	return nil
}

func TestALabelOfTheNamespaceInjectsItsPods(t *testing.T) {
	s := newSite(t)
	s.label("rockpool.dev/inject", "true")
	silent := func(name string) *corev1.Pod {
		pod := edge.Pod(s.namespace, name)
		pod.Annotations = nil
		return pod
	}
	s.until("the injector knows the label", func() bool {
		pod, err := s.tryPod(func(pod *corev1.Pod) { pod.Annotations = nil })
		return err == nil && cacheVolume(pod) != nil
	})
	declined := silent("declined")
	declined.Annotations = map[string]string{"rockpool.dev/inject": "false"}
	if pod, err := s.createPod(declined); err != nil || cacheVolume(pod) != nil {
		t.Errorf("a pod that opts out: %v, %+v", err, pod.Spec.Volumes)
	}
	if pod, err := s.createPod(edge.Pod(s.namespace, "both")); err != nil || len(pod.Spec.InitContainers) != 2 {
		t.Errorf("a pod that opts in too: %v, %+v", err, pod.Spec.InitContainers)
	}
	wrong := silent("wrong")
	wrong.Annotations = map[string]string{"rockpool.dev/port": "80"}
	if _, err := s.createPod(wrong); err == nil || !strings.Contains(err.Error(), `rockpool.dev/port: "80"`) {
		t.Errorf("a wrong annotation: %v", err)
	}
}

func TestPodsAreInjectedWhereTheNamespaceForbidsHostPath(t *testing.T) {
	s := newSite(t)
	s.label("pod-security.kubernetes.io/enforce", "restricted")
	pod := func(name string) *corev1.Pod {
		pod := edge.Pod(s.namespace, name)
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
		for i := range pod.Spec.Containers {
			pod.Spec.Containers[i].SecurityContext = &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}
		}
		return pod
	}
	s.until("hostPath is refused", func() bool {
		_, err := s.tryPod(func(pod *corev1.Pod) { pod.Annotations["rockpool.dev/cache-volume"] = "hostPath" })
		return err != nil && strings.Contains(err.Error(), `violates PodSecurity "restricted`)
	})
	got, err := s.createPod(pod("web"))
	if err != nil {
		t.Fatal(err)
	}
	if v := cacheVolume(got); v == nil || v.EmptyDir == nil || len(got.Spec.InitContainers) != 1 {
		t.Errorf("volume %+v, init containers %+v", v, got.Spec.InitContainers)
	}
}

func TestInjectedContainersMeetLimitRangesAndResourceQuotas(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	limited := func(pod *corev1.Pod) {
		for i := range pod.Spec.Containers {
			pod.Spec.Containers[i].Resources = corev1.ResourceRequirements{Requests: list("10m", "16Mi"), Limits: list("100m", "32Mi")}
		}
	}
	annotated := func(key, value string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			limited(pod)
			pod.Annotations["rockpool.dev/"+key] = value
		}
	}
	sidecar := func(pod *corev1.Pod) *corev1.Container { return &pod.Spec.InitContainers[1] }

	t.Run("a LimitRange sets missing limits, and an annotation meets its maximum", func(t *testing.T) {
		s := newSite(t)
		limits := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "limits"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Default: list("200m", "64Mi"), DefaultRequest: list("50m", "32Mi"), Max: list("1", "128Mi"),
		}}}}
		if _, err := cluster.Client().CoreV1().LimitRanges(s.namespace).Create(s.ctx, limits, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		s.until("the maximum refuses the default limit", func() bool {
			_, err := s.tryPod(limited)
			return err != nil && strings.Contains(err.Error(), "maximum memory usage per Container is 128Mi, but limit is 192Mi")
		})
		pod, err := s.tryPod(annotated("memory-limit", "96Mi"))
		if err != nil {
			t.Fatal(err)
		}
		got := sidecar(pod).Resources
		if got.Limits.Memory().String() != "96Mi" || got.Requests.Memory().String() != "48Mi" || got.Requests.Cpu().String() != "20m" || got.Limits.Cpu().String() != "200m" {
			t.Errorf("the sidecar has %+v; want its own values, and the CPU limit of the LimitRange", got)
		}
	})

	t.Run("a ResourceQuota requires a missing limit, and an annotation sets it", func(t *testing.T) {
		s := newSite(t)
		quotas := cluster.Client().CoreV1().ResourceQuotas(s.namespace)
		hard := corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("2")}
		quota, err := quotas.Create(s.ctx, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "quota"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		// The status that the quota controller would write.
		quota.Status = corev1.ResourceQuotaStatus{Hard: hard, Used: corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("0")}}
		if _, err := quotas.UpdateStatus(s.ctx, quota, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		s.until("the quota requires a limit for the injected containers", func() bool {
			_, err := s.tryPod(limited)
			return err != nil && strings.Contains(err.Error(), "must specify limits.cpu for: rockpool-prepare,rockpool-sidecar")
		})
		if _, err := s.tryPod(annotated("cpu-limit", "500m")); err != nil {
			t.Error(err)
		}
	})
}

func TestTheWebhookKeepsAPodThatTheCommandHasInjected(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configMap("greeting", "hello")
	text, err := yaml.Marshal(edge.Pod(s.namespace, "web"))
	if err != nil {
		t.Fatal(err)
	}
	if text, err = cluster.Inject(s.ctx, append([]byte("apiVersion: v1\nkind: Pod\n"), text...)); err != nil {
		t.Fatal(err)
	}
	injected := &corev1.Pod{}
	if err := yaml.UnmarshalStrict(text, injected); err != nil {
		t.Fatal(err)
	}
	// The pod still has the annotation, so the API server calls the webhook.
	p := s.pod(func(pod *corev1.Pod) { *pod = *injected })
	got, err := cluster.Client().CoreV1().Pods(s.namespace).Get(s.ctx, "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(injected.Annotations, got.Annotations); diff != "" {
		t.Errorf("the webhook has changed annotations (-command +webhook):\n%s", diff)
	}
	mounts := func(pod *corev1.Pod) (all []string) {
		for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
			for _, m := range c.VolumeMounts {
				all = append(all, c.Name+" "+m.MountPath+" "+m.Name)
			}
		}
		for _, v := range pod.Spec.Volumes {
			all = append(all, v.Name)
		}
		return all
	}
	if diff := cmp.Diff(mounts(injected), mounts(got)); diff != "" {
		t.Errorf("the ServiceAccount plugin or the webhook has changed containers or volumes (-command +cluster):\n%s", diff)
	}
	p.sees("present", "greeting", "hello")
	p.offline()
	p.restart("app")
	p.sees("present", "greeting", "hello")
}
