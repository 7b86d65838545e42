package inject

import (
	"fmt"
	"slices"
	"strings"
)

// AnnotationPrefix starts every annotation of Rockpool. A key with this prefix that is
// not in the list below is an error: a misspelt one would otherwise be ignored silently.
const AnnotationPrefix = "rockpool.dev/"

// Annotations of a pod.
const (
	// AnnotationInject asks for Rockpool ("true") or declines it ("false").
	AnnotationInject = AnnotationPrefix + "inject"
	// AnnotationCacheVolume chooses where the cache lives, see [CacheVolume].
	AnnotationCacheVolume = AnnotationPrefix + "cache-volume"
	// AnnotationUpstreams replaces [Params.Upstreams] for this pod.
	AnnotationUpstreams = AnnotationPrefix + "upstreams"
	// AnnotationImage replaces [Params.Image] for this pod.
	AnnotationImage = AnnotationPrefix + "image"
	// AnnotationLogLevel is the log level of the sidecar.
	AnnotationLogLevel = AnnotationPrefix + "log-level"
	// AnnotationOfflineEvents has Events accepted while the link is down ("true").
	AnnotationOfflineEvents = AnnotationPrefix + "offline-events"
	// AnnotationOfflineLeases has held Leases renewed while the link is down ("true").
	AnnotationOfflineLeases = AnnotationPrefix + "offline-leases"
	// AnnotationStatus is written by the injector, see [Status]; never read as a wish.
	AnnotationStatus = AnnotationPrefix + "status"
)

// CacheVolume is the kind of volume that holds the recorded data.
type CacheVolume string

// The cache volumes.
const (
	// CacheHostPath survives the pod and the node's restarts. The default.
	CacheHostPath CacheVolume = "hostPath"
	// CacheEmptyDir survives restarts of containers, not of the pod. It needs no
	// prepare container and is allowed where Pod Security forbids hostPath.
	CacheEmptyDir CacheVolume = "emptyDir"
)

// Annotations is what a pod asks for, each field after its annotation. The zero value
// of a field means that the annotation is absent.
type Annotations struct {
	Inject        bool
	CacheVolume   CacheVolume
	Upstreams     []string
	Image         string
	LogLevel      string
	OfflineEvents string // "true" or "false"
	OfflineLeases string // likewise
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

// AnnotationErrors are all wrong annotations of a pod, in alphabetical order.
type AnnotationErrors []*AnnotationError

// Error puts them on one line: it ends up in the message of a controller's event.
func (e AnnotationErrors) Error() string {
	texts := make([]string, len(e))
	for i, one := range e {
		texts[i] = one.Error()
	}
	return strings.Join(texts, "; ")
}

// setting is one annotation: its key, its values in words, and how it is read.
type setting struct {
	key     string
	allowed string
	read    func(*Annotations, string) error
}

// settings has every annotation that a person may set. A new one is a new row.
var settings = []setting{
	{AnnotationInject, "true, false", func(a *Annotations, value string) error {
		choice, err := oneOf(value, "true", "false")
		a.Inject = choice == "true"
		return err
	}},
	{AnnotationCacheVolume, "hostPath, emptyDir", func(a *Annotations, value string) (err error) {
		a.CacheVolume, err = oneOf(CacheVolume(value), CacheHostPath, CacheEmptyDir)
		return err
	}},
	{AnnotationUpstreams, "https URLs separated by commas, tried in order", func(a *Annotations, value string) error {
		for address := range strings.SplitSeq(value, ",") {
			address = strings.TrimSpace(address)
			if err := ValidateUpstream(address); err != nil {
				return err
			}
			a.Upstreams = append(a.Upstreams, address)
		}
		return nil
	}},
	{AnnotationImage, "an image reference", func(a *Annotations, value string) error {
		a.Image = value
		return ValidateImage(value)
	}},
	{AnnotationLogLevel, "debug, info, warn, error", func(a *Annotations, value string) (err error) {
		a.LogLevel, err = oneOf(value, "debug", "info", "warn", "error")
		return err
	}},
	{AnnotationOfflineEvents, "true, false", func(a *Annotations, value string) (err error) {
		a.OfflineEvents, err = oneOf(value, "true", "false")
		return err
	}},
	{AnnotationOfflineLeases, "true, false", func(a *Annotations, value string) (err error) {
		a.OfflineLeases, err = oneOf(value, "true", "false")
		return err
	}},
}

// ParseAnnotations reads the rockpool.dev/ annotations among those of a pod. The error is
// of type [AnnotationErrors].
func ParseAnnotations(all map[string]string) (Annotations, error) {
	var parsed Annotations
	var errs AnnotationErrors
	for _, key := range ownKeys(all) {
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

// Requested tells whether a pod with these annotations has to be looked at: it has
// asked for Rockpool, or tried to with a value that is neither "true" nor "false".
// The webhook configuration's matchConditions say the same in CEL.
func Requested(all map[string]string) bool {
	value, ok := all[AnnotationInject]
	return ok && value != "false"
}

func ownKeys(all map[string]string) []string {
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

func oneOf[T ~string](value T, allowed ...T) (T, error) {
	if !slices.Contains(allowed, value) {
		return "", fmt.Errorf("unknown value %q", string(value))
	}
	return value, nil
}
