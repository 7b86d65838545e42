package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// accountPath is where every in-cluster client looks for its token and CA.
const accountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// accountVolume returns the name of the pod's service-account volume, or "". The
// ServiceAccount admission plugin has made it (kube-api-access-*) and mounted it at
// [accountPath], or the author has written an equivalent one. In an injected pod it is the
// volume that the sidecar mounts, so the search begins with the sidecar.
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

// holdsToken reports whether a volume that is mounted at [accountPath] has a service-account
// token where clients and sidecar expect it. The sidecar must be able to read the files after
// [openVolumes].
//
// The kind of a Secret is not checked: at that path it can only be a token's.
func holdsToken(v *corev1.Volume) bool {
	switch {
	case v.Projected != nil:
		return v.Projected.DefaultUser == nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ServiceAccountToken != nil && s.ServiceAccountToken.Path == "token" ||
				s.Secret != nil && hasToken(s.Secret.Items)
		}) && !slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.Secret != nil && unreadable(s.Secret.Items) || s.ConfigMap != nil && unreadable(s.ConfigMap.Items)
		})
	case v.Secret != nil:
		return v.Secret.DefaultUser == nil && hasToken(v.Secret.Items) && !unreadable(v.Secret.Items)
	}
	return false
}

// hasToken reports whether these items of a Secret include the token. No items mean the whole
// Secret.
func hasToken(items []corev1.KeyToPath) bool {
	return len(items) == 0 || slices.ContainsFunc(items, func(k corev1.KeyToPath) bool { return k.Path == "token" })
}

// unreadable reports whether an item has a mode of its own that keeps the sidecar from reading it.
func unreadable(items []corev1.KeyToPath) bool {
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

// mountAccount mounts the token in every container of a template that has nothing at
// [accountPath]. The ServiceAccount admission plugin would do the same to the pods, and then
// leaves them alone. mountAccount does not know whether the ServiceAccount object itself has
// automountServiceAccountToken: false.
func mountAccount(spec *corev1.PodSpec) {
	if spec.AutomountServiceAccountToken != nil && !*spec.AutomountServiceAccountToken {
		return
	}
	needed := false
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if mountAt(list[i].VolumeMounts, accountPath) == nil {
				list[i].VolumeMounts = append(list[i].VolumeMounts,
					corev1.VolumeMount{Name: VolumeToken, MountPath: accountPath, ReadOnly: true})
				needed = true
			}
		}
	}
	if needed {
		spec.Volumes = append(spec.Volumes, tokenVolume())
	}
}

// othersRead is the permission with which the sidecar can read a file that root owns.
const othersRead = 0o004

// openVolumes makes tokens readable for the sidecar and the application if the mode of their
// volume excludes other users (defaultMode 0400). It returns the original modes.
//
// Without it, users other than root can read such a volume in two cases only. With an fsGroup,
// which the sidecar has as well, nothing needs to change. If all containers run as one user,
// the kubelet gives the tokens to that user. Our containers have users of their own, and end
// that case for every token of the pod. The files stay visible only where the volume is mounted.
func openVolumes(spec *corev1.PodSpec, account string, firstTime bool) map[string]int32 {
	if spec.SecurityContext != nil && spec.SecurityContext.FSGroup != nil {
		return nil
	}
	opened := map[string]int32{}
	oneUser := firstTime && runAsOneUser(spec)
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

// defaultMode returns a pointer to the mode of a volume that can hold a token; nil for others.
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

// runAsOneUser reports whether the pod sets the same user for all containers.
func runAsOneUser(spec *corev1.PodSpec) bool {
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
