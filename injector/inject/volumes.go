package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"rockpool.dev/sidecar/config"
)

// Volumes that are added to a pod.
const (
	// VolumeCache holds the sidecar's recordings.
	VolumeCache = "rockpool-cache"
	// VolumePrivate holds the pod's own CA and keys, mounted in the sidecar only.
	VolumePrivate = "rockpool-private"
	// VolumeAccount holds the service-account directory that the application sees.
	VolumeAccount = "rockpool-account"
	// VolumeConfig holds the configuration that may change while the sidecar runs: the settings
	// that the injector publishes in the namespace ([ConfigMapName]), and the pod's annotations.
	VolumeConfig = "rockpool-config"
	// VolumeToken is the service-account volume that the injector adds to a template, which has
	// none. By its prefix, the ServiceAccount admission plugin takes it for its own.
	VolumeToken = "kube-api-access-rockpool"
)

// ConfigMapName is the ConfigMap with the settings of all sidecars of a namespace, under the
// key config.FileName. Pods also start without it.
const ConfigMapName = "rockpool-sidecar"

// ownVolume reports whether a volume of this name is one of ours.
func ownVolume(name string) bool {
	return name == VolumeCache || name == VolumePrivate || name == VolumeAccount || name == VolumeConfig || name == VolumeToken
}

// volumes returns the volumes of a pod. size and memorySize are the settings cache.max-size and
// cache.memory-max-size; empty means their defaults.
func volumes(kind CacheVolume, hostPath, size, memorySize string) []corev1.Volume {
	bound := recordingsSize(size, defaultCacheSize)
	cache := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &bound}}
	if kind == CacheHostPath {
		cache = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{
			Path: hostPath,
			Type: ptr.To(corev1.HostPathDirectoryOrCreate),
		}}
	}
	return []corev1.Volume{
		{Name: VolumeCache, VolumeSource: cache},
		// Both hold keys or tokens, which must not reach the node's disk. The first also has the
		// recordings in memory.
		{Name: VolumePrivate, VolumeSource: memory(recordingsSize(memorySize, defaultMemorySize))},
		{Name: VolumeAccount, VolumeSource: memory(resource.MustParse("1Mi"))},
		configVolume(),
	}
}

// configVolume combines ConfigMap and annotations, so that the sidecar watches one directory
// only. The kubelet updates it when either changes.
func configVolume() corev1.Volume {
	return corev1.Volume{Name: VolumeConfig, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: ConfigMapName},
				Items:                []corev1.KeyToPath{{Key: config.FileName, Path: config.FileName}},
				Optional:             ptr.To(true),
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: config.AnnotationsFileName, FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.annotations"}},
			}}},
		},
	}}}
}

func memory(limit resource.Quantity) corev1.VolumeSource {
	return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
		Medium:    corev1.StorageMediumMemory,
		SizeLimit: &limit,
	}}
}

// tokenVolume is like the volume that the ServiceAccount admission plugin adds.
func tokenVolume() corev1.Volume {
	return corev1.Volume{Name: VolumeToken, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			// An hour and 7 seconds: by this number the API server knows that the author has not
			// chosen it. It then accepts the token longer, for clients that never reload it.
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](3607)}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}}}
}

// cacheVolumeOf returns the kind of the pod's cache volume, or "".
func cacheVolumeOf(spec *corev1.PodSpec) CacheVolume {
	switch v := volumeNamed(spec.Volumes, VolumeCache); {
	case v == nil:
		return ""
	case v.HostPath != nil:
		return CacheHostPath
	default:
		return CacheEmptyDir
	}
}

// addVolumes appends the volumes in added that the pod does not have yet.
func addVolumes(have, added []corev1.Volume) []corev1.Volume {
	for _, v := range added {
		if volumeNamed(have, v.Name) == nil {
			have = append(have, v)
		}
	}
	return have
}
