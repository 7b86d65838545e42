package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// guaranteedCPU is the least CPU of our containers in a pod of Guaranteed QoS when no CPU
// limit is configured. Requests are sized for an idle sidecar that can burst; as a limit
// they would stretch its start to seconds.
var guaranteedCPU = resource.MustParse("100m")

// sidecarResources returns what our containers ask for in this pod.
//
//   - Usually: what is configured.
//   - In a pod of Guaranteed QoS: requests equal to the limits (where there is no limit,
//     to the request), since one container without them would cost the pod its class.
//   - In a pod with resources of its own at pod level: nothing. They bound all
//     containers together, and the API server refuses requests that sum up to more.
func sidecarResources(spec *corev1.PodSpec, configured corev1.ResourceRequirements) corev1.ResourceRequirements {
	if spec.Resources != nil && len(spec.Resources.Requests)+len(spec.Resources.Limits) > 0 {
		return corev1.ResourceRequirements{}
	}
	if !guaranteed(spec) {
		return *configured.DeepCopy()
	}
	equal := corev1.ResourceList{}
	for name, quantity := range configured.Requests {
		equal[name] = quantity.DeepCopy()
	}
	if cpu := equal[corev1.ResourceCPU]; cpu.Cmp(guaranteedCPU) < 0 {
		equal[corev1.ResourceCPU] = guaranteedCPU.DeepCopy()
	}
	for name, quantity := range configured.Limits {
		equal[name] = quantity.DeepCopy()
	}
	if memory := equal[corev1.ResourceMemory]; memory.IsZero() {
		// Without any memory figure the pod cannot stay Guaranteed, and inventing a
		// limit could kill the sidecar.
		return *configured.DeepCopy()
	}
	return corev1.ResourceRequirements{Requests: equal, Limits: equal.DeepCopy()}
}

// guaranteed tells whether the pod's own containers earn it the QoS class Guaranteed: CPU
// and memory limits in each, and requests that are equal or, by default, absent.
// https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/
func guaranteed(spec *corev1.PodSpec) bool {
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		if ownContainer(c.Name) {
			continue
		}
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit := c.Resources.Limits[name]
			if limit.IsZero() {
				return false
			}
			if request, ok := c.Resources.Requests[name]; ok && request.Cmp(limit) != 0 {
				return false
			}
		}
	}
	return true
}
