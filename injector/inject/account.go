package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// accountPath is where every in-cluster client looks for its token and CA.
const accountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// accountVolume returns the name of the pod's service-account volume, or "": the one
// that the ServiceAccount admission plugin has made and mounted at [accountPath]
// (kube-api-access-*), or one that the author has written in its image. In a pod that
// was injected before, it is the one that the sidecar mounts, hence sidecar first.
func accountVolume(spec *corev1.PodSpec) string {
	containers := slices.Concat(spec.Containers, spec.InitContainers)
	slices.SortStableFunc(containers, func(a, b corev1.Container) int {
		return rank(a.Name) - rank(b.Name)
	})
	for _, c := range containers {
		m := mountAt(c.VolumeMounts, accountPath)
		if m == nil || m.SubPath != "" || m.SubPathExpr != "" {
			continue
		}
		if v := volumeNamed(spec.Volumes, m.Name); v != nil && holdsToken(v) {
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

// holdsToken tells whether a volume that is mounted at [accountPath] has a service-account
// token where clients and sidecar expect it, in files that the sidecar can read once
// [openVolumes] has been there.
//
// A Secret is taken at its word: what else would be mounted at that path.
func holdsToken(v *corev1.Volume) bool {
	switch {
	case v.Projected != nil:
		return v.Projected.DefaultUser == nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ServiceAccountToken != nil && s.ServiceAccountToken.Path == "token" ||
				s.Secret != nil && hasToken(s.Secret.Items)
		}) && !slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.Secret != nil && closed(s.Secret.Items) || s.ConfigMap != nil && closed(s.ConfigMap.Items)
		})
	case v.Secret != nil:
		return v.Secret.DefaultUser == nil && hasToken(v.Secret.Items) && !closed(v.Secret.Items)
	}
	return false
}

// hasToken tells whether these items of a Secret, all of it when there are none, include
// the token.
func hasToken(items []corev1.KeyToPath) bool {
	return len(items) == 0 || slices.ContainsFunc(items, func(k corev1.KeyToPath) bool { return k.Path == "token" })
}

// closed tells whether one of the items has a mode of its own that keeps the sidecar out.
func closed(items []corev1.KeyToPath) bool {
	return slices.ContainsFunc(items, func(k corev1.KeyToPath) bool { return k.Mode != nil && *k.Mode&othersRead == 0 })
}

func mountAt(mounts []corev1.VolumeMount, path string) *corev1.VolumeMount {
	i := slices.IndexFunc(mounts, func(m corev1.VolumeMount) bool { return m.MountPath == path })
	if i < 0 {
		return nil
	}
	return &mounts[i]
}

func volumeNamed(volumes []corev1.Volume, name string) *corev1.Volume {
	i := slices.IndexFunc(volumes, func(v corev1.Volume) bool { return v.Name == name })
	if i < 0 {
		return nil
	}
	return &volumes[i]
}

// mountAccount does for a template what the ServiceAccount admission plugin will do for
// the pods made from it: a token for every container that has nothing at [accountPath].
// The plugin then finds nothing to do. It cannot see whether the service account
// itself declines (automountServiceAccountToken).
func mountAccount(spec *corev1.PodSpec) {
	if spec.AutomountServiceAccountToken != nil && !*spec.AutomountServiceAccountToken {
		return
	}
	needed := false
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if mountAt(list[i].VolumeMounts, accountPath) == nil {
				list[i].VolumeMounts = append(list[i].VolumeMounts, corev1.VolumeMount{Name: VolumeToken, MountPath: accountPath, ReadOnly: true})
				needed = true
			}
		}
	}
	if needed {
		spec.Volumes = append(spec.Volumes, tokenVolume())
	}
}

// othersRead is the permission that lets the sidecar read a file of root's.
const othersRead = 0o004

// openVolumes lets the sidecar and the application read tokens whose volume is closed to
// others (defaultMode 0400), and returns the modes that it has changed.
//
// Only an fsGroup, which the sidecar has as well, or one user for all containers lets
// anybody but root read such a volume: the kubelet then gives the tokens to that user.
// Our containers have users of their own and so end this for every token of the pod. The files are
// still seen only where the volume is mounted.
func openVolumes(spec *corev1.PodSpec, account string, firstTime bool) map[string]int32 {
	if spec.SecurityContext != nil && spec.SecurityContext.FSGroup != nil {
		return nil
	}
	opened := map[string]int32{}
	oneUser := firstTime && haveOneUser(spec)
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		mode := defaultMode(v)
		if mode == nil || *mode == nil || **mode&othersRead != 0 || v.Name != account && (!oneUser || !projectsToken(v)) {
			continue
		}
		opened[v.Name] = **mode
		*mode = ptr.To(**mode | 0o444)
	}
	return opened
}

// defaultMode points to the field of a volume that can hold a token; nil for others.
func defaultMode(v *corev1.Volume) **int32 {
	switch {
	case v.Projected != nil:
		return &v.Projected.DefaultMode
	case v.Secret != nil:
		return &v.Secret.DefaultMode
	}
	return nil
}

func projectsToken(v *corev1.Volume) bool {
	return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
		return s.ServiceAccountToken != nil
	})
}

// haveOneUser tells whether all containers run as one user, as far as the pod says so.
func haveOneUser(spec *corev1.PodSpec) bool {
	var users []int64
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		switch {
		case c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil:
			users = append(users, *c.SecurityContext.RunAsUser)
		case spec.SecurityContext != nil && spec.SecurityContext.RunAsUser != nil:
			users = append(users, *spec.SecurityContext.RunAsUser)
		default:
			return false
		}
	}
	return len(slices.Compact(users)) == 1
}
