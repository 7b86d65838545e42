package fleet

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/injector/inject"
)

// Sidecar is what a pod says about its sidecar.
type Sidecar struct {
	Namespace, Pod, Node string
	// Image of the container in the pod's spec.
	Image string
	// Injector is the version of the injector that has injected the pod.
	Injector string
	// Pinned means that the pod chooses the image itself, by annotation.
	Pinned bool
	// Problem is why the sidecar does not serve the pod now; empty if it does.
	Problem string
	// ContainerID of the container that runs now, and how often it was restarted.
	ContainerID string
	Restarts    int32
}

// String returns the name of the pod.
func (s *Sidecar) String() string { return s.Namespace + "/" + s.Pod }

// Look returns the sidecars of the injected pods among pods, ordered by namespace and name. Pods that
// have completed, or are being deleted, are left out.
func Look(pods []corev1.Pod) []Sidecar {
	var all []Sidecar
	for i := range pods {
		if s, ok := look(&pods[i]); ok {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Sidecar) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod))
	})
	return all
}

func look(pod *corev1.Pod) (Sidecar, bool) {
	at := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == inject.ContainerSidecar })
	text, injected := pod.Annotations[inject.AnnotationStatus]
	if at < 0 || !injected || pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return Sidecar{}, false
	}
	_, pinned := pod.Annotations[inject.AnnotationImage]
	s := Sidecar{
		Namespace: pod.Namespace, Pod: pod.Name, Node: pod.Spec.NodeName,
		Image: pod.Spec.InitContainers[at].Image, Pinned: pinned,
	}
	var status inject.Status
	if json.Unmarshal([]byte(text), &status) == nil {
		s.Injector = status.Version
	}
	i := slices.IndexFunc(pod.Status.InitContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == inject.ContainerSidecar })
	if i < 0 {
		s.Problem = "not started"
		return s, true
	}
	c := &pod.Status.InitContainerStatuses[i]
	s.ContainerID, s.Restarts = c.ContainerID, c.RestartCount
	s.Problem = problemOf(c)
	return s, true
}

// problemOf says why a container does not serve, or returns "".
func problemOf(c *corev1.ContainerStatus) string {
	switch {
	case c.State.Waiting != nil:
		return cmp.Or(c.State.Waiting.Reason, "waiting")
	case c.State.Terminated != nil:
		return fmt.Sprintf("ended with exit code %d", c.State.Terminated.ExitCode)
	case c.State.Running == nil:
		return "not started"
	case c.Started == nil || !*c.Started:
		return "starting since " + c.State.Running.StartedAt.UTC().Format(time.RFC3339)
	default:
		return ""
	}
}

// Outdated reports whether the sidecar should have another image. Pinned ones have what they asked
// for.
func (s *Sidecar) Outdated(image string) bool { return !s.Pinned && s.Image != image }

// Group is a number of sidecars with one image, injected by one version.
type Group struct {
	Image, Injector           string
	Pods, Outdated, Unhealthy int
}

// Summarize groups sidecars, the largest group first. image is that which new pods get; empty means
// unknown, and that none is outdated.
func Summarize(sidecars []Sidecar, image string) []Group {
	type key struct{ image, injector string }
	groups := map[key]*Group{}
	for i := range sidecars {
		s := &sidecars[i]
		k := key{s.Image, s.Injector}
		if groups[k] == nil {
			groups[k] = &Group{Image: s.Image, Injector: s.Injector}
		}
		groups[k].Pods++
		if image != "" && s.Outdated(image) {
			groups[k].Outdated++
		}
		if s.Problem != "" {
			groups[k].Unhealthy++
		}
	}
	var all []Group
	for _, g := range groups {
		all = append(all, *g)
	}
	slices.SortFunc(all, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Pods, a.Pods), cmp.Compare(a.Image, b.Image), cmp.Compare(a.Injector, b.Injector))
	})
	return all
}
