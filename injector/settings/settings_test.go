package settings

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"rockpool.dev/injector/inject"
	"rockpool.dev/sidecar/config"
)

// flags are the settings of the command line.
func flags() inject.Params {
	return inject.Params{
		Version: "v1", Image: "rockpool:dev", CacheHostPath: inject.DefaultCacheHostPath, Settings: map[string]string{"upstream.servers": "https://flag"},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("20m"), corev1.ResourceMemory: resource.MustParse("48Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("192Mi")},
		},
	}
}

func TestApply(t *testing.T) {
	tests := map[string]struct {
		data map[string]string
		want func(*inject.Params)
	}{
		"an empty ConfigMap leaves the flags": {nil, func(*inject.Params) {}},
		"a value overrides the flag": {map[string]string{"image": "registry.example.com/rockpool:v2", "upstreams": "https://a:6443"}, func(p *inject.Params) {
			p.Image, p.Settings["upstream.servers"] = "registry.example.com/rockpool:v2", "https://a:6443"
		}},
		"an empty value is ignored": {map[string]string{"image": "", "upstreams": " \n"}, func(*inject.Params) {}},
		"a list may have an entry on each line": {map[string]string{"upstreams": "https://a\nhttps://b;tls-server-name=kubernetes,\n\nhttps://c\n", "cache_agents": "*\n!kubectl"}, func(p *inject.Params) {
			p.Settings["upstream.servers"], p.Settings["cache.agents"] = "https://a,https://b;tls-server-name=kubernetes,https://c", "*,!kubectl"
		}},
		"settings of all kinds": {map[string]string{
			"upstream_mode": "round-robin", "upstream_probe_interval": "5s", "cache_size": "1Gi", "cache_memory_only": "secrets, certificates.cert-manager.io",
			"offline_events": "true", "log_level": "warn", "log_format": "console", "shutdown_grace": "3s",
		}, func(p *inject.Params) {
			for key, value := range map[string]string{
				"upstream.mode": "round-robin", "upstream.probe-interval": "5s", "cache.max-size": "1Gi", "cache.memory-only": "secrets,certificates.cert-manager.io",
				"offline.events": "true", "log.level": "warn", "log.format": "console", "shutdown.grace": "3s",
			} {
				p.Settings[key] = value
			}
		}},
		"the names of the API server, and the domain": {map[string]string{"api_names": "false", "cluster_domain": "edge.example"}, func(p *inject.Params) {
			p.APINames, p.Settings["cluster.domain"] = inject.APINamesOff, "edge.example"
		}},
		"the image, how it is pulled, and the stay": {map[string]string{
			"image": "mirror.example.com/rockpool:v2", "image_pull_policy": "Never", "image_pull_secrets": "edge, mirror", "canary_image": "rockpool:v3", "canary_percent": "5", "stay": "24h", "default_toleration_seconds": "60",
		}, func(p *inject.Params) {
			p.Image, p.ImagePullPolicy, p.ImagePullSecrets = "mirror.example.com/rockpool:v2", corev1.PullNever, []string{"edge", "mirror"}
			p.Stay, p.EvictionSeconds = "24h", 60
			p.CanaryImage, p.CanaryPercent = "rockpool:v3", 5
		}},
		"the address of metrics": {map[string]string{"metrics_address": "pod"}, func(p *inject.Params) { p.MetricsAddress = inject.MetricsPod }},
		"the volume": {map[string]string{"cache_volume": "emptyDir", "cache_host_path": "/data/rockpool", "selinux_type": "spc_t"}, func(p *inject.Params) {
			p.CacheVolume, p.CacheHostPath = inject.CacheEmptyDir, "/data/rockpool"
			p.SELinuxType = "spc_t"
		}},
		"resources, and none": {map[string]string{"cpu_request": "50m", "cpu_limit": "1", "memory_limit": "0"}, func(p *inject.Params) {
			p.Resources.Requests[corev1.ResourceCPU] = resource.MustParse("50m")
			p.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			base, want := flags(), flags()
			test.want(&want)
			got, err := Apply(base, test.data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(flags(), base); diff != "" {
				t.Errorf("the flags have changed: %s", diff)
			}
		})
	}
}

func TestApplyRejects(t *testing.T) {
	tests := map[string]struct {
		data map[string]string
		want []string
	}{
		"an unknown key, with the known ones":     {map[string]string{"cache-agents": "*"}, []string{"cache-agents: unknown key; allowed are image, canary_image, canary_percent, image_pull_policy, image_pull_secrets, api_names, stay, default_toleration_seconds, metrics_address, cache_volume,", " upstreams,", " log_level,"}},
		"a key for an address or path in the pod": {map[string]string{"listen_address": "127.0.0.1:1", "cache_directory": "/x"}, []string{"listen_address: unknown key", "cache_directory: unknown key"}},
		"an upstream among several":               {map[string]string{"upstreams": "https://a\nhttp://b"}, []string{`upstreams: entry 2: url: "http://b" is not https; an https URL`}},
		"a word":                                  {map[string]string{"log_level": "loud"}, []string{`log_level: "loud" is unknown; allowed are debug, info, warn, error`}},
		"an image":                                {map[string]string{"image": "a b"}, []string{`image: "a b" is not an image reference`}},
		"a pull policy":                           {map[string]string{"image_pull_policy": "always"}, []string{`image_pull_policy: "always" is not IfNotPresent, Always or Never`}},
		"a canary's image":                        {map[string]string{"canary_image": "a b"}, []string{`canary_image: "a b" is not an image reference`}},
		"a percentage":                            {map[string]string{"canary_percent": "5%"}, []string{`canary_percent: "5%" is not a whole number from 0 to 100`}},
		"a pull secret":                           {map[string]string{"image_pull_secrets": "edge,No"}, []string{`image_pull_secrets: "No" is not the name of a Secret`}},
		"a stay":                                  {map[string]string{"stay": "long"}, []string{`stay: "long" is not a duration like 24h, forever or default`}},
		"seconds":                                 {map[string]string{"default_toleration_seconds": "0"}, []string{`default_toleration_seconds: "0" is not a number of seconds above zero`}},
		"an SELinux type":                         {map[string]string{"selinux_type": "system_u:spc_t"}, []string{`selinux_type: "system_u:spc_t" is not an SELinux type, like spc_t`}},
		"an address of metrics":                   {map[string]string{"metrics_address": ":9090"}, []string{`metrics_address: ":9090" is not loopback or pod`}},
		"a volume":                                {map[string]string{"cache_volume": "ram"}, []string{`cache_volume: "ram" is not hostPath or emptyDir`}},
		"a quantity":                              {map[string]string{"cpu_request": "lots"}, []string{`cpu_request: "lots" is not a quantity`, "is allowed"}},
		"a negative quantity":                     {map[string]string{"memory_limit": "-1Mi"}, []string{"memory_limit:"}},
		"a request above the flag's limit":        {map[string]string{"memory_request": "1Gi"}, []string{"memory_request, memory_limit: memory: the request 1Gi is above the limit 192Mi"}},
		"several problems at once":                {map[string]string{"a": "", "log_level": "x", "upstreams": "x"}, []string{"a: unknown", "log_level:", "upstreams:"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Apply(flags(), test.data)
			if err == nil {
				t.Fatalf("accepted: %+v", got)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("want %q in\n%v", want, err)
				}
			}
		})
	}
	t.Run("no image anywhere", func(t *testing.T) {
		base := flags()
		base.Image = ""
		if _, err := Apply(base, nil); err == nil || !strings.Contains(err.Error(), "image: no image is named") {
			t.Error(err)
		}
	})
}

