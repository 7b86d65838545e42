package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
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

// envPrefix begins the names of the environment variables for flags. Unknown variables with the
// prefix are not errors: for a Service named rockpool-injector, the kubelet sets
// ROCKPOOL_INJECTOR_PORT and the like.
const envPrefix = "ROCKPOOL_INJECTOR_"

// options are the flags of serve.
type options struct {
	sidecarOptions
	listen, metricsListen        string
	certFile, keyFile            string
	clientCAFile                 string
	clientNames                  []string
	excluded                     []string
	copySecrets                  bool
	kubeconfig                   string
	objects                      certificate.ObjectNames
	configMap                    string
	logLevel, logFormat          string
	shutdownDelay, shutdownGrace time.Duration
}

// sidecarOptions are the flags about the additions to pods.
type sidecarOptions struct {
	image, pullPolicy          string
	pullSecrets                []string
	upstreams                  []string
	apiNames                   string
	ipv6                       bool
	cacheVolume, cacheHostPath string
	stay                       string
	evictionSeconds            int64
	selinuxType                string
	cpuRequest, cpuLimit       string
	memoryRequest, memoryLimit string
}

func (o *options) addTo(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.StringVar(&o.listen, "listen", ":8443", "`address` of the HTTPS listener for the webhook and /readyz")
	flags.StringVar(&o.certFile, "tls-cert-file", "", "`path` of the serving certificate chain, PEM; reloaded when it changes. Empty: the injector\nmakes CA and certificate itself, and stores them in --tls-secret")
	flags.StringVar(&o.keyFile, "tls-key-file", "", "`path` of the certificate's private key, PEM; reloaded when it changes")
	flags.StringVar(&o.clientCAFile, "client-ca-file", "", "`path` of the CAs, PEM, of the certificates by which API servers prove who they are; read at the start.\nEmpty: everybody who reaches the port may send reviews")
	flags.StringSliceVar(&o.clientNames, "client-names", nil, "common or DNS `names` of API servers' certificates; empty: all of --client-ca-file")
	flags.StringSliceVar(&o.excluded, "excluded-namespaces", inject.ExcludedNamespaces, "`names` of the namespaces about which API servers send no reviews; reviews about them are refused")
	flags.StringVar(&o.objects.Secret, "tls-secret", "rockpool-injector-certificate", "`name` of the Secret for CA and certificate; the replicas create and renew it")
	flags.StringVar(&o.objects.Namespace, "namespace", "rockpool-system", "`name` of the namespace with --tls-secret, --service and --config-map")
	flags.StringVar(&o.objects.Service, "service", "rockpool-injector", "`name` of the webhook's Service, which API servers call")
	flags.StringVar(&o.objects.Configuration, "webhook-configuration", "rockpool", "`name` of the MutatingWebhookConfiguration that gets the CA")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "`path` of a kubeconfig for the API server. Empty: the pod's service account; without a token,\nthe injector does not call the API server")
	flags.StringVar(&o.configMap, "config-map", settings.DefaultName, "`name` of the ConfigMap with the settings for all pods; changes take effect at run time. Its values\noverride --upstream, --cache-* and --sidecar-*. Empty: none")
	flags.BoolVar(&o.copySecrets, "copy-pull-secrets", false, "copy the image pull secrets that --config-map names from --namespace to the namespaces of injected pods;\nneeds rights on these Secrets, see the component pull-secrets of the manifests")
	o.sidecarOptions.addTo(flags)
	flags.StringVar(&o.metricsListen, "metrics-listen", ":8080", "`address` of the HTTP listener for /metrics and /healthz; empty: none")
	flags.StringVar(&o.logLevel, "log-level", "info", "lowest `level` to log: debug, info, warn or error")
	flags.StringVar(&o.logFormat, "log-format", "json", "`format` of log lines: json or console")
	flags.DurationVar(&o.shutdownDelay, "shutdown-delay", 5*time.Second, "how long to serve after SIGTERM, while /readyz fails, so that API servers choose another replica")
	flags.DurationVar(&o.shutdownGrace, "shutdown-grace", 10*time.Second, "how long reviews in progress may take after the delay")
}

