package inject

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	// defaultCacheSize is the default of the sidecar's cache.max-size.
	defaultCacheSize = "256Mi"
	// defaultMemorySize is the highest default of the sidecar's cache.memory-max-size.
	defaultMemorySize = "64Mi"
	// logSize is the space for the logs of one container. By default the kubelet keeps five files
	// of 10Mi (containerLogMaxFiles, containerLogMaxSize).
	logSize = "64Mi"
)

// recordingsSize is the space that recordings with this limit may take: twice the limit while a
// list replaces another, and a few MiB for the log of the database. The limit is valid; empty
// means the given default.
func recordingsSize(limit, byDefault string) resource.Quantity {
	size := resource.MustParse(cmp.Or(limit, byDefault))
	size.Add(size)
	size.Add(resource.MustParse("16Mi"))
	return size
}

// addStorage adds ephemeral storage to the resources of our containers, if the pod's containers
// have requests or limits of it: these then cover an emptyDir cache, and our logs.
//
// The kubelet evicts a pod that uses more than the sum of its containers' limits, emptyDir volumes
// and logs included. So without a limit of ours the cache would use up the application's. In a pod
// without any, a limit of ours would be the whole pod's.
func addStorage(resources *corev1.ResourceRequirements, spec *corev1.PodSpec, kind CacheVolume, cacheSize string) {
	requested, limited := false, false
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		if ownContainer(c.Name) {
			continue
		}
		_, request := c.Resources.Requests[corev1.ResourceEphemeralStorage]
		_, limit := c.Resources.Limits[corev1.ResourceEphemeralStorage]
		requested, limited = requested || request || limit, limited || limit
	}
	request, limit := resource.MustParse(logSize), resource.MustParse(logSize)
	if kind == CacheEmptyDir {
		request.Add(resource.MustParse(cmp.Or(cacheSize, defaultCacheSize)))
		limit.Add(recordingsSize(cacheSize, defaultCacheSize))
	}
	if requested {
		set(&resources.Requests, corev1.ResourceEphemeralStorage, request)
	}
	if limited {
		set(&resources.Limits, corev1.ResourceEphemeralStorage, limit)
	}
}
