package inject

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestThePodsStorageLimitCoversTheCache computes the limit of the whole pod as the kubelet does, by
// the sum of its containers' limits.
func TestThePodsStorageLimitCoversTheCache(t *testing.T) {
	list := func(size string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse(size)}
	}
	tests := []struct {
		name           string
		app            corev1.ResourceRequirements
		kind           CacheVolume
		cacheSize      string
		request, limit string // of the sidecar; "" = none
	}{
		{"a pod without any stays without", corev1.ResourceRequirements{}, CacheEmptyDir, "", "", ""},
		{"a limit of 64Mi beside a cache of the usual size", corev1.ResourceRequirements{Limits: list("64Mi")}, CacheEmptyDir, "", "320Mi", "592Mi"},
		{"a limit beside a small cache", corev1.ResourceRequirements{Limits: list("1Gi")}, CacheEmptyDir, "8Mi", "72Mi", "96Mi"},
		{"a request only", corev1.ResourceRequirements{Requests: list("1Gi")}, CacheEmptyDir, "", "320Mi", ""},
		{"the node's volume does not count, but logs do", corev1.ResourceRequirements{Limits: list("64Mi")}, CacheHostPath, "1Gi", "64Mi", "64Mi"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			pod := podWithAccount(nil)
			pod.Spec.Containers[0].Resources = test.app
			pod.Annotations[AnnotationCacheVolume] = string(test.kind)
			if test.cacheSize != "" {
				pod.Annotations[AnnotationCacheSize] = test.cacheSize
			}
			patched, result := Inject(pod, Facts{Namespace: "shop"}, Params{Image: "rockpool:v1", CacheHostPath: DefaultCacheHostPath})
			if result.Outcome != Injected {
				t.Fatal(result)
			}
			for _, c := range patched.Spec.InitContainers {
				for _, q := range []struct {
					what string
					list corev1.ResourceList
					want string
				}{{"request", c.Resources.Requests, test.request}, {"limit", c.Resources.Limits, test.limit}} {
					got, ok := q.list[corev1.ResourceEphemeralStorage]
					if ok != (q.want != "") || ok && got.Cmp(resource.MustParse(q.want)) != 0 {
						t.Errorf("%s: %s is %s, want %q", c.Name, q.what, got.String(), q.want)
					}
				}
			}
			volume := volumeNamed(patched.Spec.Volumes, VolumeCache)
			if volume.EmptyDir == nil {
				return
			}
			bound := volume.EmptyDir.SizeLimit
			if bound == nil {
				t.Fatal("the cache has no bound")
			}
			if test.limit != "" {
				if limit := resource.MustParse(test.limit); limit.Cmp(*bound) < 0 {
					t.Errorf("the cache may take %s, and the sidecar's limit is only %s", bound, test.limit)
				}
			}
		})
	}
}

// podWithAccount returns a pod that asks for Rockpool, with a service-account volume.
func podWithAccount(annotations map[string]string) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Name = "web"
	pod.Annotations = map[string]string{AnnotationInject: "true"}
	for key, value := range annotations {
		pod.Annotations[key] = value
	}
	pod.Spec = corev1.PodSpec{
		Containers: []corev1.Container{{Name: "web", Image: "web:v1", VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access-x7k2p", MountPath: accountPath, ReadOnly: true}}}},
		Volumes:    []corev1.Volume{{Name: "kube-api-access-x7k2p", VolumeSource: tokenVolume().VolumeSource}},
	}
	return pod
}
