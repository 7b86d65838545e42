package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"rockpool.dev/sidecar/config"
)

// Volumes that are added to a pod.
const (
	// VolumeCache holds what the sidecar has recorded.
	VolumeCache = "rockpool-cache"
	// VolumePrivate holds the pod's own CA and keys, mounted in the sidecar only.
	VolumePrivate = "rockpool-private"
	// VolumeAccount holds the service-account directory that the application sees.
	VolumeAccount = "rockpool-account"
	// VolumeConfig holds what may change while the sidecar runs: the settings that the
	// injector keeps in the namespace ([ConfigMapName]), and the pod's annotations.
	VolumeConfig = "rockpool-config"
	// VolumeToken is the original service-account volume of a template, which has none. By
	// the prefix the ServiceAccount admission plugin takes it for its own.
	VolumeToken = "kube-api-access-rockpool"
)

// ConfigMapName is the ConfigMap with the settings of all sidecars of a namespace, of which
// each has the key config.FileName. Pods do not need it.
const ConfigMapName = "rockpool-sidecar"

// ownVolume tells whether a volume of this name is one of ours.
func ownVolume(name string) bool {
	return name == VolumeCache || name == VolumePrivate || name == VolumeAccount || name == VolumeConfig || name == VolumeToken
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
		configVolume(),
	}
}

// configVolume is one volume, so that the sidecar sees both change in one directory. The
// kubelet writes it anew when the ConfigMap or the annotations have changed.
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

func memory(limit string) corev1.VolumeSource {
	return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
		Medium:    corev1.StorageMediumMemory,
		SizeLimit: ptr.To(resource.MustParse(limit)),
	}}
}

// tokenVolume is what the ServiceAccount admission plugin would add.
func tokenVolume() corev1.Volume {
	return corev1.Volume{Name: VolumeToken, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			// An hour and 7 seconds: by this number the API server knows that it is no choice of
			// the author's, and accepts the token longer, for clients that never read it again.
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

// cacheVolumeOf returns what kind of cache volume the pod has, or "".
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

// addVolumes appends those of added that the pod does not have yet.
func addVolumes(have, added []corev1.Volume) []corev1.Volume {
	for _, v := range added {
		if volumeNamed(have, v.Name) == nil {
			have = append(have, v)
		}
	}
	return have
}
