package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// AnnotationPrefix begins every annotation of Rockpool. A key with this prefix that is not in
// the list below is an error: otherwise a misspelt key would be ignored silently.
const AnnotationPrefix = "rockpool.dev/"

// Annotations of a pod.
const (
	// AnnotationInject asks for Rockpool ("true") or declines it ("false").
	AnnotationInject = AnnotationPrefix + "inject"
	// AnnotationCacheVolume chooses the kind of the cache volume, see [CacheVolume].
	AnnotationCacheVolume = AnnotationPrefix + "cache-volume"
	// AnnotationCacheSize limits the disk space of the recordings.
	AnnotationCacheSize = AnnotationPrefix + "cache-size"
	// AnnotationCacheMemorySize limits the memory of those recordings that are not on the disk.
	AnnotationCacheMemorySize = AnnotationPrefix + "cache-memory-size"
	// AnnotationCacheWriteBudget limits what is written to the disk in a day.
	AnnotationCacheWriteBudget = AnnotationPrefix + "cache-write-budget"
	// AnnotationCacheAgents selects the clients whose reads are recorded.
	AnnotationCacheAgents = AnnotationPrefix + "cache-agents"
	// AnnotationCacheExclude names resources that are never recorded.
	AnnotationCacheExclude = AnnotationPrefix + "cache-exclude"
	// AnnotationUpstreams lists the URLs at which this pod reaches the API server.
	AnnotationUpstreams = AnnotationPrefix + "upstreams"
	// AnnotationPort is the sidecar's port on the pod's loopback interface; its metrics are on
	// the next port. A pod in the node's network must have this annotation.
	AnnotationPort = AnnotationPrefix + "port"
	// AnnotationAPINames chooses whether the sidecar also answers at the names of the API server's
	// Service, and at port 443, see [APINames].
	AnnotationAPINames = AnnotationPrefix + "api-names"
	// AnnotationMetricsAddress chooses where the sidecar's metrics are, see [MetricsAddress].
	AnnotationMetricsAddress = AnnotationPrefix + "metrics-address"
	// AnnotationExcludeContainers names containers that the injector leaves alone.
	AnnotationExcludeContainers = AnnotationPrefix + "exclude-containers"
	// AnnotationOfflineEvents queues Events written while the link is down ("true").
	AnnotationOfflineEvents = AnnotationPrefix + "offline-events"
	// AnnotationOfflineLeases renews held Leases while the link is down ("true").
	AnnotationOfflineLeases = AnnotationPrefix + "offline-leases"
	// AnnotationOfflineElectionAnnotations renews held locks in annotations likewise ("true").
	AnnotationOfflineElectionAnnotations = AnnotationPrefix + "offline-election-annotations"
	// AnnotationOfflineTokens gives issued tokens again while the link is down ("true").
	AnnotationOfflineTokens = AnnotationPrefix + "offline-tokens"
	// AnnotationOfflineWritePatience is how long a write waits for a link that flaps ("2s").
	AnnotationOfflineWritePatience = AnnotationPrefix + "offline-write-patience"
	// AnnotationOnlineReads chooses whether lists are answered from the cache while the link is up
	// ("pass" or "save").
	AnnotationOnlineReads = AnnotationPrefix + "online-reads"
	// AnnotationStay is how long the pod stays on a node that the control plane cannot reach, see
	// [Stay].
	AnnotationStay = AnnotationPrefix + "stay"
	// AnnotationFilters adds response filters for all clients of the pod, or takes them away.
	AnnotationFilters = AnnotationPrefix + "filters"
	// AnnotationPool and AnnotationZone say where the pod's node is, for filters.
	AnnotationPool = AnnotationPrefix + "pool"
	AnnotationZone = AnnotationPrefix + "zone"
	// AnnotationReport says how the API server is told of an outage ("events,condition").
	AnnotationReport = AnnotationPrefix + "report"
	// AnnotationLogLevel is the log level of the sidecar.
	AnnotationLogLevel = AnnotationPrefix + "log-level"
	// Annotations that replace parts of [Params.Resources] for this pod.
	AnnotationCPURequest    = AnnotationPrefix + "cpu-request"
	AnnotationCPULimit      = AnnotationPrefix + "cpu-limit"
	AnnotationMemoryRequest = AnnotationPrefix + "memory-request"
	AnnotationMemoryLimit   = AnnotationPrefix + "memory-limit"
	// AnnotationImage replaces [Params.Image] for this pod.
	AnnotationImage = AnnotationPrefix + "image"
	// AnnotationStatus is written by the injector, see [Status]. It is not a setting.
	AnnotationStatus = AnnotationPrefix + "status"
)

