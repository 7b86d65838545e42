package inject

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestCacheDirectory(t *testing.T) {
	owned := func(apiVersion, kind, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{GenerateName: name + "-", OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "ConfigMap", Name: "not-the-controller"},
			{APIVersion: apiVersion, Kind: kind, Name: name, Controller: ptr.To(true)},
		}}
	}
	labelled := func(meta metav1.ObjectMeta, hash string) metav1.ObjectMeta {
		meta.Labels = map[string]string{"pod-template-hash": hash}
		return meta
	}
	long := strings.Repeat("a", 253)
	tests := []struct {
		name      string
		namespace string
		account   string
		meta      metav1.ObjectMeta
		want      string
		wantErr   string
	}{
		{name: "a Deployment's pod has the Deployment's directory", meta: labelled(owned("apps/v1", "ReplicaSet", "web-6d4cf56db6"), "6d4cf56db6"), want: "shop/default/deployment.web"},
		{name: "a ReplicaSet without a Deployment keeps its name", meta: owned("apps/v1", "ReplicaSet", "web-2"), want: "shop/default/replicaset.web-2"},
		{name: "a ReplicaSet whose name does not end in the hash keeps its name", meta: labelled(owned("apps/v1", "ReplicaSet", "web"), "6d4cf56db6"), want: "shop/default/replicaset.web"},
		{name: "a ReplicaSet of another API group keeps its name", meta: labelled(owned("example.com/v1", "ReplicaSet", "web-1"), "1"), want: "shop/default/replicaset.web-1"},
		{name: "a StatefulSet of the same name has another directory", meta: owned("apps/v1", "StatefulSet", "web"), want: "shop/default/statefulset.web"},
		{name: "a DaemonSet", meta: owned("apps/v1", "DaemonSet", "agent"), want: "shop/default/daemonset.agent"},
		{name: "the runs of a CronJob share a directory", meta: owned("batch/v1", "Job", "backup-29400960"), want: "shop/default/cronjob.backup"},
		{name: "a Job with a number in its name does not belong to a CronJob", meta: owned("batch/v1", "Job", "migrate-2"), want: "shop/default/job.migrate-2"},
		{name: "a controller of any kind", meta: owned("example.com/v1", "Tide", "spring.low"), want: "shop/default/tide.spring.low"},
		{name: "a pod without a controller", meta: metav1.ObjectMeta{Name: "web"}, want: "shop/default/pod.web"},
		{name: "a pod whose name is generated", meta: metav1.ObjectMeta{GenerateName: "web-"}, want: "shop/default/pod.web"},
		{name: "the same pod after its name was generated", meta: metav1.ObjectMeta{GenerateName: "web-", Name: "web-x7k2p"}, want: "shop/default/pod.web"},
		{name: "an owner that does not control the pod does not count", meta: metav1.ObjectMeta{Name: "web", OwnerReferences: []metav1.OwnerReference{{Kind: "Node", Name: "n"}}}, want: "shop/default/pod.web"},
		{name: "the service account is part of the path", account: "robot.v2", meta: metav1.ObjectMeta{Name: "web"}, want: "shop/robot.v2/pod.web"},
		{name: "a name too long for a path segment is truncated, and a digest keeps it unique", meta: owned("apps/v1", "StatefulSet", long), want: "shop/default/statefulset." + strings.Repeat("a", 171) + ".d80664c055223a83"},

		{name: "a namespace that is not a DNS label is refused", namespace: "..", meta: metav1.ObjectMeta{Name: "web"}, wantErr: `namespace ".."`},
		{name: "a missing namespace is refused", namespace: " ", meta: metav1.ObjectMeta{Name: "web"}, wantErr: `namespace " "`},
		{name: "a service account with a slash is refused", account: "a/b", meta: metav1.ObjectMeta{Name: "web"}, wantErr: `spec.serviceAccountName "a/b"`},
		{name: "an owner that leads out of the directory is refused", meta: owned("example.com/v1", "Tide", "../../etc"), wantErr: `the name "../../etc"`},
		{name: "an owner kind with a dot is refused", meta: owned("example.com/v1", "a.b", "c"), wantErr: `the kind "a.b"`},
		{name: "a pod without any name is refused", meta: metav1.ObjectMeta{}, wantErr: `the name ""`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			namespace := "shop"
			if test.namespace != "" {
				namespace = test.namespace
			}
			pod := &corev1.Pod{ObjectMeta: test.meta, Spec: corev1.PodSpec{ServiceAccountName: test.account}}
			got, err := cacheDirectory(pod, &Facts{Namespace: namespace})
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Fatalf("got %q, error %v; want an error with %s", got, err, test.wantErr)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestLongNamesWithACommonStartGetDifferentSegments(t *testing.T) {
	segment := func(name string) string {
		s, err := workloadSegment(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(s) > maxSegment {
			t.Errorf("segment of %d bytes", len(s))
		}
		return s
	}
	common := strings.Repeat("a", 250)
	if segment(common+"b") == segment(common+"c") {
		t.Error("two workloads share a directory")
	}
}
