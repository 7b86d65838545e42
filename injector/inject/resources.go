package inject

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// guaranteedCPU is the minimum CPU of our containers in a pod of Guaranteed QoS if no CPU limit
// is configured. Requests are sized for an idle sidecar that can burst; as a limit they would
// extend its start to seconds.
var guaranteedCPU = resource.MustParse("100m")

// overrideResources returns the configured resources, overridden by those that the pod asks
// for. The error is an [AnnotationError].
func overrideResources(configured, asked corev1.ResourceRequirements) (corev1.ResourceRequirements, error) {
	both := *configured.DeepCopy()
	for _, r := range []struct {
		name           corev1.ResourceName
		request, limit string // annotations
	}{
		{corev1.ResourceCPU, AnnotationCPURequest, AnnotationCPULimit},
		{corev1.ResourceMemory, AnnotationMemoryRequest, AnnotationMemoryLimit},
	} {
		askedRequest, hasRequest := asked.Requests[r.name]
		askedLimit, hasLimit := asked.Limits[r.name]
		if hasRequest {
			set(&both.Requests, r.name, askedRequest)
		}
		if hasLimit {
			set(&both.Limits, r.name, askedLimit)
		}
		request, limit := both.Requests[r.name], both.Limits[r.name]
		if !hasRequest && !hasLimit || limit.IsZero() || request.Cmp(limit) <= 0 {
			continue
		}
		wrong, other := r.request, r.limit
		if !hasRequest {
			wrong, other = r.limit, r.request
		}
		return both, &AnnotationError{Annotation: wrong,
			Problem: fmt.Sprintf("the request %s is above the limit %s", request.String(), limit.String()),
			Allowed: "a request up to the limit; set " + other + " as well"}
	}
	return both, nil
}

func set(list *corev1.ResourceList, name corev1.ResourceName, q resource.Quantity) {
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	(*list)[name] = q
}

// sidecarResources returns the resources of our containers in this pod.
//
//   - Usually: the configured ones.
//   - In a pod of Guaranteed QoS: requests equal to the limits (to the request, if there is no
//     limit), because one container without them would change the pod's class.
//   - In a pod with resources at pod level: none. Those limit all containers together, and the
//     API server refuses requests with a larger sum.
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
		// Without a memory request or limit the pod cannot stay Guaranteed. An invented limit
		// could kill the sidecar.
		return *configured.DeepCopy()
	}
	return corev1.ResourceRequirements{Requests: equal, Limits: equal.DeepCopy()}
}

// guaranteed reports whether the pod has the QoS class Guaranteed by its own containers: each
// has CPU and memory limits, and requests that are equal or absent.
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
