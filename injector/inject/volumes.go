package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// Volumes that are added to a pod.
const (
	// VolumeCache holds what the sidecar has recorded.
	VolumeCache = "rockpool-cache"
	// VolumePrivate holds the pod's own CA and keys, mounted in the sidecar only.
	VolumePrivate = "rockpool-private"
	// VolumeAccount holds the service-account directory that the application sees.
	VolumeAccount = "rockpool-account"
)

// ownVolume tells whether a volume of this name is one of ours.
func ownVolume(name string) bool {
	return name == VolumeCache || name == VolumePrivate || name == VolumeAccount
}

func volumes(kind CacheVolume, hostPath string) []corev1.Volume {
	cache := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	if kind == CacheHostPath {
		cache = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{
			Path: hostPath,
			Type: ptr.To(corev1.HostPathDirectoryOrCreate),
		}}
	}
	return []corev1.Volume{
		{Name: VolumeCache, VolumeSource: cache},
		// Both hold keys or tokens, hence memory: neither may reach the node's disk.
		{Name: VolumePrivate, VolumeSource: memory("16Mi")},
		{Name: VolumeAccount, VolumeSource: memory("1Mi")},
	}
}

func memory(limit string) corev1.VolumeSource {
	return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
		Medium:    corev1.StorageMediumMemory,
		SizeLimit: ptr.To(resource.MustParse(limit)),
	}}
}

// addVolumes appends those of added that the pod does not have yet.
func addVolumes(have, added []corev1.Volume) []corev1.Volume {
	for _, v := range added {
		if !slices.ContainsFunc(have, func(h corev1.Volume) bool { return h.Name == v.Name }) {
			have = append(have, v)
		}
	}
	return have
}
