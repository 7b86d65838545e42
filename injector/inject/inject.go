package inject

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Inject returns the pod as it runs with Rockpool. It does not change the given pod. Unless the
// outcome is [Injected], the returned pod equals the given one.
func Inject(pod *corev1.Pod, facts Facts, params Params) (*corev1.Pod, Result) {
	status, injected := readStatus(pod)
	given := pod
	if !injected {
		pod, _ = withoutRemains(pod)
	}
	ask, stop := precheck(pod, injected, &facts)
	if stop != nil {
		return given, *stop
	}
	resources, err := overrideResources(params.Resources, ask.Resources)
	if err != nil {
		return given, refused(ReasonInvalidAnnotation, err.Error())
	}
	patched := pod.DeepCopy()
	spec := &patched.Spec
	if facts.Template {
		mountAccount(spec)
	}
	account := accountVolume(spec)
	if account == "" {
		return given, skipped(ReasonNoServiceAccount)
	}
	cache, directory, notices, err := chooseCache(pod, injected, &ask, &facts, &params)
	if err != nil {
		return given, refused(ReasonInvalidName, err.Error())
	}

	before := status.Before.clone()
	ip := loopback(params.IPv6)
	switch {
	case injected:
		ip = addressOf(spec).Addr()
	case !spec.HostNetwork:
	case facts.Review != "" && !params.IPv6:
		ip = ownLoopback(facts.Review)
	case surges(pod, &facts):
		notices = append(notices, Notice{Reason: ReasonHostPorts, Detail: fmt.Sprintf("%d and %d", ask.Port, ask.Port+1)})
	}
	address := netip.AddrPortFrom(ip, uint16(cmp.Or(ask.Port, listenPort)))
	r := redirection{
		sidecar: ip, env: addressEnv(address), account: account, exclude: ask.ExcludeContainers,
		before: before, firstTime: !injected,
	}
	r.apply(spec)
	notices = append(notices, r.notices...)
	if !r.served {
		return given, Result{Outcome: Skipped, Cause: Notice{Reason: ReasonNothingToServe}, Notices: notices}
	}
	image, pullPolicy := cmp.Or(ask.Image, params.imageFor(&facts)), cmp.Or(params.ImagePullPolicy, DefaultPullPolicy)
	if !injected {
		status.PullSecrets = addPullSecrets(spec, params.ImagePullSecrets)
		notices = append(notices, imageNotices(image, pullPolicy)...)
		if facts.Template && len(status.PullSecrets) == len(spec.ImagePullSecrets) && len(spec.ImagePullSecrets) > 0 {
			notices = append(notices, Notice{Reason: ReasonPullSecrets, Detail: strings.Join(status.PullSecrets, ", ")})
		}
		if facts.Template && slices.Contains(ExcludedNamespaces, facts.Namespace) {
			notices = append(notices, Notice{Reason: ReasonExcludedNamespace, Detail: facts.Namespace})
		}
		var off, short []Notice
		status.Version = params.Version
		status.Names, off = chooseNames(spec, cmp.Or(ask.APINames, params.APINames), params.Settings, r.left)
		status.Tolerations, short = cmp.Or(ask.Stay, params.Stay).apply(spec, cmp.Or(params.EvictionSeconds, DefaultEvictionSeconds))
		notices = append(append(notices, off...), short...)
	}
	status.Names.apply(spec, ip)
	cacheSize := cmp.Or(ask.CacheSize, params.Settings["cache.max-size"])
	resources = sidecarResources(spec, resources)
	addStorage(&resources, spec, cache, cacheSize)
	before.recordModes(openVolumes(spec, account, !injected))
	selinux := params.SELinuxType
	if cache != CacheHostPath {
		selinux = "" // the container runtime labels an emptyDir for the pod
	}
	metrics := ask.MetricsAddress
	if metrics == "" && !spec.HostNetwork {
		metrics = params.MetricsAddress
	}
	addContainers(spec, &sidecar{
		selinuxType: selinux,
		image:       image, pullPolicy: pullPolicy, directory: directory, account: account,
		address: address, hostPorts: spec.HostNetwork, publicMetrics: metrics == MetricsPod,
		assignedUser: cache == CacheEmptyDir && facts.assignsUsers(),
		env:          sidecarEnv(params.Settings, address, status.Names != nil, metrics == MetricsPod), resources: resources,
	})
	spec.Volumes = addVolumes(spec.Volumes, volumes(cache, params.CacheHostPath, cacheSize, cmp.Or(ask.CacheMemorySize, params.Settings["cache.memory-max-size"])))
	annotate(patched, !injected, before)
	if !injected && metrics == MetricsPod {
		status.Scrape = addScrape(patched, int32(address.Port())+1)
	}
	writeStatus(patched, status, !injected, before)

	result := Result{Outcome: Injected, Notices: notices}
	if equality.Semantic.DeepEqual(given, patched) {
		result.Outcome = Unchanged
	}
	return patched, result
}

