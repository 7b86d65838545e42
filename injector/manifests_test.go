package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/settings"
	"rockpool.dev/injector/webhook"
)

// readManifest reads a file of ../manifests/base into its type. tests/install checks the output
// of kubectl for base and overlays.
func readManifest[T any](t *testing.T, file string) T {
	t.Helper()
	var object T
	text, err := os.ReadFile(filepath.Join("../manifests/base", file))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &object); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return object
}

type kustomization struct {
	Namespace          string   `json:"namespace"`
	Resources          []string `json:"resources"`
	ConfigMapGenerator []struct {
		Name     string   `json:"name"`
		Literals []string `json:"literals"`
	} `json:"configMapGenerator"`
}

func TestTheFlagsInTheManifestsExist(t *testing.T) {
	spec := readManifest[appsv1.Deployment](t, "deployment.yaml").Spec.Template.Spec
	container := spec.Containers[0]
	cmd := newServeCommand()
	flags := cmd.Flags()
	if err := flags.Parse(container.Args); err != nil {
		t.Fatalf("args: %v", err)
	}
	isFlag := func(env string) {
		t.Helper()
		for _, known := range flagNames(cmd) {
			if envName(known) == env {
				return
			}
		}
		t.Errorf("%s belongs to no flag", env)
	}
	for _, e := range container.Env {
		isFlag(e.Name)
	}
	kustomize := readManifest[kustomization](t, "kustomization.yaml")
	for _, literal := range kustomize.ConfigMapGenerator[0].Literals {
		name, _, _ := strings.Cut(literal, "=")
		isFlag(name)
	}
	known := settings.Keys()
	for _, literal := range kustomize.ConfigMapGenerator[1].Literals {
		name, _, _ := strings.Cut(literal, "=")
		if !slices.ContainsFunc(known, func(k settings.Key) bool { return k.Name == name }) {
			t.Errorf("ConfigMap %s: %s is not a setting", kustomize.ConfigMapGenerator[1].Name, name)
		}
	}
	if name := kustomize.ConfigMapGenerator[1].Name; name != settings.DefaultName {
		t.Errorf("ConfigMap %s", name)
	}
	if name := container.EnvFrom[0].ConfigMapRef.Name; name != kustomize.ConfigMapGenerator[0].Name {
		t.Errorf("envFrom of ConfigMap %s", name)
	}

	ports := map[string]string{}
	for _, p := range container.Ports {
		ports[p.Name] = fmt.Sprintf(":%d", p.ContainerPort)
	}
	for flag, port := range map[string]string{"listen": "webhook", "metrics-listen": "metrics"} {
		if got := flags.Lookup(flag).Value.String(); got != ports[port] {
			t.Errorf("--%s=%s, but port %s is %s", flag, got, port, ports[port])
		}
	}
	if probe := container.ReadinessProbe.HTTPGet; probe.Path != webhook.ReadyPath || probe.Port.StrVal != "webhook" || probe.Scheme != corev1.URISchemeHTTPS {
		t.Errorf("readinessProbe %+v does not follow the TLS listener", probe)
	}
	delay, err := flags.GetDuration("shutdown-delay")
	if err != nil {
		t.Fatal(err)
	}
	grace, err := flags.GetDuration("shutdown-grace")
	if err != nil {
		t.Fatal(err)
	}
	if total := time.Duration(*spec.TerminationGracePeriodSeconds) * time.Second; total <= delay+grace {
		t.Errorf("terminationGracePeriodSeconds %s leaves no time for %s and %s", total, delay, grace)
	}
}

