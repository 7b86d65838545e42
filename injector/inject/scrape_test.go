package inject

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// As kubectl debug --copy-to --keep-init-containers=false --keep-annotations makes it.
func TestACopyWithoutTheSidecarIsNotScrapedForIt(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: map[string]string{AnnotationInject: "true", AnnotationMetricsAddress: string(MetricsPod)}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "web", Image: "web", VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access-x", MountPath: accountPath, ReadOnly: true}}}},
			Volumes: []corev1.Volume{{Name: "kube-api-access-x", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
				{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
			}}}}},
		},
	}
	facts, params := Facts{Namespace: "shop"}, Params{Image: "rockpool:v1", CacheHostPath: DefaultCacheHostPath}
	injected, result := Inject(pod, facts, params)
	if result.Outcome != Injected || injected.Annotations[annotationScrapePort] != "10269" {
		t.Fatalf("%+v, %v", result, injected.Annotations)
	}
	lost := injected.DeepCopy()
	lost.Spec.InitContainers = nil
	restored, was := Uninject(lost)
	if _, ok := restored.Annotations[annotationScrape]; ok || !was {
		t.Errorf("%v: %v", was, restored.Annotations)
	}
	// It is injected again, at another port.
	lost.Annotations[AnnotationPort] = "20268"
	again, result := Inject(lost, facts, params)
	if result.Outcome != Injected || again.Annotations[annotationScrapePort] != "20269" {
		t.Errorf("%+v, %v", result, again.Annotations)
	}
	if restored, _ := Uninject(again); restored.Annotations[annotationScrape] != "" {
		t.Errorf("%v", restored.Annotations)
	}
}
