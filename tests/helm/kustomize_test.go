package helm

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// cases are kustomizations beside manifests/, and the values that ask for the same.
var cases = map[string]struct{ kustomization, values string }{
	"as the README says": {"resources: [manifests]", ""},
	"default":            {"resources: [manifests/overlays/default]", ""},
	"ha":                 {"resources: [manifests/overlays/ha]", "ha: true"},
	"cert-manager":       {"resources: [manifests/overlays/cert-manager]", "certManager: {enabled: true}"},
	"janitor":            {"resources: [manifests, manifests/overlays/janitor]", "janitor: {enabled: true}"},
	"kube-system": {`
resources: [manifests]
components: [manifests/components/kube-system]`,
		"kubeSystem: true"},
	"pull-secrets": {`
resources: [manifests]
components: [manifests/components/pull-secrets]
configMapGenerator:
- {name: rockpool-cfg, namespace: rockpool-system, behavior: merge, literals: [image_pull_secrets=rockpool-registry]}
patches:
- target: {kind: Deployment}
  patch: '- {op: add, path: /spec/template/spec/imagePullSecrets, value: [{name: rockpool-registry}]}'`,
		"image: {pullSecrets: [rockpool-registry], copyPullSecrets: true}"},
	"network-policy": {`
resources: [manifests]
components: [manifests/components/network-policy]`,
		"networkPolicy: {enabled: true, apiServers: [192.0.2.0/24]}"},
	"report": {`
resources: [manifests]
components: [manifests/components/report]`,
		"report: {enabled: true}"},
	"host-network": {`
resources: [manifests]
components: [manifests/components/host-network]`,
		"hostNetwork: true"},
	"small": {`
resources: [manifests]
components: [manifests/components/small]`,
		"settings: {cache_memory_max_size: 4Mi, cache_size: 64Mi, memory_limit: 51Mi, memory_request: 24Mi}"},
	"monitoring": {`
resources: [manifests, manifests/monitoring]
configMapGenerator:
- {name: rockpool-cfg, namespace: rockpool-system, behavior: merge, literals: [metrics_address=pod]}`,
		"monitoring: {enabled: true}"},
	"all components": {`
resources: [manifests/overlays/cert-manager, manifests/overlays/janitor, manifests/monitoring]
components:
- manifests/components/ha
- manifests/components/kube-system
- manifests/components/pull-secrets
- manifests/components/network-policy
- manifests/components/report
- manifests/components/host-network
configMapGenerator:
- {name: rockpool-cfg, namespace: rockpool-system, behavior: merge, literals: [image_pull_secrets=rockpool-registry, metrics_address=pod]}
patches:
- target: {kind: Deployment|DaemonSet}
  patch: '- {op: add, path: /spec/template/spec/imagePullSecrets, value: [{name: rockpool-registry}]}'`, `
ha: true
kubeSystem: true
certManager: {enabled: true}
image: {pullSecrets: [rockpool-registry], copyPullSecrets: true}
networkPolicy: {enabled: true, apiServers: [192.0.2.0/24]}
report: {enabled: true}
hostNetwork: true
monitoring: {enabled: true}
janitor: {enabled: true}`},
	"an image and addresses and settings": {`
resources: [manifests/overlays/default]
images:
- {name: rockpool, newName: registry.example.com/rockpool, newTag: v1}
configMapGenerator:
- name: rockpool-cfg
  namespace: rockpool-system
  behavior: merge
  literals:
  - upstreams=https://203.0.113.10:6443,https://api.example.com
  - image_pull_policy=Always
  - offline_events=true
  - offline_events_max_count=2000000
  - log_level=debug
- {name: rockpool-injector, namespace: rockpool-system, behavior: merge, literals: [ROCKPOOL_INJECTOR_LOG_LEVEL=debug, ROCKPOOL_INJECTOR_SHUTDOWN_DELAY=3s]}
patches:
- target: {kind: Deployment}
  patch: |-
    - {op: add, path: /spec/template/spec/containers/0/imagePullPolicy, value: Always}
    - {op: replace, path: /spec/template/spec/containers/0/env/1/value, value: "registry.example.com/rockpool:v1"}`, `
image: {repository: registry.example.com/rockpool, tag: v1, pullPolicy: Always}
upstreams: ["https://203.0.113.10:6443", "https://api.example.com"]
settings: {offline_events: true, offline_events_max_count: 2000000, log_level: debug}
flags: {log-level: debug, shutdown-delay: 3s}`},
	"places and ports": {`
resources: [manifests/overlays/default]
patches:
- target: {kind: Deployment}
  patch: |-
    - {op: replace, path: /spec/replicas, value: 4}
    - {op: replace, path: /spec/template/metadata/annotations/prometheus.io~1port, value: "10251"}
    - {op: replace, path: /spec/template/spec/containers/0/args, value: ["--listen=:10250", "--metrics-listen=:10251"]}
    - {op: replace, path: /spec/template/spec/containers/0/ports/0/containerPort, value: 10250}
    - {op: replace, path: /spec/template/spec/containers/0/ports/1/containerPort, value: 10251}
    - {op: replace, path: /spec/template/spec/containers/0/resources/limits/memory, value: 256Mi}
    - {op: add, path: /spec/template/spec/containers/0/env/-, value: {name: HTTPS_PROXY, value: "http://proxy:3128"}}
    - {op: add, path: /spec/template/spec/nodeSelector/pool, value: cloud}
    - {op: add, path: /spec/template/spec/tolerations, value: [{key: control, operator: Exists}]}
    - op: replace
      path: /spec/template/spec/affinity/nodeAffinity
      value:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms: [{matchExpressions: [{key: site, operator: In, values: [cloud]}]}]
- target: {kind: PodDisruptionBudget}
  patch: '- {op: replace, path: /spec/minAvailable, value: 3}'`, `
replicas: 4
port: 10250
metricsPort: 10251
resources: {limits: {memory: 256Mi}}
env: [{name: HTTPS_PROXY, value: "http://proxy:3128"}]
nodeSelector: {pool: cloud}
tolerations: [{key: control, operator: Exists}]
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms: [{matchExpressions: [{key: site, operator: In, values: [cloud]}]}]`},
}

