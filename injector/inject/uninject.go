package inject

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Uninject undoes [Inject], and reports whether the pod was injected. It does not change the
// given pod. Later additions of other tools stay, as they would be without Rockpool.
//
// A copy of an injected pod that has lost the status annotation is restored as far as possible: see
// withoutRemains.
func Uninject(pod *corev1.Pod) (*corev1.Pod, bool) {
	status, injected := readStatus(pod)
	if !injected {
		return withoutRemains(pod)
	}
	before := status.Before.clone()
	restored := pod.DeepCopy()
	address := addressOf(&restored.Spec)
	u := undo{before: before, sidecar: address.Addr(), env: addressEnv(address), account: accountIn(&restored.Spec)}
	u.restoreSpec(&restored.Spec, status.Names)
	status.Tolerations.undo(&restored.Spec)
	removePullSecrets(&restored.Spec, status.PullSecrets)
	status.removeScrape(restored)
	unannotate(restored, before.Annotations)
	return restored, true
}

// undo is the reverse of a [redirection].
type undo struct {
	sidecar   netip.Addr
	env       []corev1.EnvVar
	account   string // the original service-account volume
	before    *Before
	keepToken bool // the pod keeps VolumeToken, which the API server does not make again
}

func (u *undo) restoreSpec(spec *corev1.PodSpec, names *Names) {
	spec.InitContainers = slices.DeleteFunc(spec.InitContainers, func(c corev1.Container) bool { return ownContainer(c.Name) })
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool {
		return ownVolume(v.Name) && (v.Name != VolumeToken || !u.keepToken)
	})
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			u.restore(&list[i])
		}
	}
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		if mode, ok := u.before.Modes[v.Name]; ok && defaultMode(v) != nil {
			*defaultMode(v) = &mode
		}
	}
	names.undo(spec, u.sidecar)
}

func (u *undo) restore(c *corev1.Container) {
	keep := u.before.Env[c.Name]
	// A container that was left alone does not have all of our variables.
	if len(missingFrom(c.Env, u.env)) == 0 && !setsOwnAddress(c.Env, u.env) {
		c.Env = slices.DeleteFunc(c.Env, func(e corev1.EnvVar) bool {
			return !slices.Contains(keep, e.Name) && slices.ContainsFunc(u.env, func(ours corev1.EnvVar) bool { return ours.Name == e.Name })
		})
		c.Env = restoreProxy(c.Env, u.sidecar, keep)
	}
	for i := range c.VolumeMounts {
		if m := &c.VolumeMounts[i]; m.Name == VolumeAccount {
			m.Name = u.account
			m.ReadOnly = !slices.Contains(u.before.Writable[c.Name], m.MountPath)
		}
	}
	if !u.keepToken {
		c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == VolumeToken })
	}
}
