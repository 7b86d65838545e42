package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// accountPath is where every in-cluster client looks for its token and CA.
const accountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// accountVolume returns the name of the pod's service-account volume, or "": the one
// that the ServiceAccount admission plugin has made and mounted at [accountPath]
// (kube-api-access-*), or one that the author has written in its image. In a pod that
// was injected before, it is the one that the sidecar mounts, hence sidecar first.
func accountVolume(pod *corev1.Pod) string {
	containers := slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers)
	slices.SortStableFunc(containers, func(a, b corev1.Container) int {
		return rank(a.Name) - rank(b.Name)
	})
	for _, c := range containers {
		if m := mountAt(c.VolumeMounts, accountPath); m != nil && holdsToken(pod.Spec.Volumes, m.Name) {
			return m.Name
		}
	}
	return ""
}

// rank orders the sidecar before all others.
func rank(container string) int {
	if container == ContainerSidecar {
		return 0
	}
	return 1
}

// holdsToken tells whether the named volume is projected and has a service-account token
// where clients and sidecar expect it.
func holdsToken(volumes []corev1.Volume, name string) bool {
	i := slices.IndexFunc(volumes, func(v corev1.Volume) bool { return v.Name == name })
	if i < 0 || volumes[i].Projected == nil {
		return false
	}
	return slices.ContainsFunc(volumes[i].Projected.Sources, func(s corev1.VolumeProjection) bool {
		return s.ServiceAccountToken != nil && s.ServiceAccountToken.Path == "token"
	})
}

func mountAt(mounts []corev1.VolumeMount, path string) *corev1.VolumeMount {
	i := slices.IndexFunc(mounts, func(m corev1.VolumeMount) bool { return m.MountPath == path })
	if i < 0 {
		return nil
	}
	return &mounts[i]
}

// redirect points one container of the application at the sidecar: the variables that
// name the API server, and every mount of the volume account, whatever its path. It
// tells whether the container mounts the service account.
//
// A container with an address or a service-account volume of its own is left alone,
// altogether: half of the two would break it, since only our volume has the CA that our
// address needs. The reason for that is returned.
func redirect(c *corev1.Container, account string) (mounts bool, leftAlone Reason) {
	if m := mountAt(c.VolumeMounts, accountPath); m != nil && m.Name != account && m.Name != VolumeAccount {
		return false, ReasonOwnAccount
	}
	if setsOwnAddress(c.Env) {
		return false, ReasonOwnAddress
	}
	c.Env = withAddress(c.Env)
	for i := range c.VolumeMounts {
		if m := &c.VolumeMounts[i]; m.Name == account {
			m.Name = VolumeAccount
			// The kubelet mounts projected volumes read-only whatever the mount says, but
			// not an emptyDir: the tokens must stay out of the containers' reach.
			m.ReadOnly = true
		}
		mounts = mounts || c.VolumeMounts[i].Name == VolumeAccount
	}
	return mounts, ""
}
