package inject

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Inject returns the pod as it runs with Rockpool. The given pod is not changed; when the
// outcome is not [Injected], the returned one equals it. The namespace is a parameter
// because a pod at admission may not say its own.
func Inject(pod *corev1.Pod, namespace string, params Params) (*corev1.Pod, Result) {
	ask, stop := examine(pod)
	if stop != nil {
		return pod, *stop
	}
	account := accountVolume(pod)
	if account == "" {
		return pod, skip(ReasonNoServiceAccount)
	}
	directory, err := cacheDirectory(pod, cmp.Or(namespace, pod.Namespace))
	if err != nil {
		return pod, refuse(ReasonInvalidName, err.Error())
	}

	patched := pod.DeepCopy()
	leftAlone, served := redirectAll(&patched.Spec, account)
	if !served {
		return pod, Result{Outcome: Skipped, Cause: Notice{Reason: ReasonNothingToServe}, LeftAlone: leftAlone}
	}
	addContainers(&patched.Spec, ask, directory, account, params)
	patched.Spec.Volumes = addVolumes(patched.Spec.Volumes, volumes(ask.CacheVolume, params.CacheHostPath))
	annotate(patched)
	if !injectedBefore(pod) {
		writeStatus(patched, params.Version)
	}

	result := Result{Outcome: Injected, LeftAlone: leftAlone}
	if equality.Semantic.DeepEqual(pod, patched) {
		result.Outcome = Unchanged
	}
	return patched, result
}

// examine reads the pod's annotations, defaults filled in, and returns a result when there
// is no use in going on. It asks first whether the pod wants Rockpool at all, then what its
// author has to mend, then what only makes injection pointless.
func examine(pod *corev1.Pod) (Annotations, *Result) {
	stop := func(r Result) (Annotations, *Result) { return Annotations{}, &r }
	if !Requested(pod.Annotations) {
		return stop(skip(ReasonNotRequested))
	}
	if _, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]; ok {
		return stop(skip(ReasonMirrorPod))
	}
	ask, err := ParseAnnotations(pod.Annotations)
	if err != nil {
		return stop(refuse(ReasonInvalidAnnotation, err.Error()))
	}
	ask.CacheVolume = cmp.Or(ask.CacheVolume, CacheHostPath)
	if onWindows(&pod.Spec) {
		return stop(skip(ReasonWindows))
	}
	if pod.Spec.HostNetwork {
		return stop(skip(ReasonHostNetwork))
	}
	if !injectedBefore(pod) {
		if name := takenName(&pod.Spec); name != "" {
			return stop(refuse(ReasonNameConflict, name))
		}
	}
	if port := takenPort(&pod.Spec); port != "" {
		return stop(refuse(ReasonPortConflict, port))
	}
	return ask, nil
}

func skip(reason Reason) Result {
	return Result{Outcome: Skipped, Cause: Notice{Reason: reason}}
}

func refuse(reason Reason, detail string) Result {
	return Result{Outcome: Refused, Cause: Notice{Reason: reason, Detail: detail}}
}

func onWindows(spec *corev1.PodSpec) bool {
	return spec.OS != nil && spec.OS.Name == corev1.Windows || spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows)
}

// takenName returns the first container or volume that has one of our names, or "".
func takenName(spec *corev1.PodSpec) string {
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		if ownContainer(c.Name) {
			return fmt.Sprintf("container %q", c.Name)
		}
	}
	for _, v := range spec.Volumes {
		if ownVolume(v.Name) {
			return fmt.Sprintf("volume %q", v.Name)
		}
	}
	return ""
}

// takenPort returns the first container port that the sidecar needs, or "". All containers
// of a pod share one loopback interface.
func takenPort(spec *corev1.PodSpec) string {
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, p := range c.Ports {
			if p.Protocol != corev1.ProtocolUDP && p.Protocol != corev1.ProtocolSCTP &&
				(p.ContainerPort == listenPort || p.ContainerPort == metricsPort) {
				return fmt.Sprintf("container %q, containerPort %d", c.Name, p.ContainerPort)
			}
		}
	}
	return ""
}

// redirectAll points every container of the application at the sidecar. It returns a notice
// for each one left alone, and whether any is left that the sidecar serves.
func redirectAll(spec *corev1.PodSpec, account string) (leftAlone []Notice, served bool) {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			c := &list[i]
			if ownContainer(c.Name) {
				continue
			}
			mounts, reason := redirect(c, account)
			if reason != "" {
				leftAlone = append(leftAlone, Notice{Reason: reason, Detail: fmt.Sprintf("container %q", c.Name)})
			}
			served = served || mounts
		}
	}
	return leftAlone, served
}

// addContainers puts our containers before all others, which need the sidecar from their
// first moment on. Those that are there already are restored and moved to the front.
func addContainers(spec *corev1.PodSpec, ask Annotations, directory, account string, params Params) {
	image := cmp.Or(ask.Image, params.Image)
	upstreams := ask.Upstreams
	if len(upstreams) == 0 {
		upstreams = params.Upstreams
	}
	resources := sidecarResources(spec, params.Resources)

	var front []corev1.Container
	if ask.CacheVolume == CacheHostPath {
		front = append(front, prepareContainer(image, directory, resources))
	} else {
		directory = ""
	}
	front = append(front, sidecarContainer(image, directory, account, sidecarEnv(upstreams, ask), *resources.DeepCopy()))

	for i, want := range front {
		at := slices.IndexFunc(spec.InitContainers, func(c corev1.Container) bool { return c.Name == want.Name })
		if at < 0 {
			continue
		}
		front[i] = restore(spec.InitContainers[at], want)
		spec.InitContainers = slices.Delete(spec.InitContainers, at, at+1)
	}
	spec.InitContainers = slices.Concat(front, spec.InitContainers)
}