// The published file has only settings that a sidecar accepts at run time.
func TestTheSidecarAcceptsTheFile(t *testing.T) {
	params, err := Apply(flags(), map[string]string{
		"upstreams": "https://a\nhttps://b;tls-server-name=x", "upstream_probe_interval": "7s", "upstream_failure_threshold": "4", "cache_agents": "*, !kubectl", "log_level": "error",
		"cache_size": "1Gi", "offline_events": "true",
	})
	if err != nil {
		t.Fatal(err)
	}
	text := File(params.Settings)
	if strings.Contains(text, "max-size") || strings.Contains(text, "offline") {
		t.Errorf("the file has settings that need a restart:\n%s", text)
	}
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, config.FileName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	set := pflag.NewFlagSet("sidecar", pflag.ContinueOnError)
	config.Register(set)
	if err := set.Parse([]string{"--config=" + directory}); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(set)
	if err != nil {
		t.Fatal(err)
	}
	if u := c.Upstream; len(u.Servers) != 2 || u.ProbeInterval != 7*time.Second || u.FailureThreshold != 4 || c.Log.Level != zapcore.ErrorLevel || c.Cache.Agents.Match("kubectl/v1") {
		t.Errorf("%+v of\n%s", c, text)
	}
	if again := File(params.Settings); again != text {
		t.Error("the same settings give another file")
	}
}

func TestTheDocumentationListsEveryKey(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| key of `rockpool-cfg` |")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, k := range Keys() {
		if !strings.Contains(table, "`"+k.Name+"`") {
			t.Errorf("docs/configuration.md does not list %s", k.Name)
		}
	}
	for _, cell := range strings.FieldsFunc(table, func(r rune) bool { return r == '`' || r == ' ' || r == '|' || r == '\n' || r == ',' }) {
		if strings.Contains(cell, "_") && !slices.ContainsFunc(Keys(), func(k Key) bool { return k.Name == cell }) {
			t.Errorf("docs/configuration.md lists %s, which is not a key", cell)
		}
	}
}

func FuzzApply(f *testing.F) {
	for _, k := range Keys() {
		f.Add(k.Name, "true")
		f.Add(k.Name, "https://a\n,https://b")
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		params, err := Apply(flags(), map[string]string{key: value})
		if err != nil {
			if !strings.Contains(err.Error(), key) && !strings.HasSuffix(key, "_request") && !strings.HasSuffix(key, "_limit") {
				t.Errorf("the error does not name %q: %v", key, err)
			}
			return
		}
		// The sidecar must accept the same values.
		for _, k := range config.Keys() {
			if v, ok := params.Settings[k.Name]; ok && k.Check(v) != nil {
				t.Errorf("%s=%q: %v", key, value, k.Check(v))
			}
		}
	})
}
