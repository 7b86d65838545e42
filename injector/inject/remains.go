package inject

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// withoutRemains returns a copy of an injected pod, one that has lost its status annotation or its
// sidecar, as it would be without Rockpool. It returns any other pod as it is, and false. kubectl debug --copy-to
// makes such copies: without the annotations, and on request without the init containers.
func withoutRemains(pod *corev1.Pod) (*corev1.Pod, bool) {
	if !hasRemains(&pod.Spec) {
		return pod, false
	}
	restored := pod.DeepCopy()
	address := addressIn(&pod.Spec)
	status := statusText(pod)
	u := undo{before: status.Before.clone(), sidecar: address.Addr(), env: addressEnv(address), account: accountIn(&pod.Spec), keepToken: true}
	u.restoreSpec(&restored.Spec, cmp.Or(status.Names, namesIn(&pod.Spec, address.Addr())))
	status.Tolerations.undo(&restored.Spec)
	removePullSecrets(&restored.Spec, status.PullSecrets)
	status.removeScrape(restored)
	unannotate(restored, u.before.Annotations)
	return restored, true
}

// hasRemains reports whether the pod has all volumes of an injected pod, and no container of ours
// that is not.
func hasRemains(spec *corev1.PodSpec) bool {
	if slices.ContainsFunc(spec.Containers, func(c corev1.Container) bool { return ownContainer(c.Name) }) ||
		slices.ContainsFunc(spec.InitContainers, func(c corev1.Container) bool {
			return ownContainer(c.Name) && (len(c.Command) == 0 || c.Command[0] != binary)
		}) {
		return false
	}
	inMemory := func(name string) bool {
		v := volumeNamed(spec.Volumes, name)
		return v != nil && v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory
	}
	settings := volumeNamed(spec.Volumes, VolumeConfig)
	return inMemory(VolumeAccount) && inMemory(VolumePrivate) && settings != nil && settings.Projected != nil && cacheVolumeOf(spec) != ""
}

// addressIn returns the sidecar's address in an injected pod, which may have lost the sidecar: the
// containers that use its service account have its address.
func addressIn(spec *corev1.PodSpec) netip.AddrPort {
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == VolumeAccount }) || ownContainer(c.Name) {
			continue
		}
		var host, port string
		for _, v := range c.Env {
			switch v.Name {
			case "KUBERNETES_SERVICE_HOST":
				host = v.Value
			case "KUBERNETES_SERVICE_PORT":
				port = v.Value
			}
		}
		ip, noIP := netip.ParseAddr(host)
		number, noPort := strconv.ParseUint(port, 10, 16)
		if noIP == nil && noPort == nil {
			return netip.AddrPortFrom(ip, uint16(number))
		}
	}
	return addressOf(spec)
}

// accountIn returns the service-account volume of an injected pod, which may have lost the sidecar
// that mounts it.
func accountIn(spec *corev1.PodSpec) string {
	for _, c := range spec.InitContainers {
		if m := mountAt(c.VolumeMounts, accountPath); c.Name == ContainerSidecar && m != nil {
			return m.Name
		}
	}
	for i := range spec.Volumes {
		if v := &spec.Volumes[i]; projectsToken(v) && holdsToken(v) {
			return v.Name
		}
	}
	return ""
}

// namesIn returns the additions of [Names] to an injected pod. It takes all names of the Service at
// the sidecar's address for ours.
func namesIn(spec *corev1.PodSpec, sidecar netip.Addr) *Names {
	i := aliasOf(spec, sidecar)
	if i < 0 {
		return nil
	}
	n := &Names{}
	for _, name := range spec.HostAliases[i].Hostnames {
		if name == "kubernetes" || strings.HasPrefix(name, "kubernetes.default") {
			n.Hosts = append(n.Hosts, name)
		}
	}
	if len(n.Hosts) == 0 {
		return nil
	}
	s := sysctl(spec)
	n.Sysctl = s != nil && s.Value == "0"
	n.SecurityContext = n.Sysctl
	return n
}