// precheck reads the pod's annotations, and returns a result if the pod cannot be injected. It
// first checks whether the pod asks for Rockpool, and then for reasons to skip or refuse it.
func precheck(pod *corev1.Pod, injected bool, facts *Facts) (Annotations, *Result) {
	stop := func(r Result) (Annotations, *Result) { return Annotations{}, &r }
	if !Requested(pod.Annotations, facts.Asked) {
		return stop(skipped(ReasonNotRequested))
	}
	if _, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]; ok {
		return stop(skipped(ReasonMirrorPod))
	}
	ask, err := ParseAnnotations(pod.Annotations)
	if err != nil {
		return stop(refused(ReasonInvalidAnnotation, err.Error()))
	}
	if onWindows(&pod.Spec) {
		return stop(skipped(ReasonWindows))
	}
	if pod.Spec.HostNetwork && ask.Port == 0 {
		return stop(skipped(ReasonHostNetwork))
	}
	if OldKubelet(facts.KubeletVersion) {
		return stop(refused(ReasonOldKubelet, fmt.Sprintf("node %q has kubelet %s", NodeOf(pod), facts.KubeletVersion)))
	}
	if !injected {
		if name := conflictingName(&pod.Spec); name != "" {
			return stop(refused(ReasonNameConflict, name))
		}
	}
	if port := conflictingPort(&pod.Spec, cmp.Or(ask.Port, listenPort)); port != "" {
		return stop(refused(ReasonPortConflict, port))
	}
	return ask, nil
}

// chooseCache decides on the cache volume, and on the pod's directory in it. An emptyDir has none.
func chooseCache(pod *corev1.Pod, injected bool, ask *Annotations, facts *Facts, params *Params) (CacheVolume, string, []Notice, error) {
	kind, notices := chooseCacheVolume(pod, injected, ask, facts, params)
	if kind != CacheHostPath {
		return kind, "", notices, nil
	}
	directory, stable, err := cacheDirectory(pod, facts)
	if err == nil && !stable && !injected && ask.CacheVolume == "" {
		notices = append(notices, Notice{Reason: ReasonNoStableName, Detail: directory})
		return CacheEmptyDir, "", notices, nil
	}
	return kind, directory, notices, err
}

// chooseCacheVolume decides on the kind of the pod's cache volume, and returns a notice if the
// namespace changes the choice. A pod that asks for hostPath by annotation gets it: the
// namespace may have exceptions that the injector does not know. An injected pod keeps its
// volume.
func chooseCacheVolume(pod *corev1.Pod, injected bool, ask *Annotations, facts *Facts, params *Params) (CacheVolume, []Notice) {
	if has := cacheVolumeOf(&pod.Spec); injected && has != "" {
		return has, nil
	}
	kind := cmp.Or(ask.CacheVolume, params.CacheVolume, CacheHostPath)
	if ask.CacheVolume == "" && kind == CacheHostPath {
		if reason, detail := facts.forbidsHostPath(); reason != "" {
			return CacheEmptyDir, []Notice{{Reason: reason, Detail: detail}}
		}
		if users := pod.Spec.HostUsers; users != nil && !*users {
			return CacheEmptyDir, []Notice{{Reason: ReasonUserNamespace}}
		}
	}
	return kind, nil
}

func skipped(reason Reason) Result {
	return Result{Outcome: Skipped, Cause: Notice{Reason: reason}}
}

func refused(reason Reason, detail string) Result {
	return Result{Outcome: Refused, Cause: Notice{Reason: reason, Detail: detail}}
}

// surges reports whether the pod's controller may start a new pod before it stops the old one.
func surges(pod *corev1.Pod, facts *Facts) bool {
	owner := cmp.Or(facts.Controller, metav1.GetControllerOfNoCopy(pod))
	return owner != nil && (owner.Kind == "Deployment" || owner.Kind == "ReplicaSet")
}

// conflictingName returns the first container or volume that has one of our names, or "".
func conflictingName(spec *corev1.PodSpec) string {
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		if ownContainer(c.Name) {
			return fmt.Sprintf("container %q", c.Name)
		}
	}
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		if ownVolume(v.Name) && (v.Name != VolumeToken || !holdsToken(v)) {
			return fmt.Sprintf("volume %q", v.Name)
		}
	}
	return ""
}

// conflictingPort returns the first port of an application container that the sidecar needs,
// or "". All containers of a pod share one loopback interface.
func conflictingPort(spec *corev1.PodSpec, listen int32) string {
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, p := range c.Ports {
			if !ownContainer(c.Name) && p.Protocol != corev1.ProtocolUDP && p.Protocol != corev1.ProtocolSCTP &&
				(p.ContainerPort == listen || p.ContainerPort == listen+1) {
				return fmt.Sprintf("container %q, containerPort %d", c.Name, p.ContainerPort)
			}
		}
	}
	return ""
}

// addContainers puts our containers before all others, which need the sidecar from their start.
// It restores those that the pod already has, and moves them to the front.
func addContainers(spec *corev1.PodSpec, s *sidecar) {
	var front []corev1.Container
	if s.directory != "" {
		front = append(front, s.prepareContainer())
	}
	front = append(front, s.container())

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
