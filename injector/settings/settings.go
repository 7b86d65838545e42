package settings

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	"rockpool.dev/injector/inject"
	"rockpool.dev/sidecar/api/filters"
	"rockpool.dev/sidecar/config"
)

// Key is a key of the ConfigMap.
type Key struct {
	Name    string
	Setting string // the sidecar's key that it sets, such as log.level; "" = a key of the injector
	Runtime bool   // a change also reaches running sidecars
	set     func(*inject.Params, string) error
}

// Keys returns all keys in the order of the documentation. They include the sidecar's settings,
// with _ for . and - in their names, except addresses and paths in the pod: the injector
// chooses these.
func Keys() []Key {
	keys := []Key{
		{Name: "image", set: func(p *inject.Params, v string) error {
			p.Image = v
			return inject.ValidateImage(v)
		}},
		{Name: "canary_image", set: func(p *inject.Params, v string) error {
			p.CanaryImage = v
			return inject.ValidateImage(v)
		}},
		{Name: "canary_percent", set: func(p *inject.Params, v string) (err error) {
			p.CanaryPercent, err = inject.ValidatePercent(v)
			return err
		}},
		{Name: "image_pull_policy", set: func(p *inject.Params, v string) error {
			p.ImagePullPolicy = corev1.PullPolicy(v)
			return inject.ValidatePullPolicy(p.ImagePullPolicy)
		}},
		{Name: "image_pull_secrets", set: func(p *inject.Params, v string) error {
			p.ImagePullSecrets = strings.Split(onOneLine(v), ",")
			return inject.ValidatePullSecrets(p.ImagePullSecrets)
		}},
		{Name: "api_names", set: func(p *inject.Params, v string) error {
			p.APINames = inject.APINames(v)
			return inject.ValidateAPINames(p.APINames)
		}},
		{Name: "stay", set: func(p *inject.Params, v string) error {
			p.Stay = inject.Stay(v)
			return inject.ValidateStay(p.Stay)
		}},
		{Name: "default_toleration_seconds", set: func(p *inject.Params, v string) (err error) {
			p.EvictionSeconds, err = inject.ValidateEvictionSeconds(v)
			return err
		}},
		{Name: "metrics_address", set: func(p *inject.Params, v string) error {
			p.MetricsAddress = inject.MetricsAddress(v)
			return inject.ValidateMetricsAddress(p.MetricsAddress)
		}},
		{Name: "cache_volume", set: func(p *inject.Params, v string) error {
			p.CacheVolume = inject.CacheVolume(v)
			return inject.ValidateCacheVolume(p.CacheVolume)
		}},
		{Name: "cache_host_path", set: func(p *inject.Params, v string) error {
			p.CacheHostPath = v
			return inject.ValidateCacheHostPath(v)
		}},
		{Name: "selinux_type", set: func(p *inject.Params, v string) error {
			p.SELinuxType = v
			return inject.ValidateSELinuxType(v)
		}},
		{Name: "cpu_request", set: quantity(requests, corev1.ResourceCPU)},
		{Name: "cpu_limit", set: quantity(limits, corev1.ResourceCPU)},
		{Name: "memory_request", set: quantity(requests, corev1.ResourceMemory)},
		{Name: "memory_limit", set: quantity(limits, corev1.ResourceMemory)},
	}
	for _, k := range config.Keys() {
		if k.Type == "address" || k.Type == "path" || k.Name == "node.name" {
			continue
		}
		keys = append(keys, Key{Name: nameOf(k), Setting: k.Name, Runtime: k.Runtime, set: func(p *inject.Params, v string) error {
			if slices.Contains([]string{"servers", "agents", "resources", "exclusions"}, k.Type) {
				v = onOneLine(v)
			}
			p.Settings[k.Name] = v
			return k.Check(v)
		}})
	}
	return keys
}

// nameOf returns the name of a sidecar's setting. Some are shorter, as in annotations, and filters have
// the keys that they have in OpenYurt's yurt-hub-cfg.
func nameOf(k config.Key) string {
	if name, ok := strings.CutPrefix(k.Name, "filters."); ok && slices.Contains(filters.Names(), name) {
		return name
	}
	switch k.Name {
	case "filters.choice":
		return "filters"
	case "report.kinds":
		return "report"
	case "upstream.servers":
		return "upstreams"
	case "cache.max-size":
		return "cache_size"
	}
	return strings.NewReplacer(".", "_", "-", "_").Replace(k.Name)
}

// onOneLine converts a list that may have an entry on each line.
func onOneLine(list string) string {
	var entries []string
	for entry := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == '\n' }) {
		if entry = strings.TrimSpace(entry); entry != "" {
			entries = append(entries, entry)
		}
	}
	return strings.Join(entries, ",")
}

func requests(r *corev1.ResourceRequirements) *corev1.ResourceList { return &r.Requests }
func limits(r *corev1.ResourceRequirements) *corev1.ResourceList   { return &r.Limits }

func quantity(list func(*corev1.ResourceRequirements) *corev1.ResourceList, name corev1.ResourceName) func(*inject.Params, string) error {
	return func(p *inject.Params, v string) error {
		q, err := resource.ParseQuantity(v)
		if err != nil || q.Sign() < 0 {
			return fmt.Errorf("%q is not a quantity; like 20m or 48Mi is allowed, or 0 for none", v)
		}
		to := list(&p.Resources)
		if q.IsZero() {
			delete(*to, name)
			return nil
		}
		if *to == nil {
			*to = corev1.ResourceList{}
		}
		(*to)[name] = q
		return nil
	}
}

// Apply returns base, overridden by the data of a ConfigMap. It ignores a key without a value.
// The error joins all problems, each with its key and the allowed values.
func Apply(base inject.Params, data map[string]string) (inject.Params, error) {
	p := base
	p.Resources = *base.Resources.DeepCopy()
	p.Settings = maps.Clone(base.Settings)
	if p.Settings == nil {
		p.Settings = map[string]string{}
	}
	var problems []error
	keys := Keys()
	for _, name := range slices.Sorted(maps.Keys(data)) {
		i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == name })
		if i < 0 {
			problems = append(problems, fmt.Errorf("%s: unknown key; allowed are %s", name, names(keys)))
			continue
		}
		if value := strings.TrimSpace(data[name]); value != "" {
			if err := keys[i].set(&p, value); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	if len(problems) == 0 {
		if err := inject.ValidateResources(p.Resources); err != nil {
			problems = append(problems, fmt.Errorf("cpu_request, cpu_limit, memory_request, memory_limit: %w", err))
		}
		if p.Image == "" {
			problems = append(problems, errors.New("image: no image is named"))
		}
	}
	if len(problems) > 0 {
		return inject.Params{}, errors.Join(problems...)
	}
	return p, nil
}

func names(keys []Key) string {
	list := make([]string, len(keys))
	for i, k := range keys {
		list[i] = k.Name
	}
	return strings.Join(list, ", ")
}

// File returns a configuration file with those settings of the sidecar that can change while it
// runs.
func File(settings map[string]string) string {
	sections := map[string]map[string]string{}
	for _, k := range config.Keys() {
		value, ok := settings[k.Name]
		if !ok || !k.Runtime {
			continue
		}
		section, name, _ := strings.Cut(k.Name, ".")
		if sections[section] == nil {
			sections[section] = map[string]string{}
		}
		sections[section][name] = value
	}
	text, err := yaml.Marshal(sections)
	if err != nil {
		panic(err) // maps of strings always marshal
	}
	return string(text)
}
