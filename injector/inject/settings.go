package inject

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/exclude"
	"rockpool.dev/sidecar/api/filters"
	"rockpool.dev/sidecar/config"
)

// setting is one annotation: its key, the allowed values in words, and the function that reads it.
type setting struct {
	key     string
	allowed string
	read    func(*Annotations, string) error
}

// settings lists every annotation that a person may set.
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
	{AnnotationCacheSize, "a quantity from 4Mi to 1Pi, like 256Mi", func(a *Annotations, value string) error {
		a.CacheSize = value
		return validateCacheSize(value)
	}},
	{AnnotationCacheMemorySize, "a quantity from 4Mi to 1Pi, like 32Mi", func(a *Annotations, value string) error {
		a.CacheMemorySize = value
		return validateCacheSize(value)
	}},
	{AnnotationCacheWriteBudget, "a quantity from 4Mi to 1Pi, like 100Mi", func(_ *Annotations, value string) error {
		return validateCacheSize(value)
	}},
	{AnnotationCacheAgents, "names of User-Agents separated by commas, with wildcards, ! before an exception", func(_ *Annotations, value string) error {
		if strings.Trim(value, " ,") == "" {
			return errors.New("no name is given")
		}
		_, err := agent.Parse(value)
		return onOneLine(err)
	}},
	{AnnotationCacheExclude, "resources separated by commas, like configmaps, *.cert-manager.io, payments/*", func(_ *Annotations, value string) error {
		_, err := exclude.Parse(value)
		return onOneLine(err)
	}},
	{AnnotationUpstreams, "https URLs separated by commas, tried in order", func(_ *Annotations, value string) error {
		return ValidateUpstreams(value)
	}},
	{AnnotationPort, "a port from 1024 to 65534", func(a *Annotations, value string) error {
		port, err := strconv.ParseInt(value, 10, 32)
		// The sidecar is not root, and needs the next port as well. The number must have its
		// usual form, because the policy rockpool-injected-pods compares the text.
		if err != nil || port < 1024 || port > 65534 || strconv.FormatInt(port, 10) != value {
			return fmt.Errorf("%q is not such a port", value)
		}
		a.Port = int32(port)
		return nil
	}},
	{AnnotationAPINames, "auto, true, false", func(a *Annotations, value string) error {
		a.APINames = APINames(value)
		return ValidateAPINames(a.APINames)
	}},
	{AnnotationMetricsAddress, "loopback, pod", func(a *Annotations, value string) error {
		a.MetricsAddress = MetricsAddress(value)
		return ValidateMetricsAddress(a.MetricsAddress)
	}},
	{AnnotationExcludeContainers, "names of containers separated by commas", func(a *Annotations, value string) error {
		for _, name := range splitList(value) {
			if len(validation.IsDNS1123Label(name)) > 0 || ownContainer(name) {
				return fmt.Errorf("%q is not the name of a container of yours", name)
			}
			a.ExcludeContainers = append(a.ExcludeContainers, name)
		}
		return nil
	}},
	{AnnotationOfflineEvents, "true, false", checkBoolean},
	{AnnotationOfflineLeases, "true, false", checkBoolean},
	{AnnotationOfflineElectionAnnotations, "true, false", checkBoolean},
	{AnnotationOfflineTokens, "true, false", checkBoolean},
	{AnnotationOfflineWritePatience, "a duration from 0s to 30s, like 2s", func(_ *Annotations, value string) error {
		if patience, err := time.ParseDuration(value); err != nil || patience < 0 || patience > 30*time.Second {
			return fmt.Errorf("%q is not such a duration", value)
		}
		return nil
	}},
	{AnnotationOnlineReads, "pass, save", func(_ *Annotations, value string) error {
		_, err := oneOf(value, "pass", "save")
		return err
	}},
	{AnnotationStay, "forever, default, or a duration like 24h", func(a *Annotations, value string) error {
		a.Stay = Stay(value)
		return ValidateStay(a.Stay)
	}},
	{AnnotationFilters, "names of filters separated by commas, - before one that is taken away", func(_ *Annotations, value string) error {
		if strings.TrimSpace(value) == "" {
			return errors.New("no filter is named")
		}
		_, err := filters.ParseChoice(value)
		return onOneLine(err)
	}},
	{AnnotationPool, "the value of a label", func(_ *Annotations, value string) error {
		return filters.CheckLabelValue(value)
	}},
	{AnnotationZone, "the value of a label", func(_ *Annotations, value string) error {
		return filters.CheckLabelValue(value)
	}},
	{AnnotationReport, "none, events, condition, or events,condition", func(_ *Annotations, value string) error {
		_, err := config.ParseReport(value)
		return err
	}},
	{AnnotationLogLevel, "debug, info, warn, error", func(_ *Annotations, value string) error {
		_, err := oneOf(value, "debug", "info", "warn", "error")
		return err
	}},
	{AnnotationCPURequest, allowedQuantity, func(a *Annotations, value string) error {
		return setQuantity(&a.Resources.Requests, corev1.ResourceCPU, value)
	}},
	{AnnotationCPULimit, allowedQuantity, func(a *Annotations, value string) error {
		return setQuantity(&a.Resources.Limits, corev1.ResourceCPU, value)
	}},
	{AnnotationMemoryRequest, allowedQuantity, func(a *Annotations, value string) error {
		return setQuantity(&a.Resources.Requests, corev1.ResourceMemory, value)
	}},
	{AnnotationMemoryLimit, allowedQuantity, func(a *Annotations, value string) error {
		return setQuantity(&a.Resources.Limits, corev1.ResourceMemory, value)
	}},
	{AnnotationImage, "an image reference", func(a *Annotations, value string) error {
		a.Image = value
		return ValidateImage(value)
	}},
}

func oneOf[T ~string](value T, allowed ...T) (T, error) {
	if !slices.Contains(allowed, value) {
		return "", fmt.Errorf("unknown value %q", string(value))
	}
	return value, nil
}

func splitList(value string) []string {
	parts := strings.Split(value, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// onOneLine joins the lines of an error of errors.Join.
func onOneLine(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
}

// validateCacheSize checks for the range of the sidecar's cache.max-size, cache.memory-max-size and
// cache.write-budget.
func validateCacheSize(value string) error {
	q, err := resource.ParseQuantity(value)
	if err != nil || strings.HasSuffix(value, "m") {
		return fmt.Errorf("%q is not a quantity of bytes", value)
	}
	if q.CmpInt64(4<<20) < 0 || q.CmpInt64(1<<50) > 0 {
		return fmt.Errorf("%q is out of range", value)
	}
	return nil
}

const allowedQuantity = "a quantity above zero, like 50m or 64Mi"

func setQuantity(list *corev1.ResourceList, name corev1.ResourceName, value string) error {
	q, err := resource.ParseQuantity(value)
	if err != nil || q.Sign() <= 0 {
		return fmt.Errorf("%q is not such a quantity", value)
	}
	set(list, name, q)
	return nil
}

func checkBoolean(_ *Annotations, value string) error {
	_, err := oneOf(value, "true", "false")
	return err
}
