package inject

import (
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	// annotationDefaultContainer is where kubectl logs and exec go when no container is named.
	annotationDefaultContainer = "kubectl.kubernetes.io/default-container"
	// annotationSafeToEvict lists the volumes that shall not keep the cluster
	// autoscaler from removing a node.
	annotationSafeToEvict = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
)

// Status is the value of [AnnotationStatus], as JSON: what was added to the pod, by which
// version.
type Status struct {
	Version    string   `json:"version"`
	Containers []string `json:"containers"`
	Volumes    []string `json:"volumes"`
}

// annotate keeps Rockpool from changing what other tools do with the pod: kubectl goes to
// the application, and the cache alone, which is a copy, holds no node back.
func annotate(pod *corev1.Pod) {
	if _, ok := pod.Annotations[annotationDefaultContainer]; !ok {
		pod.Annotations[annotationDefaultContainer] = pod.Spec.Containers[0].Name
	}
	safe := pod.Annotations[annotationSafeToEvict]
	if !slices.Contains(strings.Split(safe, ","), VolumeCache) {
		pod.Annotations[annotationSafeToEvict] = strings.TrimPrefix(safe+","+VolumeCache, ",")
	}
}

// writeStatus records what is in the pod after it was injected for the first time.
func writeStatus(pod *corev1.Pod, version string) {
	status := Status{Version: version}
	for _, c := range pod.Spec.InitContainers {
		if ownContainer(c.Name) {
			status.Containers = append(status.Containers, c.Name)
		}
	}
	for _, v := range pod.Spec.Volumes {
		if ownVolume(v.Name) {
			status.Volumes = append(status.Volumes, v.Name)
		}
	}
	text, err := json.Marshal(status)
	if err != nil {
		panic(err) // strings always marshal
	}
	pod.Annotations[AnnotationStatus] = string(text)
}

// injectedBefore tells whether the containers and volumes of our names in this pod are
// ours: it has both the sidecar and the status.
func injectedBefore(pod *corev1.Pod) bool {
	_, status := pod.Annotations[AnnotationStatus]
	return status && slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == ContainerSidecar
	})
}