func (o *sidecarOptions) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&o.image, "sidecar-image", "", "`image` of the injected containers. Required; serve can also take it from --config-map")
	flags.StringVar(&o.pullPolicy, "sidecar-image-pull-policy", string(inject.DefaultPullPolicy), "`policy` of injected containers: IfNotPresent, Always or Never; with Always, a sidecar that ends while\nthe registry cannot be reached does not start again")
	flags.StringSliceVar(&o.pullSecrets, "sidecar-image-pull-secret", nil, "`names` of Secrets in the pod's namespace for the registry of the image, added to the pod's own;\nseparated by commas or in repeated flags")
	flags.StringSliceVar(&o.upstreams, "upstream", nil, "https `URLs` at which pods at the edge reach the API server, separated by commas or in repeated\nflags; tried in order, with the in-cluster address as the last one")
	flags.StringVar(&o.apiNames, "api-names", string(inject.APINamesAuto), "whether the sidecar also answers at the names of the API server's Service and at port 443:\n`auto`, true or false, unless a pod chooses by annotation")
	service, err := netip.ParseAddr(os.Getenv("KUBERNETES_SERVICE_HOST"))
	flags.BoolVar(&o.ipv6, "ipv6", err == nil && service.Is6(), "pods find their sidecar at ::1 instead of 127.0.0.1; default: as the Service of the API server has\nan IPv6 address, by KUBERNETES_SERVICE_HOST")
	flags.StringVar(&o.cacheVolume, "cache-volume", string(inject.CacheHostPath), "`kind` of the cache volume, hostPath or emptyDir, unless a pod chooses by annotation")
	flags.StringVar(&o.cacheHostPath, "cache-host-path", inject.DefaultCacheHostPath, "`path` of the directory with the caches on each node")
	flags.StringVar(&o.stay, "stay", string(inject.StayDefault), "how long pods stay on a node that the control plane cannot reach, unless a pod chooses by annotation:\na `duration` like 24h, forever, or default (as without Rockpool)")
	flags.Int64Var(&o.evictionSeconds, "default-toleration-seconds", inject.DefaultEvictionSeconds, "`seconds` that the API server gives to pods by default to stay there, which --stay replaces: its\n--default-not-ready-toleration-seconds and --default-unreachable-toleration-seconds")
	flags.StringVar(&o.selinuxType, "sidecar-selinux-type", "", "SELinux `type` of injected containers in pods with a hostPath cache, such as spc_t; empty: the\ncontainer runtime chooses one, which has no access to --cache-host-path unless that is labelled for it")
	flags.StringVar(&o.cpuRequest, "sidecar-cpu-request", "20m", "CPU request of injected containers, a `quantity`; empty: none")
	flags.StringVar(&o.cpuLimit, "sidecar-cpu-limit", "", "CPU limit of injected containers, a `quantity`; empty: none (in pods of Guaranteed QoS: the request,\nat least 100m)")
	flags.StringVar(&o.memoryRequest, "sidecar-memory-request", "48Mi", "memory request of injected containers, a `quantity`; empty: none")
	flags.StringVar(&o.memoryLimit, "sidecar-memory-limit", "192Mi", "memory limit of injected containers, a `quantity`; empty: none")
}

// setFromEnv sets each flag that is not on the command line from its variable, for example
// --log-level from ROCKPOOL_INJECTOR_LOG_LEVEL. An empty variable counts as not set.
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

// params validates the settings for pods. Without needImage, the image may be empty. Errors name
// the flags.
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
	check("api-names", inject.ValidateAPINames(inject.APINames(o.apiNames)))
	check("cache-volume", inject.ValidateCacheVolume(inject.CacheVolume(o.cacheVolume)))
	check("cache-host-path", inject.ValidateCacheHostPath(o.cacheHostPath))
	check("sidecar-image-pull-policy", inject.ValidatePullPolicy(corev1.PullPolicy(o.pullPolicy)))
	check("sidecar-image-pull-secret", inject.ValidatePullSecrets(o.pullSecrets))
	if o.selinuxType != "" {
		check("sidecar-selinux-type", inject.ValidateSELinuxType(o.selinuxType))
	}
	check("stay", inject.ValidateStay(inject.Stay(o.stay)))
	_, err := inject.ValidateEvictionSeconds(strconv.FormatInt(o.evictionSeconds, 10))
	check("default-toleration-seconds", err)
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
		Version: buildVersion(), Image: o.image, Settings: defaults, APINames: inject.APINames(o.apiNames), IPv6: o.ipv6,
		ImagePullPolicy: corev1.PullPolicy(o.pullPolicy), ImagePullSecrets: o.pullSecrets,
		SELinuxType: o.selinuxType,
		Stay:        inject.Stay(o.stay), EvictionSeconds: o.evictionSeconds,
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
