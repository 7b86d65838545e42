package inject

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

const (
	// annotationDefaultContainer names the container that kubectl logs and exec use by default.
	annotationDefaultContainer = "kubectl.kubernetes.io/default-container"
	// annotationSafeToEvict lists the volumes that do not keep the cluster autoscaler from
	// removing a node.
	annotationSafeToEvict = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
)

// Status is the value of [AnnotationStatus], as JSON: the additions to the pod, and the version
// of the injector.
type Status struct {
	Version    string   `json:"version"`
	Containers []string `json:"containers"`
	Volumes    []string `json:"volumes"`
	Names      *Names   `json:"names,omitempty"`
	// Tolerations are the changes of a [Stay].
	Tolerations *Tolerations `json:"tolerations,omitempty"`
	// PullSecrets are the image pull secrets that were added.
	PullSecrets []string `json:"pullSecrets,omitempty"`
	// Scrape means that the annotations for Prometheus were added.
	Scrape bool    `json:"scrape,omitempty"`
	Before *Before `json:"before,omitempty"`
}

// Before is the original state that [Uninject] cannot derive from an injected pod. It is empty
// for most pods.
type Before struct {
	// Annotations of the original pod that look like ours.
	Annotations []string `json:"annotations,omitempty"`
	// Env has variables of the original pod that look like ours, by container.
	Env map[string][]string `json:"env,omitempty"`
	// Writable has the paths at which the service-account volume was not mounted read-only, by
	// container.
	Writable map[string][]string `json:"writable,omitempty"`
	// Modes are the original modes of volumes that openVolumes has changed.
	Modes map[string]int32 `json:"modes,omitempty"`
}

func (b *Before) recordEnv(container, variable string) { record(&b.Env, container, variable) }

func (b *Before) recordWritable(container, path string) { record(&b.Writable, container, path) }

func record(lists *map[string][]string, key, value string) {
	if slices.Contains((*lists)[key], value) {
		return
	}
	if *lists == nil {
		*lists = map[string][]string{}
	}
	(*lists)[key] = append((*lists)[key], value)
}

func (b *Before) recordModes(modes map[string]int32) {
	for volume, mode := range modes {
		if b.Modes == nil {
			b.Modes = map[string]int32{}
		}
		b.Modes[volume] = mode
	}
}

// clone returns a copy that can be extended. The clone of nil is empty.
func (b *Before) clone() *Before {
	if b == nil {
		return &Before{}
	}
	return &Before{
		Annotations: slices.Clone(b.Annotations), Env: maps.Clone(b.Env),
		Writable: maps.Clone(b.Writable), Modes: maps.Clone(b.Modes),
	}
}

func (b *Before) empty() bool {
	return len(b.Annotations)+len(b.Env)+len(b.Writable)+len(b.Modes) == 0
}

// annotate preserves how other tools treat the pod: kubectl uses the application's container,
// and the cache, which is only a copy, does not keep a node from being removed.
func annotate(pod *corev1.Pod, firstTime bool, before *Before) {
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	recordAnnotation := func(key string) {
		if firstTime {
			before.Annotations = append(before.Annotations, key)
		}
	}
	if value, ok := pod.Annotations[annotationDefaultContainer]; !ok {
		pod.Annotations[annotationDefaultContainer] = pod.Spec.Containers[0].Name
	} else if value == pod.Spec.Containers[0].Name {
		recordAnnotation(annotationDefaultContainer)
	}
	safe, ok := pod.Annotations[annotationSafeToEvict]
	switch {
	case !ok:
		pod.Annotations[annotationSafeToEvict] = VolumeCache
	case slices.Contains(strings.Split(safe, ","), VolumeCache):
		recordAnnotation(annotationSafeToEvict)
	default:
		pod.Annotations[annotationSafeToEvict] = safe + "," + VolumeCache
	}
}

// unannotate undoes annotate, except for the keys in keep.
func unannotate(pod *corev1.Pod, keep []string) {
	delete(pod.Annotations, AnnotationStatus)
	if !slices.Contains(keep, annotationDefaultContainer) && pod.Annotations[annotationDefaultContainer] == pod.Spec.Containers[0].Name {
		delete(pod.Annotations, annotationDefaultContainer)
	}
	safe, ok := pod.Annotations[annotationSafeToEvict]
	if !ok || slices.Contains(keep, annotationSafeToEvict) {
		return
	}
	others := slices.DeleteFunc(strings.Split(safe, ","), func(name string) bool { return name == VolumeCache })
	if len(others) == 0 {
		delete(pod.Annotations, annotationSafeToEvict)
	} else {
		pod.Annotations[annotationSafeToEvict] = strings.Join(others, ",")
	}
}

// readStatus returns the status of an injected pod, which has both the sidecar and the
// annotation. A malformed status counts as empty.
func readStatus(pod *corev1.Pod) (status Status, injected bool) {
	_, ok := pod.Annotations[AnnotationStatus]
	if !ok || !slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == ContainerSidecar }) {
		return Status{}, false
	}
	return statusText(pod), true
}

func statusText(pod *corev1.Pod) (status Status) {
	if err := json.Unmarshal([]byte(pod.Annotations[AnnotationStatus]), &status); err != nil {
		return Status{}
	}
	return status
}

// writeStatus records the additions when the pod is injected for the first time. Later injections can only extend status.Before.
func writeStatus(pod *corev1.Pod, status Status, firstTime bool, before *Before) {
	if !firstTime && equality.Semantic.DeepEqual(status.Before.clone(), before) {
		return
	}
	if !before.empty() {
		status.Before = before
	}
	if firstTime {
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
	}
	text, err := json.Marshal(status)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	pod.Annotations[AnnotationStatus] = string(text)
}
