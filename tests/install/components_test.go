package install

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// allComponents are the names of the kustomize components.
func allComponents(t *testing.T) []string {
	t.Helper()
	directories, err := filepath.Glob(manifests + "/components/*")
	if err != nil || len(directories) == 0 {
		t.Fatalf("no components: %v", err)
	}
	var names []string
	for _, d := range directories {
		names = append(names, filepath.Base(d))
	}
	return names
}

// combined returns a copy of the manifests that has the overlay and the components, as an
// administrator edits kustomization.yaml.
func combined(t *testing.T, overlay string, components []string) string {
	t.Helper()
	directory := t.TempDir()
	if err := os.CopyFS(directory, os.DirFS(manifests)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(directory, "kustomization.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	edited := bytes.Replace(text, []byte("\n- overlays/default\n"), []byte("\n- overlays/"+overlay+"\n"), 1)
	if len(components) > 0 {
		edited = append(edited, []byte("components:\n- components/"+strings.Join(components, "\n- components/")+"\n")...)
	}
	if err := os.WriteFile(file, edited, 0o600); err != nil {
		t.Fatal(err)
	}
	return directory
}

func TestEverySetOfComponentsHasTheEffectOfEachOfThem(t *testing.T) {
	all := allComponents(t)
	for set := range 1 << len(all) {
		var chosen []string
		for i, name := range all {
			if set&(1<<i) != 0 {
				chosen = append(chosen, name)
			}
		}
		orders := [][]string{chosen}
		if len(chosen) > 1 {
			backwards := slices.Clone(chosen)
			slices.Reverse(backwards)
			orders = append(orders, backwards)
		}
		for _, components := range orders {
			t.Run(fmt.Sprint("components ", components), func(t *testing.T) {
				checkComponents(t, components, rendered(t, combined(t, "default", components)))
			})
		}
	}
}

// checkComponents checks that the objects show exactly these components.
func checkComponents(t *testing.T, components []string, objects []unstructured.Unstructured) {
	t.Helper()
	has := func(component string) bool { return slices.Contains(components, component) }
	find := func(kind, name string) *unstructured.Unstructured {
		i := slices.IndexFunc(objects, func(o unstructured.Unstructured) bool { return o.GetKind() == kind && o.GetName() == name })
		if i < 0 {
			return nil
		}
		return &objects[i]
	}
	deployment := find("Deployment", "rockpool-injector")
	spec := template(t, *deployment).Spec
	container := spec.Containers[0]
	port := func(name string) int32 {
		i := slices.IndexFunc(container.Ports, func(p corev1.ContainerPort) bool { return p.Name == name })
		if i < 0 {
			t.Fatalf("no port %s: %v", name, container.Ports)
		}
		return container.Ports[i].ContainerPort
	}
	for _, argument := range []string{fmt.Sprintf("--listen=:%d", port("webhook")), fmt.Sprintf("--metrics-listen=:%d", port("metrics"))} {
		if !slices.Contains(container.Args, argument) {
			t.Errorf("no argument %s for the port: %v", argument, container.Args)
		}
	}
	replicas, _, _ := unstructured.NestedFieldNoCopy(deployment.Object, "spec", "replicas")
	surge, _, _ := unstructured.NestedFieldNoCopy(deployment.Object, "spec", "strategy", "rollingUpdate", "maxSurge")
	webhooks, _, _ := unstructured.NestedSlice(find("MutatingWebhookConfiguration", "rockpool").Object, "webhooks")
	policy, err := json.Marshal(find("ValidatingAdmissionPolicy", "rockpool-injected-pods").Object)
	if err != nil {
		t.Fatal(err)
	}
	for name, is := range map[string]struct{ got, want bool }{
		"three replicas":               {fmt.Sprint(replicas) == "3", has("ha")},
		"critical priority":            {spec.PriorityClassName == "system-cluster-critical", has("ha")},
		"no replica beyond them":       {fmt.Sprint(surge) == "0", has("ha") || has("host-network")},
		"the node's network":           {spec.HostNetwork, has("host-network")},
		"ports of the node":            {port("webhook") == 9443 && port("metrics") == 9444, has("host-network")},
		"a webhook for kube-system":    {strings.Contains(fmt.Sprint(webhooks), "inject-kube-system.rockpool.dev"), has("kube-system")},
		"the webhook of the base":      {strings.Contains(fmt.Sprint(webhooks), "inject.rockpool.dev"), true},
		"kube-system is not excluded":  {slices.Contains(container.Args, "--excluded-namespaces=rockpool-system"), has("kube-system")},
		"a policy without kube-system": {bytes.Contains(policy, []byte("kube-system")), !has("kube-system")},
		"copies of pull secrets":       {slices.Contains(container.Args, "--copy-pull-secrets"), has("pull-secrets")},
		"a role for pull secrets":      {find("ClusterRole", "rockpool-injector-pull-secrets") != nil, has("pull-secrets")},
		"a network policy":             {find("NetworkPolicy", "rockpool-injector") != nil, has("network-policy")},
	} {
		if is.got != is.want {
			t.Errorf("%s: %v, want %v", name, is.got, is.want)
		}
	}
	if object := find("NetworkPolicy", "rockpool-injector"); object != nil {
		var p networkingv1.NetworkPolicy
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &p); err != nil {
			t.Fatal(err)
		}
		for _, rule := range p.Spec.Ingress {
			for _, allowed := range rule.Ports {
				if allowed.Port.Type == intstr.String {
					port(allowed.Port.StrVal) // a name that no container has lets nobody in
				}
			}
		}
	}
}

func TestTheAPIServerAcceptsEachComponentAndAllTogether(t *testing.T) {
	if _, err := kubectl(t.Context(), "apply", "-f", "testdata/cert-manager-crds.yaml"); err != nil {
		t.Fatal(err)
	}
	if _, err := kubectl(t.Context(), "wait", "--for=condition=Established", "--timeout=30s", "-f", "testdata/cert-manager-crds.yaml"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		if _, err := kubectl(ctx, "apply", "-k", manifests); err != nil {
			t.Error(err)
		}
		for _, kind := range []string{"networkpolicy/rockpool-injector", "role/rockpool-injector-pull-secrets", "rolebinding/rockpool-injector-pull-secrets",
			"clusterrole/rockpool-injector-pull-secrets", "clusterrolebinding/rockpool-injector-pull-secrets"} {
			if _, err := kubectl(ctx, "-n", system, "delete", kind); err != nil {
				t.Error(err)
			}
		}
	})
	all := allComponents(t)
	backwards := slices.Clone(all)
	slices.Reverse(backwards)
	type choice struct {
		overlay    string
		components []string
	}
	choices := []choice{{"default", all}, {"default", backwards}, {"ha", all}, {"cert-manager", all}}
	for _, name := range all {
		choices = append(choices, choice{"default", []string{name}})
	}
	for _, c := range choices {
		t.Run(fmt.Sprint(c.overlay, " with ", c.components), func(t *testing.T) {
			directory := combined(t, c.overlay, c.components)
			out, err := kubectl(t.Context(), "apply", "-k", directory)
			if err != nil || strings.Contains(out, "Warning") {
				t.Fatalf("%v\n%s", err, out)
			}
			acceptsPods(t)
			if changes, err := kubectl(t.Context(), "diff", "-k", directory); err != nil {
				t.Errorf("a second apply would change: %v\n%s", err, changes)
			}
		})
	}
}

// acceptsPods checks that the API server would create the pods of the Deployment: their level of Pod
// Security, priority and service account are judged when the pods are created.
func acceptsPods(t *testing.T) {
	t.Helper()
	deployment, err := plane.Client().AppsV1().Deployments(system).Get(t.Context(), "rockpool-injector", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "rockpool-injector-", Labels: deployment.Spec.Template.Labels, Annotations: deployment.Spec.Template.Annotations},
		Spec:       deployment.Spec.Template.Spec,
	}
	until(t, "a pod is accepted", func() error { // the API server learns of the namespace's labels after a while
		_, err := plane.Client().CoreV1().Pods(system).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	})
}
