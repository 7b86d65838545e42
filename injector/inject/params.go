package inject

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/sidecar/config"
)

// DefaultCacheHostPath is the directory on the node with the cache directories of all pods,
// unless Params names another.
const DefaultCacheHostPath = "/var/lib/rockpool"

// Params are the settings of a cluster's administrator for all pods; annotations of a pod
// override some of them. The values must pass the Validate functions of this package. Callers
// call these themselves, so that an error can name the origin of the value.
type Params struct {
	// Version of the injector, written into the status annotation.
	Version string
	// Image that the prepare and sidecar containers run. Required.
	Image string
	// CanaryImage is what some pods get instead of Image: those of namespaces with the label
	// [LabelChannel], and CanaryPercent of all others. Empty: none.
	CanaryImage   string
	CanaryPercent int
	// ImagePullPolicy of the containers. Empty: [DefaultPullPolicy].
	ImagePullPolicy corev1.PullPolicy
	// ImagePullSecrets are names of Secrets, which pods get in addition to their own.
	ImagePullSecrets []string
	// Settings of the sidecars, by key, such as upstream.servers and log.level (see package
	// sidecar/config). They are the defaults of a pod, which its annotations and later changes
	// of the cluster's settings override.
	Settings map[string]string
	// IPv6 means that pods find their sidecar at ::1 instead of 127.0.0.1: the Service of the API
	// server has an IPv6 address, so pods may have no other.
	IPv6 bool
	// APINames of pods without the annotation. Empty: [APINamesAuto].
	APINames APINames
	// MetricsAddress of pods without the annotation. Empty: [MetricsLoopback].
	MetricsAddress MetricsAddress
	// CacheVolume of pods without the annotation. Empty: [CacheHostPath].
	CacheVolume CacheVolume
	// Stay of pods without the annotation. Empty: [StayDefault].
	Stay Stay
	// EvictionSeconds are the tolerationSeconds that the cluster gives to a pod by default; they are
	// replaced by a Stay. 0: [DefaultEvictionSeconds].
	EvictionSeconds int64
	// CacheHostPath is the directory on the node with the caches. Required.
	CacheHostPath string
	// SELinuxType is the type of the prepare and sidecar containers of pods with a hostPath cache.
	// Empty: the container runtime chooses one.
	SELinuxType string
	// Resources of the prepare and sidecar containers. A pod of Guaranteed QoS gets
	// requests equal to the limits, see [sidecarResources].
	Resources corev1.ResourceRequirements
}

// ValidateAPINames accepts auto, true and false.
func ValidateAPINames(choice APINames) error {
	if _, err := oneOf(choice, APINamesAuto, APINamesOn, APINamesOff); err != nil {
		return fmt.Errorf("%q is not %s, %s or %s", choice, APINamesAuto, APINamesOn, APINamesOff)
	}
	return nil
}

// ValidateMetricsAddress accepts loopback and pod.
func ValidateMetricsAddress(at MetricsAddress) error {
	if _, err := oneOf(at, MetricsLoopback, MetricsPod); err != nil {
		return fmt.Errorf("%q is not %s or %s", at, MetricsLoopback, MetricsPod)
	}
	return nil
}

// ValidateCacheVolume accepts the kinds of cache volume.
func ValidateCacheVolume(kind CacheVolume) error {
	if _, err := oneOf(kind, CacheHostPath, CacheEmptyDir); err != nil {
		return fmt.Errorf("%q is not %s or %s", kind, CacheHostPath, CacheEmptyDir)
	}
	return nil
}

// ValidateCacheHostPath accepts an absolute, clean path below the root.
func ValidateCacheHostPath(hostPath string) error {
	if hostPath == "/" || !path.IsAbs(hostPath) || path.Clean(hostPath) != hostPath {
		return fmt.Errorf("%q is not an absolute path below / without . and .., like %s", hostPath, DefaultCacheHostPath)
	}
	return nil
}

// selinuxType is the form of a type in the policies of distributions.
var selinuxType = regexp.MustCompile(`^[a-z][a-z0-9_]{0,100}_t$`)

// ValidateSELinuxType accepts the name of an SELinux type.
func ValidateSELinuxType(name string) error {
	if !selinuxType.MatchString(name) {
		return fmt.Errorf("%q is not an SELinux type, like spc_t", name)
	}
	return nil
}

// ValidateResources rejects values that the API server would reject in every pod: a negative
// quantity, or a request above its limit.
func ValidateResources(resources corev1.ResourceRequirements) error {
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, limit := resources.Requests[name], resources.Limits[name]
		if request.Sign() < 0 || limit.Sign() < 0 {
			return fmt.Errorf("%s: a negative quantity", name)
		}
		if !limit.IsZero() && request.Cmp(limit) > 0 {
			return fmt.Errorf("%s: the request %s is above the limit %s", name, request.String(), limit.String())
		}
	}
	return nil
}

// ValidateUpstreams accepts the values of upstream.servers with at least one server.
func ValidateUpstreams(list string) error {
	if strings.Trim(list, " ,") == "" {
		return errors.New("no URL is given")
	}
	keys := config.Keys()
	i := slices.IndexFunc(keys, func(k config.Key) bool { return k.Name == "upstream.servers" })
	return keys[i].Check(strings.TrimSpace(list))
}
