package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
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

// TestRandomPods checks the invariants for random pods: the input does not change, webhook and
// function agree, injecting again changes nothing, and Uninject restores the original pod.
func TestRandomPods(t *testing.T) {
	outcomes := map[inject.Outcome]int{}
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 1))
		pod, facts := randomPod(r), randomFacts(r)
		before := pod.DeepCopy()
		patched, result := inject.Inject(pod, facts, goldenParams)
		outcomes[result.Outcome]++
		if diff := cmp.Diff(before, pod); diff != "" {
			t.Fatalf("seed %d: the input was changed:\n%s", seed, diff)
		}
		if facts.Template {
			checkTemplate(t, seed, pod, patched, result)
			continue
		}
		raw, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		response := review(t, raw, facts)
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
		if again := review(t, output, facts); len(again.Patch) != 0 {
			t.Fatalf("seed %d: injecting again gives a patch: %s", seed, again.Patch)
		}
		takenBack, was := inject.Uninject(patched)
		if !was {
			t.Fatalf("seed %d: Uninject does not recognise the injected pod", seed)
		}
		if diff := cmp.Diff(before, takenBack, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("seed %d: Uninject does not restore the pod (-before +after):\n%s", seed, diff)
		}
	}
	for _, o := range []inject.Outcome{inject.Injected, inject.Skipped, inject.Refused} {
		if outcomes[o] < 30 {
			t.Errorf("only %d random pods were %s: the generator lacks variety", outcomes[o], o)
		}
	}
}

// checkTemplate checks a template, which the webhook never sees: its token is not mounted yet.
// The webhook must leave a pod made from the injected template alone.
func checkTemplate(t *testing.T, seed uint64, pod, patched *corev1.Pod, result inject.Result) {
	t.Helper()
	if result.Outcome != inject.Injected {
		return
	}
	if again, second := inject.Inject(patched, inject.Facts{Namespace: goldenNamespace, Asked: true}, goldenParams); second.Outcome != inject.Unchanged {
		t.Fatalf("seed %d: the webhook changes an injected template:\n%s", seed, cmp.Diff(patched, again))
	}
	if takenBack, _ := inject.Uninject(patched); !cmp.Equal(pod, takenBack, cmpopts.EquateEmpty()) {
		t.Fatalf("seed %d: Uninject does not restore the pod (-before +after):\n%s",
			seed, cmp.Diff(pod, takenBack, cmpopts.EquateEmpty()))
	}
}

func randomFacts(r *rand.Rand) inject.Facts {
	facts := inject.Facts{Namespace: goldenNamespace, Review: goldenReview, Asked: r.IntN(2) == 0, Template: r.IntN(4) == 0}
	switch r.IntN(8) {
	case 0:
		facts.NamespaceLabels = map[string]string{"pod-security.kubernetes.io/enforce": []string{"privileged", "baseline", "restricted"}[r.IntN(3)]}
	case 1:
		facts.NamespaceAnnotations = map[string]string{"openshift.io/sa.scc.uid-range": "1000680000/10000"}
	}
	return facts
}

// randomPod makes a pod as it is after the ServiceAccount admission plugin. The fields that
// matter here are valid for the API server.
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
		{10, "rockpool.dev/api-names", "true"}, {10, "rockpool.dev/api-names", "false"}, {10, "rockpool.dev/metrics-address", "pod"},
		{10, "rockpool.dev/port", "20268"}, {10, "rockpool.dev/exclude-containers", "c1, mesh"}, {10, "rockpool.dev/memory-request", "64Mi"},
		{5, "rockpool.dev/cpu-limit", "1"}, {5, "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", ""}, {5, "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", "rockpool-cache"},
		{10, "rockpool.dev/log-level", "debug"}, {5, "rockpool.dev/unknown", "x"}, {4, "rockpool.dev/inject", "false"},
		{20, "kubectl.kubernetes.io/default-container", "c0"}, {20, "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", "v0,v1"},
	} {
		if chance(a.percent) {
			pod.Annotations[a.key] = a.value
		}
	}
	spec := &pod.Spec
	spec.ServiceAccountName = "web"
	spec.HostNetwork = chance(8)
	if chance(20) {
		spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](1000), FSGroup: []*int64{nil, nil, ptr.To[int64](2000)}[r.IntN(3)]}
	}
	if chance(10) {
		spec.HostAliases = []corev1.HostAlias{{IP: []string{"127.0.0.1", "192.0.2.1"}[r.IntN(2)], Hostnames: []string{"kubernetes", "local"}}}
	}
	if chance(10) {
		spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: []string{"0", "1024"}[r.IntN(2)]}}}
	}
	spec.ShareProcessNamespace = []*bool{nil, ptr.To(true)}[r.IntN(2)]
	for i := range r.IntN(4) {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: fmt.Sprintf("v%d", i), VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	}
	token := corev1.Volume{Name: tokenVolume, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: []*int32{nil, ptr.To[int32](0o644), ptr.To[int32](0o400)}[r.IntN(3)],
		Sources:     []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}},
	}}}
	if chance(10) {
		vault := *token.DeepCopy()
		vault.Name = "vault"
		spec.Volumes = append(spec.Volumes, vault)
	}
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
		for _, name := range []string{"HTTPS_PROXY", "NO_PROXY", "no_proxy"} {
			if chance(8) {
				c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: []string{"", "x.example.com", "127.0.0.1", "a,127.0.0.1"}[r.IntN(4)]})
			}
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
		for _, port := range []int32{10268, 443} {
			if chance(3) {
				c.Ports = append(c.Ports, corev1.ContainerPort{ContainerPort: port})
			}
		}
		if chance(20) {
			c.Args = []string{"--server=https://kubernetes.default.svc"}
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
	if chance(30) {
		pod.Annotations["rockpool.dev/stay"] = []string{"24h", "forever", "5m", "default"}[r.IntN(4)]
	}
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, "edge", ""} {
		if chance(40) {
			spec.Tolerations = append(spec.Tolerations, corev1.Toleration{
				Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute,
				TolerationSeconds: []*int64{nil, ptr.To[int64](60), ptr.To[int64](300), ptr.To[int64](86400)}[r.IntN(4)],
			})
		}
	}
	return pod
}