func TestTheChartMakesTheObjectsThatKustomizeMakes(t *testing.T) {
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := template(t, system, c.values, "--set", "namespace.create=true")
			if err != nil {
				t.Fatal(err)
			}
			want := objects(t, kustomize(t, c.kustomization))
			have := objects(t, got)
			if len(want) < 15 {
				t.Fatalf("kustomize makes only %d objects", len(want))
			}
			for key, object := range want {
				if have[key] == nil {
					t.Errorf("the chart has no %s", key)
				} else if diff := cmp.Diff(object, have[key]); diff != "" {
					t.Errorf("%s (-kustomize +helm):\n%s", key, diff)
				}
				delete(have, key)
			}
			for key := range have {
				t.Errorf("only the chart has %s", key)
			}
		})
	}
}

// Each overlay and component has a case, or is an example of a use.
func TestEveryOverlayAndComponentIsCompared(t *testing.T) {
	directories, err := filepath.Glob(manifests + "/*/*/kustomization.yaml")
	if err != nil || len(directories) < 8 {
		t.Fatalf("%d kustomizations: %v", len(directories), err)
	}
	for _, file := range directories {
		name := filepath.Base(filepath.Dir(file))
		if _, ok := cases[name]; !ok && name != "edge-example" {
			t.Errorf("%s is not compared with the chart", filepath.Dir(file))
		}
	}
}

// kustomize is the output of kubectl for a kustomization beside a copy of the manifests.
func kustomize(t *testing.T, kustomization string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "manifests"), os.DirFS(manifests)); err != nil {
		t.Fatal(err)
	}
	text := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n" + kustomization + "\n"
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := command(t, kubectl, "kustomize", dir)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// hashed is the name that kustomize gives to the ConfigMap of the flags.
var hashed = regexp.MustCompile(`^rockpool-injector-[a-z0-9]{10}$`)

// alike removes the known differences from an object: by what it is managed, how its pods are
// restarted when the injector's flags change, the namespace that kustomize gives to objects of
// kinds that it does not know to be without one, and the empty lines that it adds to folded text
// with indented lines.
func alike(object map[string]any) {
	metadata, _ := object["metadata"].(map[string]any)
	spec, _ := object["spec"].(map[string]any)
	pods, _ := spec["template"].(map[string]any)
	podMetadata, _ := pods["metadata"].(map[string]any)
	for _, m := range []map[string]any{metadata, podMetadata} {
		labels, _ := m["labels"].(map[string]any)
		if by := labels["app.kubernetes.io/managed-by"]; by == "Helm" || by == "kustomize" {
			labels["app.kubernetes.io/managed-by"] = "either"
		}
	}
	switch kind, _ := object["kind"].(string); kind {
	case "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding":
		delete(metadata, "namespace")
		withoutEmptyLines(spec)
	case "ConfigMap":
		withoutHash(metadata)
	case "Deployment":
		delete(podMetadata["annotations"].(map[string]any), "checksum/flags")
		container := pods["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)
		if from, ok := container["envFrom"].([]any); ok {
			withoutHash(from[0].(map[string]any)["configMapRef"].(map[string]any))
		}
	}
}

func withoutHash(named map[string]any) {
	if name, _ := named["name"].(string); hashed.MatchString(name) {
		named["name"] = "rockpool-injector"
	}
}

// withoutEmptyLines removes empty lines from the texts in a value, in place.
func withoutEmptyLines(value any) any {
	switch v := value.(type) {
	case string:
		return strings.ReplaceAll(v, "\n\n", "\n")
	case map[string]any:
		for key := range v {
			v[key] = withoutEmptyLines(v[key])
		}
	case []any:
		for i := range v {
			v[i] = withoutEmptyLines(v[i])
		}
	}
	return value
}
