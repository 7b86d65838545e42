package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"rockpool.dev/injector/inject"
)

const (
	tokenPath   = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenVolume = "kube-api-access-abcde"
)

// TestRandomPods checks, for pods of all shapes, what must hold for every pod:
// the input is not touched, webhook and function agree, injecting twice is injecting once,
// and taking the declared changes back gives the pod that was there before.
func TestRandomPods(t *testing.T) {
	outcomes := map[inject.Outcome]int{}
	for seed := range uint64(400) {
		pod := randomPod(rand.New(rand.NewPCG(seed, 1)))
		before := pod.DeepCopy()
		patched, result := inject.Inject(pod, goldenNamespace, goldenParams)
		outcomes[result.Outcome]++
		if diff := cmp.Diff(before, pod); diff != "" {
			t.Fatalf("seed %d: the input was changed:\n%s", seed, diff)
		}
		raw, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		response := review(t, raw)
		output := applied(t, raw, response)
		if diff := cmp.Diff(patched, decodePod(t, output), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("seed %d: the webhook's patch gives another pod (-function +webhook):\n%s", seed, diff)
		}
		if result.Outcome != inject.Injected {
			if diff := cmp.Diff(before, patched); diff != "" {
				t.Fatalf("seed %d: %s, but changed:\n%s", seed, result.Outcome, diff)
			}
			continue
		}
		if again := review(t, output); len(again.Patch) != 0 {
			t.Fatalf("seed %d: injecting again gives a patch: %s", seed, again.Patch)
		}
		if diff := cmp.Diff(before, takeBack(before, patched), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("seed %d: something else than declared has changed (-before +after):\n%s", seed, diff)
		}
	}
	for _, o := range []inject.Outcome{inject.Injected, inject.Skipped, inject.Refused} {
		if outcomes[o] < 30 {
			t.Errorf("only %d random pods were %s: the generator has lost its variety", outcomes[o], o)
		}
	}
}

// takeBack removes from an injected pod what injection declares to add.
func takeBack(before, patched *corev1.Pod) *corev1.Pod {
	pod := patched.DeepCopy()
	spec := &pod.Spec
	spec.InitContainers = slices.DeleteFunc(spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == "rockpool-prepare" || c.Name == "rockpool-sidecar"
	})
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool {
		return v.Name == "rockpool-cache" || v.Name == "rockpool-private" || v.Name == "rockpool-account"
	})
	for _, lists := range [][2][]corev1.Container{
		{before.Spec.InitContainers, spec.InitContainers}, {before.Spec.Containers, spec.Containers},
	} {
		for i := range lists[1] {
			old, c := lists[0][i], &lists[1][i]
			c.Env = slices.DeleteFunc(c.Env, func(e corev1.EnvVar) bool {
				return strings.HasPrefix(e.Name, "KUBERNETES_") &&
					!slices.ContainsFunc(old.Env, func(o corev1.EnvVar) bool { return o.Name == e.Name })
			})
			for j := range c.VolumeMounts {
				if m := &c.VolumeMounts[j]; m.Name == "rockpool-account" {
					m.Name, m.ReadOnly = tokenVolume, old.VolumeMounts[j].ReadOnly
				}
			}
		}
	}
	delete(pod.Annotations, "rockpool.dev/status")
	for _, key := range []string{"kubectl.kubernetes.io/default-container", "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"} {
		if value, ok := before.Annotations[key]; ok {
			pod.Annotations[key] = value
		} else {
			delete(pod.Annotations, key)
		}
	}
	return pod
}

// randomPod makes a pod as the ServiceAccount admission plugin leaves it, valid for the API
// server in what matters here.
func randomPod(r *rand.Rand) *corev1.Pod {
	chance := func(percent int) bool { return r.IntN(100) < percent }
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: "web", Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"rockpool.dev/inject": "true"},
	}}
	if chance(50) {
		pod.Name, pod.GenerateName = "", "web-6d4cf56db6-"
		pod.Labels["pod-template-hash"] = "6d4cf56db6"
		kind := []string{"ReplicaSet", "StatefulSet", "Job", "Tide"}[r.IntN(4)]
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: "web-6d4cf56db6", Controller: ptr.To(true)}}
	}
	for _, a := range []struct {
		percent    int
		key, value string
	}{
		{20, "rockpool.dev/cache-volume", "emptyDir"}, {20, "rockpool.dev/cache-volume", "hostPath"}, {20, "rockpool.dev/upstreams", "https://192.0.2.1"},
		{10, "rockpool.dev/log-level", "debug"}, {5, "rockpool.dev/unknown", "x"}, {4, "rockpool.dev/inject", "false"},
		{20, "kubectl.kubernetes.io/default-container", "c0"}, {20, "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", "v0,v1"},
	} {
		if chance(a.percent) {
			pod.Annotations[a.key] = a.value
		}
	}
	spec := &pod.Spec
	spec.ServiceAccountName = "web"
	spec.HostNetwork = chance(4)
	spec.ShareProcessNamespace = []*bool{nil, ptr.To(true)}[r.IntN(2)]
	for i := range r.IntN(4) {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: fmt.Sprintf("v%d", i), VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	}
	token := corev1.Volume{Name: tokenVolume, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}},
	}}}
	spec.Volumes = slices.Insert(spec.Volumes, r.IntN(len(spec.Volumes)+1), token)
	automount := chance(92)
	guaranteed := chance(30)
	container := func(name string) corev1.Container {
		c := corev1.Container{Name: name, Image: "registry.example.com/" + name, WorkingDir: []string{"", "/srv"}[r.IntN(2)]}
		for i := range r.IntN(3) {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("E%d", i), Value: "$(KUBERNETES_SERVICE_HOST)"})
		}
		if chance(8) {
			c.Env = append(c.Env, corev1.EnvVar{Name: "KUBERNETES_SERVICE_HOST", Value: []string{"api.example.com", "127.0.0.1"}[r.IntN(2)]})
		}
		for i, v := range spec.Volumes {
			if chance(30) {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: fmt.Sprintf("/mnt/%d", i), ReadOnly: chance(50)})
			}
		}
		switch {
		case chance(8):
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "v0", MountPath: tokenPath})
		case automount:
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: tokenVolume, MountPath: tokenPath, ReadOnly: true})
		}
		if chance(3) {
			c.Ports = append(c.Ports, corev1.ContainerPort{ContainerPort: 10268})
		}
		if guaranteed || chance(20) {
			c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
		}
		return c
	}
	for i := range r.IntN(3) {
		spec.InitContainers = append(spec.InitContainers, container(fmt.Sprintf("i%d", i)))
	}
	for i := range 1 + r.IntN(3) {
		spec.Containers = append(spec.Containers, container(fmt.Sprintf("c%d", i)))
	}
	return pod
}