func TestTheWebhookConfigurationLeadsToTheServer(t *testing.T) {
	hooks := readManifest[admissionregistrationv1.MutatingWebhookConfiguration](t, "webhook.yaml").Webhooks
	service := readManifest[corev1.Service](t, "service.yaml")
	deployment := readManifest[appsv1.Deployment](t, "deployment.yaml")
	budget := readManifest[policyv1.PodDisruptionBudget](t, "poddisruptionbudget.yaml")
	kustomize := readManifest[kustomization](t, "kustomization.yaml")

	if service.Spec.Ports[0].TargetPort.StrVal != deployment.Spec.Template.Spec.Containers[0].Ports[0].Name {
		t.Errorf("targetPort %s", service.Spec.Ports[0].TargetPort.String())
	}
	pods := labels.Set(deployment.Spec.Template.Labels)
	for name, selector := range map[string]map[string]string{
		"Service": service.Spec.Selector, "PodDisruptionBudget": budget.Spec.Selector.MatchLabels, "Deployment": deployment.Spec.Selector.MatchLabels,
	} {
		if len(selector) == 0 || !labels.SelectorFromSet(selector).Matches(pods) {
			t.Errorf("%s selects %v, the pods have %v", name, selector, pods)
		}
	}
	// The same as inject.Requested, in CEL.
	annotations := "has(object.metadata.annotations) && 'KEY' in object.metadata.annotations"
	conditions := map[string]string{
		webhook.Path:          annotations + " && object.metadata.annotations['KEY'] != 'false'",
		webhook.NamespacePath: "!(" + annotations + ")",
	}
	for _, hook := range hooks {
		target := hook.ClientConfig.Service
		condition, served := conditions[*target.Path]
		if !served || target.Name != service.Name || target.Namespace != kustomize.Namespace || *target.Port != service.Spec.Ports[0].Port {
			t.Errorf("%s: clientConfig.service %+v", hook.Name, target)
		}
		delete(conditions, *target.Path)
		if want := strings.ReplaceAll(condition, "KEY", inject.AnnotationInject); len(hook.MatchConditions) != 1 || hook.MatchConditions[0].Expression != want {
			t.Errorf("%s: matchConditions %q, want %s", hook.Name, hook.MatchConditions, want)
		}
		if *hook.FailurePolicy != admissionregistrationv1.Fail || *hook.SideEffects != admissionregistrationv1.SideEffectClassNoneOnDryRun ||
			*hook.ReinvocationPolicy != admissionregistrationv1.IfNeededReinvocationPolicy || *hook.TimeoutSeconds != 5 || !slices.Equal(hook.AdmissionReviewVersions, []string{"v1"}) {
			t.Errorf("webhook %+v", hook)
		}
		excluded := hook.NamespaceSelector.MatchExpressions[0]
		if excluded.Key != corev1.LabelMetadataName || excluded.Operator != metav1.LabelSelectorOpNotIn || !slices.Contains(excluded.Values, kustomize.Namespace) || !slices.Contains(excluded.Values, metav1.NamespaceSystem) {
			t.Errorf("%s: namespaceSelector %+v: the injector would review its own pods", hook.Name, excluded)
		}
		if label := hook.NamespaceSelector.MatchLabels[inject.AnnotationInject]; (label == "true") != (*target.Path == webhook.NamespacePath) {
			t.Errorf("%s: namespaceSelector with the label %q", hook.Name, label)
		}
	}
	if len(conditions) > 0 {
		t.Errorf("no webhook leads to %v", slices.Collect(maps.Keys(conditions)))
	}
}

// The rules are those that packages lookup, settings and publish need, and no others.
func TestTheInjectorHasTheRightsThatItNeeds(t *testing.T) {
	rule := func(resources []string, names []string, verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: resources, ResourceNames: names, Verbs: verbs}
	}
	inCluster := readManifest[rbacv1.ClusterRole](t, "clusterrole.yaml")
	want := []rbacv1.PolicyRule{
		rule([]string{"namespaces", "nodes"}, nil, "get"),
		rule([]string{"configmaps"}, []string{inject.ConfigMapName}, "list", "watch", "create", "patch"),
	}
	if diff := cmp.Diff(want, inCluster.Rules); diff != "" {
		t.Errorf("rules of the ClusterRole (-want +got):\n%s", diff)
	}
	atHome := readManifest[rbacv1.Role](t, "role.yaml")
	want = []rbacv1.PolicyRule{
		rule([]string{"configmaps"}, []string{settings.DefaultName}, "list", "watch"),
		rule([]string{"events"}, nil, "create"),
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{publisherLease}, Verbs: []string{"get", "update"}},
	}
	if diff := cmp.Diff(want, atHome.Rules); diff != "" {
		t.Errorf("rules of the Role (-want +got):\n%s", diff)
	}
	account := readManifest[corev1.ServiceAccount](t, "serviceaccount.yaml")
	pod := readManifest[appsv1.Deployment](t, "deployment.yaml").Spec.Template.Spec
	namespace := readManifest[kustomization](t, "kustomization.yaml").Namespace
	binding, local := readManifest[rbacv1.ClusterRoleBinding](t, "clusterrolebinding.yaml"), readManifest[rbacv1.RoleBinding](t, "rolebinding.yaml")
	subject := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account.Name, Namespace: namespace}}
	if binding.RoleRef.Kind != "ClusterRole" || binding.RoleRef.Name != inCluster.Name || local.RoleRef.Kind != "Role" || local.RoleRef.Name != atHome.Name ||
		!cmp.Equal(binding.Subjects, subject) || !cmp.Equal(local.Subjects, subject) || local.Namespace != namespace || atHome.Namespace != namespace || pod.ServiceAccountName != account.Name {
		t.Errorf("roles, bindings and account do not belong together: %+v %+v", binding, local)
	}
	if pod.AutomountServiceAccountToken == nil || !*pod.AutomountServiceAccountToken {
		t.Error("the injector has no token")
	}
}

func TestEveryManifestIsListed(t *testing.T) {
	kustomizations, err := filepath.Glob("../manifests/*/*/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(kustomizations, "../manifests/base/kustomization.yaml", "../manifests/kustomization.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var k kustomization
		if err := yaml.Unmarshal(text, &k); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		neighbours, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range neighbours {
			if name := filepath.Base(n); name != "kustomization.yaml" && !slices.Contains(k.Resources, name) {
				t.Errorf("%s is not among the resources of %s", name, file)
			}
		}
	}
}

func flagNames(cmd *cobra.Command) []string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}
