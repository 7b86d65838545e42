package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"rockpool.dev/injector/certificate"
	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/settings"
)

// envPrefix starts the environment variables that stand for flags. Variables that only
// begin like that are not errors: for a Service named rockpool-injector, the kubelet
// sets ROCKPOOL_INJECTOR_PORT and the like.
const envPrefix = "ROCKPOOL_INJECTOR_"

// options are the flags of serve.
type options struct {
	sidecarOptions
	listen, metricsListen        string
	certFile, keyFile            string
	kubeconfig                   string
	objects                      certificate.ObjectNames
	configMap                    string
	logLevel, logFormat          string
	shutdownDelay, shutdownGrace time.Duration
}

// sidecarOptions are the flags about what goes into pods.
type sidecarOptions struct {
	image                      string
	upstreams                  []string
	cacheVolume, cacheHostPath string
	cpuRequest, cpuLimit       string
	memoryRequest, memoryLimit string
}

func (o *options) addTo(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.StringVar(&o.listen, "listen", ":8443", "address of the webhook, HTTPS")
	flags.StringVar(&o.certFile, "tls-cert-file", "", "serving certificate chain, PEM; read again when it changes. Empty: the injector makes\nCA and certificate itself, and keeps them in --tls-secret")
	flags.StringVar(&o.keyFile, "tls-key-file", "", "private key of the certificate, PEM; read again when it changes")
	flags.StringVar(&o.objects.Secret, "tls-secret", "rockpool-injector-certificate", "Secret with CA and certificate; it is made, and renewed, by any replica")
	flags.StringVar(&o.objects.Namespace, "namespace", "rockpool-system", "namespace of that Secret, of the Service and of --config-map")
	flags.StringVar(&o.objects.Service, "service", "rockpool-injector", "Service that API servers call the webhook by")
	flags.StringVar(&o.objects.Configuration, "webhook-configuration", "rockpool", "MutatingWebhookConfiguration that gets the CA")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server; empty: as the pod's service account, or not at all without a token")
	flags.StringVar(&o.configMap, "config-map", settings.DefaultName, "ConfigMap in --namespace with what holds for all pods, instead of the flags from --sidecar-image to\n--sidecar-memory-limit where it has a value; followed at run time. Empty: none")
	o.sidecarOptions.addTo(flags)
	flags.StringVar(&o.metricsListen, "metrics-listen", ":8080", "address of /metrics and /healthz, HTTP; empty for none. /readyz is at --listen")
	flags.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&o.logFormat, "log-format", "json", "json or console")
	flags.DurationVar(&o.shutdownDelay, "shutdown-delay", 5*time.Second, "on SIGTERM, how long to go on serving, no longer ready, until API servers look elsewhere")
	flags.DurationVar(&o.shutdownGrace, "shutdown-grace", 10*time.Second, "after that, how long reviews under way may take to end")
}

func (o *sidecarOptions) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&o.image, "sidecar-image", "", "image that injected containers run (required, for serve here or in --config-map)")
	flags.StringSliceVar(&o.upstreams, "upstream", nil, "https URL at which pods reach the API server from the edge; several, repeated or separated\nby commas, are tried in order, and the in-cluster address after them")
	flags.StringVar(&o.cacheVolume, "cache-volume", string(inject.CacheHostPath), "kind of volume for the cache of pods without the annotation: hostPath or emptyDir")
	flags.StringVar(&o.cacheHostPath, "cache-host-path", inject.DefaultCacheHostPath, "directory on each node that holds the caches")
	flags.StringVar(&o.cpuRequest, "sidecar-cpu-request", "20m", "CPU request of injected containers; empty for none")
	flags.StringVar(&o.cpuLimit, "sidecar-cpu-limit", "", "CPU limit of injected containers; empty for none (in pods of Guaranteed QoS: the request,\n100m at least)")
	flags.StringVar(&o.memoryRequest, "sidecar-memory-request", "48Mi", "memory request of injected containers; empty for none")
	flags.StringVar(&o.memoryLimit, "sidecar-memory-limit", "192Mi", "memory limit of injected containers; empty for none")
}

// setFromEnv gives each flag that is not on the command line the value of its variable,
// --log-level that of ROCKPOOL_INJECTOR_LOG_LEVEL. An empty variable counts as not set.
func setFromEnv(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := envName(f.Name)
		value := os.Getenv(name)
		if f.Changed || value == "" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
		}
	})
	return errors.Join(errs...)
}

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// params validates what goes into pods; the image may be left to somebody else. Its errors
// name the flags.
func (o *sidecarOptions) params(needImage bool) (inject.Params, error) {
	var errs []error
	check := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	if needImage || o.image != "" {
		check("sidecar-image", inject.ValidateImage(o.image))
	}
	if len(o.upstreams) > 0 {
		check("upstream", inject.ValidateUpstreams(strings.Join(o.upstreams, ",")))
	}
	check("cache-volume", inject.ValidateCacheVolume(inject.CacheVolume(o.cacheVolume)))
	check("cache-host-path", inject.ValidateCacheHostPath(o.cacheHostPath))
	resources := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	for _, q := range []struct {
		flag, value string
		list        corev1.ResourceList
		name        corev1.ResourceName
	}{
		{"sidecar-cpu-request", o.cpuRequest, resources.Requests, corev1.ResourceCPU},
		{"sidecar-cpu-limit", o.cpuLimit, resources.Limits, corev1.ResourceCPU},
		{"sidecar-memory-request", o.memoryRequest, resources.Requests, corev1.ResourceMemory},
		{"sidecar-memory-limit", o.memoryLimit, resources.Limits, corev1.ResourceMemory},
	} {
		if q.value == "" {
			continue
		}
		quantity, err := resource.ParseQuantity(q.value)
		if err != nil {
			check(q.flag, fmt.Errorf("%q is not a quantity, like 20m or 48Mi", q.value))
			continue
		}
		q.list[q.name] = quantity
	}
	if err := inject.ValidateResources(resources); err != nil {
		errs = append(errs, fmt.Errorf("--sidecar-*-request, --sidecar-*-limit: %w", err))
	}
	defaults := map[string]string{}
	if len(o.upstreams) > 0 {
		defaults["upstream.servers"] = strings.Join(o.upstreams, ",")
	}
	return inject.Params{
		Version: buildVersion(), Image: o.image, Settings: defaults,
		CacheVolume: inject.CacheVolume(o.cacheVolume), CacheHostPath: o.cacheHostPath, Resources: resources,
	}, errors.Join(errs...)
}

func (o *options) logger() (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(o.logLevel)
	if err != nil {
		return nil, fmt.Errorf("--log-level: %q is not debug, info, warn or error", o.logLevel)
	}
	config := zap.NewProductionConfig()
	switch o.logFormat {
	case "json":
	case "console":
		config.Encoding = "console"
	default:
		return nil, fmt.Errorf("--log-format: %q is not json or console", o.logFormat)
	}
	config.Level = zap.NewAtomicLevelAt(level)
	config.EncoderConfig.TimeKey, config.EncoderConfig.EncodeTime = "time", zapcore.ISO8601TimeEncoder
	config.Sampling = nil
	return config.Build()
}