// CacheVolume is the kind of volume for the recordings.
type CacheVolume string

// The cache volumes.
const (
	// CacheHostPath survives the pod and restarts of the node. It is the default.
	CacheHostPath CacheVolume = "hostPath"
	// CacheEmptyDir survives restarts of containers, but ends with the pod. It needs no prepare
	// container, and is allowed where Pod Security forbids hostPath.
	CacheEmptyDir CacheVolume = "emptyDir"
)

// APINames is whether the sidecar also answers where programs look for the API server that do not
// read KUBERNETES_SERVICE_PORT: at the names of its Service, such as kubernetes.default.svc, and at
// port 443.
type APINames string

// The values of APINames.
const (
	// APINamesAuto: if a container is seen to need it, and nothing speaks against it.
	APINamesAuto APINames = "auto"
	// APINamesOn: unless a container needs port 443, or the pod uses the node's network.
	APINamesOn  APINames = "true"
	APINamesOff APINames = "false"
)

// MetricsAddress is where the sidecar's metrics are.
type MetricsAddress string

// The values of MetricsAddress.
const (
	// MetricsLoopback: only programs of the pod, and kubectl port-forward, reach them. It is the
	// default.
	MetricsLoopback MetricsAddress = "loopback"
	// MetricsPod: at the pod's addresses. A pod in the node's network must ask for that itself.
	MetricsPod MetricsAddress = "pod"
)

// Annotations are the annotations for the injector, each field named after its annotation. The
// zero value of a field means that the annotation is absent. The injector only checks the
// other annotations: the sidecar reads them itself, whenever they change.
type Annotations struct {
	Inject            bool
	CacheVolume       CacheVolume
	CacheSize         string
	CacheMemorySize   string
	Port              int32
	APINames          APINames
	MetricsAddress    MetricsAddress
	ExcludeContainers []string
	Stay              Stay
	Resources         corev1.ResourceRequirements
	Image             string
}

// AnnotationError says which annotation is wrong, and what it may be.
type AnnotationError struct {
	Annotation string
	Problem    string
	Allowed    string
}

func (e *AnnotationError) Error() string {
	return fmt.Sprintf("%s: %s (allowed: %s)", e.Annotation, e.Problem, e.Allowed)
}

// AnnotationErrors are all invalid annotations of a pod, in alphabetical order.
type AnnotationErrors []*AnnotationError

// Error is one line: it becomes part of the message of a controller's event.
func (e AnnotationErrors) Error() string {
	texts := make([]string, len(e))
	for i, one := range e {
		texts[i] = one.Error()
	}
	return strings.Join(texts, "; ")
}

// ParseAnnotations reads the rockpool.dev/ annotations among those of a pod. The error is
// of type [AnnotationErrors].
func ParseAnnotations(all map[string]string) (Annotations, error) {
	var parsed Annotations
	var errs AnnotationErrors
	for _, key := range rockpoolKeys(all) {
		if key == AnnotationStatus {
			continue
		}
		i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key })
		if i < 0 {
			errs = append(errs, &AnnotationError{Annotation: key, Problem: "unknown annotation", Allowed: knownKeys()})
			continue
		}
		if err := settings[i].read(&parsed, all[key]); err != nil {
			errs = append(errs, &AnnotationError{Annotation: key, Problem: err.Error(), Allowed: settings[i].allowed})
		}
	}
	if len(errs) > 0 {
		return Annotations{}, errs
	}
	return parsed, nil
}

// Requested reports whether a pod with these annotations needs a decision. Either the pod asks
// for Rockpool, perhaps with an invalid value; or its namespace or a command does (asked), and
// the pod does not decline. The webhook configuration's matchConditions are the same in CEL.
func Requested(all map[string]string, asked bool) bool {
	value, ok := all[AnnotationInject]
	if !ok {
		return asked
	}
	return value != "false"
}

func rockpoolKeys(all map[string]string) []string {
	var keys []string
	for key := range all {
		if strings.HasPrefix(key, AnnotationPrefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func knownKeys() string {
	keys := make([]string, len(settings))
	for i, s := range settings {
		keys[i] = s.key
	}
	return strings.Join(keys, ", ")
}
