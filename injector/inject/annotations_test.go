package inject

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"rockpool.dev/sidecar/config"
)

func TestParseAnnotations(t *testing.T) {
	tests := []struct {
		name    string
		in      map[string]string
		want    Annotations
		wantErr string
	}{
		{name: "none", in: nil},
		{name: "annotations of other tools are ignored", in: map[string]string{"example.com/inject": "maybe", "rockpool.development/x": "y"}},
		{name: "the status is not a setting", in: map[string]string{AnnotationStatus: "anything"}},
		{name: "all", in: map[string]string{
			AnnotationInject: "true", AnnotationCacheVolume: "emptyDir", AnnotationImage: "rockpool:dev", AnnotationLogLevel: "warn",
			AnnotationOfflineEvents: "true", AnnotationOfflineLeases: "false", AnnotationOfflineElectionAnnotations: "true", AnnotationOfflineTokens: "true", AnnotationOfflineWritePatience: "0s", AnnotationReport: "events,condition",
			AnnotationCacheSize: "1Gi", AnnotationCacheMemorySize: "24Mi", AnnotationCacheAgents: "kube*, !kubectl", AnnotationPort: "20268", AnnotationMetricsAddress: "pod", AnnotationExcludeContainers: "mesh, log",
			AnnotationCPURequest: "50m", AnnotationMemoryLimit: "256Mi",
			AnnotationUpstreams: "https://a:6443 , https://b",
		}, want: Annotations{Inject: true, CacheVolume: CacheEmptyDir, CacheSize: "1Gi", CacheMemorySize: "24Mi", Image: "rockpool:dev", Port: 20268, MetricsAddress: MetricsPod, ExcludeContainers: []string{"mesh", "log"},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m")},
				Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
			}}},
		{name: "inject has two values", in: map[string]string{AnnotationInject: "True"}, wantErr: `rockpool.dev/inject: unknown value "True" (allowed: true, false)`},
		{name: "metrics are at two places only", in: map[string]string{AnnotationMetricsAddress: "0.0.0.0"}, wantErr: `rockpool.dev/metrics-address: "0.0.0.0" is not loopback or pod (allowed: loopback, pod)`},
		{name: "an empty value is not a default", in: map[string]string{AnnotationCacheVolume: ""}, wantErr: `rockpool.dev/cache-volume: unknown value "" (allowed: hostPath, emptyDir)`},
		{name: "reports have kinds", in: map[string]string{AnnotationReport: "events, mail"}, wantErr: `rockpool.dev/report: " mail" is unknown; allowed are none, events, condition, and events,condition (allowed: none, events, condition, or events,condition)`},
		{name: "log levels", in: map[string]string{AnnotationLogLevel: "trace"}, wantErr: `rockpool.dev/log-level: unknown value "trace" (allowed: debug, info, warn, error)`},
		{name: "offline events are on or off", in: map[string]string{AnnotationOfflineEvents: "yes"}, wantErr: `rockpool.dev/offline-events: unknown value "yes" (allowed: true, false)`},
		{name: "offline tokens are on or off", in: map[string]string{AnnotationOfflineTokens: "1"}, wantErr: `rockpool.dev/offline-tokens: unknown value "1" (allowed: true, false)`},
		{name: "a lock in annotations is kept or not", in: map[string]string{AnnotationOfflineElectionAnnotations: "configmaps"}, wantErr: `rockpool.dev/offline-election-annotations: unknown value "configmaps" (allowed: true, false)`},
		{name: "write patience has a limit", in: map[string]string{AnnotationOfflineWritePatience: "31s"}, wantErr: `rockpool.dev/offline-write-patience: "31s" is not such a duration (allowed: a duration from 0s to 30s, like 2s)`},
		{name: "offline leases are on or off", in: map[string]string{AnnotationOfflineLeases: ""}, wantErr: `rockpool.dev/offline-leases: unknown value "" (allowed: true, false)`},
		{name: "one invalid upstream", in: map[string]string{AnnotationUpstreams: "https://a,b"}, wantErr: `rockpool.dev/upstreams: entry 2: url: "b" is not https`},
		{name: "upstreams that conflict", in: map[string]string{AnnotationUpstreams: "https://a,https://a;ca-file=/b"}, wantErr: "is given before with another"},
		{name: "an image with spaces", in: map[string]string{AnnotationImage: "a b"}, wantErr: `rockpool.dev/image: "a b"`},
		{name: "an unknown key; the error lists the known ones", in: map[string]string{"rockpool.dev/upstream": "https://a"},
			wantErr: "rockpool.dev/upstream: unknown annotation (allowed: rockpool.dev/inject, rockpool.dev/cache-volume, "},
		{name: "a cache that is too small", in: map[string]string{AnnotationCacheSize: "1Mi"}, wantErr: `rockpool.dev/cache-size: "1Mi" is out of range (allowed: a quantity from 4Mi to 1Pi, like 256Mi)`},
		{name: "a cache in thousandths of a byte", in: map[string]string{AnnotationCacheSize: "256000000m"}, wantErr: `rockpool.dev/cache-size: "256000000m" is not a quantity of bytes`},
		{name: "an agent with its version", in: map[string]string{AnnotationCacheAgents: "kubectl/v1"}, wantErr: `rockpool.dev/cache-agents: "kubectl/v1" is not a User-Agent's name`},
		{name: "an unknown filter", in: map[string]string{AnnotationFilters: "topology"}, wantErr: `rockpool.dev/filters: "topology" is not a filter; allowed are discardcloudservice,`},
		{name: "no filter at all", in: map[string]string{AnnotationFilters: " "}, wantErr: `rockpool.dev/filters: no filter is named`},
		{name: "a pool that is no label", in: map[string]string{AnnotationPool: "a b"}, wantErr: `rockpool.dev/pool: "a b" is not the value of a label`},
		{name: "filters, pool and zone are for the sidecar", in: map[string]string{AnnotationFilters: "servicetopology,-keep", AnnotationPool: "p", AnnotationZone: "z"}},
		{name: "no agent at all", in: map[string]string{AnnotationCacheAgents: " "}, wantErr: `rockpool.dev/cache-agents: no name is given`},
		{name: "a port that needs root", in: map[string]string{AnnotationPort: "443"}, wantErr: `rockpool.dev/port: "443" is not such a port (allowed: a port from 1024 to 65534)`},
		{name: "a port without a next one", in: map[string]string{AnnotationPort: "65535"}, wantErr: `rockpool.dev/port: "65535"`},
		{name: "a port with a sign", in: map[string]string{AnnotationPort: "+20268"}, wantErr: `rockpool.dev/port: "+20268"`},
		{name: "a port that is not a number", in: map[string]string{AnnotationPort: "https"}, wantErr: `rockpool.dev/port: "https"`},
		{name: "an impossible container name", in: map[string]string{AnnotationExcludeContainers: "web,Mesh"}, wantErr: `rockpool.dev/exclude-containers: "Mesh" is not the name`},
		{name: "our container", in: map[string]string{AnnotationExcludeContainers: "rockpool-sidecar"}, wantErr: `rockpool.dev/exclude-containers: "rockpool-sidecar"`},
		{name: "no CPU", in: map[string]string{AnnotationCPULimit: "0"}, wantErr: `rockpool.dev/cpu-limit: "0" is not such a quantity (allowed: a quantity above zero, like 50m or 64Mi)`},
		{name: "memory without a number", in: map[string]string{AnnotationMemoryRequest: "Mi"}, wantErr: `rockpool.dev/memory-request: "Mi"`},
		{name: "every invalid annotation is reported, in order", in: map[string]string{"rockpool.dev/z": "", "rockpool.dev/a": ""}, wantErr: "; rockpool.dev/z: unknown annotation"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseAnnotations(test.in)
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Fatalf("got error %v, want %s", err, test.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzParseAnnotations(f *testing.F) {
	for _, s := range settings {
		f.Add(s.key, "true")
		f.Add(s.key, "https://api.example.com:6443,https://[::1]")
		f.Add(s.key, "https://a,https://a_b;ca-file=/a;ca-file=/b")
		f.Add(s.key, "registry.example.com:5000/edge/rockpool:v1@sha256:"+strings.Repeat("0", 64))
	}
	f.Add("rockpool.dev/unknown", "x")
	f.Add("example.com/inject", "true")
	f.Fuzz(func(t *testing.T, key, value string) {
		parsed, err := ParseAnnotations(map[string]string{key: value})
		if err != nil {
			var all AnnotationErrors
			if !errors.As(err, &all) || len(all) != 1 || all[0].Annotation != key || !strings.Contains(err.Error(), key) {
				t.Fatalf("the error does not name the annotation: %v", err)
			}
			if strings.ContainsAny(err.Error(), "\n\r") && !strings.ContainsAny(key, "\n\r") {
				t.Fatalf("the error has several lines: %q", err)
			}
			return
		}
		if strings.HasPrefix(key, AnnotationPrefix) && key != AnnotationStatus &&
			!slices.ContainsFunc(settings, func(s setting) bool { return s.key == key }) {
			t.Fatalf("unknown key %q accepted", key)
		}
		// The sidecar must accept the same values.
		for _, k := range config.Keys() {
			if config.Annotations()[key] == k.Name && k.Check(strings.TrimSpace(value)) != nil {
				t.Fatalf("%s: %q accepted, but %v", key, value, k.Check(strings.TrimSpace(value)))
			}
		}
		if parsed.Image != "" && strings.ContainsAny(parsed.Image, " \n\t$") {
			t.Fatalf("image %q accepted", parsed.Image)
		}
	})
}

func TestTheSidecarKnowsEveryAnnotation(t *testing.T) {
	known := config.Annotations()
	if _, ok := known[AnnotationStatus]; !ok || len(known) != len(settings)+1 {
		t.Errorf("the sidecar knows %v", known)
	}
	for _, s := range settings {
		if _, ok := known[s.key]; !ok {
			t.Errorf("the sidecar does not know %s", s.key)
		}
	}
}

func TestTheDocumentationListsEveryAnnotation(t *testing.T) {
	text, err := os.ReadFile("../../docs/annotations.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range strings.Lines(string(text)) {
		if key, ok := strings.CutPrefix(line, "| `"+AnnotationPrefix); ok {
			name, _, _ := strings.Cut(key, "`")
			rows = append(rows, AnnotationPrefix+name)
		}
	}
	var keys []string
	for _, s := range settings {
		keys = append(keys, s.key)
	}
	if diff := cmp.Diff(append(keys, AnnotationStatus), rows); diff != "" {
		t.Errorf("rows of the table (-code +docs/annotations.md):\n%s", diff)
	}
}

func TestTheDocumentationListsEveryReason(t *testing.T) {
	text, err := os.ReadFile("../../docs/annotations.md")
	if err != nil {
		t.Fatal(err)
	}
	for reason := range messages {
		if reason != ReasonNotRequested && !strings.Contains(string(text), "`"+string(reason)+"`") {
			t.Errorf("%s is not in docs/annotations.md", reason)
		}
	}
}
