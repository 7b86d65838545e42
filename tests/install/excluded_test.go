package install

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/injector/inject"
)

// workload is a manifest in a namespace whose template has metadata.
func workload(kind, namespace, metadata string) string {
	pod := `{"metadata": ` + metadata + `, "spec": {"containers": [{"name": "web", "image": "web:v1"}], "restartPolicy": "Never"}}`
	selected := strings.ReplaceAll(strings.Replace(pod, `"metadata": {`, `"metadata": {"labels": {"app": "web"},`, 1), `,}`, `}`)
	always := strings.Replace(selected, `"Never"`, `"Always"`, 1)
	head := `{"metadata": {"name": "web", "namespace": "` + namespace + `"}, `
	switch kind {
	case "Deployment":
		return head + `"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": ` + always + `}}`
	case "CronJob":
		return head + `"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": ` + pod + `}}}}`
	default:
		return strings.Replace(head, `}, `, `, `+strings.TrimPrefix(strings.TrimSuffix(metadata, "}"), "{")+`}, `, 1) +
			`"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "web", "image": "web:v1"}]}}`
	}
}

func TestWhoAsksForRockpoolInAnExcludedNamespaceIsTold(t *testing.T) {
	kubeSystem(t)
	const asks = `{"annotations": {"rockpool.dev/inject": "true"}}`
	for name, test := range map[string]struct {
		kind, namespace, metadata string
		warned                    bool
	}{
		"a Deployment":               {"Deployment", "kube-system", asks, true},
		"a CronJob":                  {"CronJob", "kube-system", asks, true},
		"a pod":                      {"Pod", "kube-system", asks, true},
		"beside the injector":        {"Deployment", system, asks, true},
		"a Deployment that declines": {"Deployment", "kube-system", `{"annotations": {"rockpool.dev/inject": "false"}}`, false},
		"a Deployment without it":    {"Deployment", "kube-system", `{"annotations": {"a": "b"}}`, false},
		"a pod without metadata":     {"Deployment", "kube-system", `{}`, false},
		"what the command has injected": {"Deployment", "kube-system",
			`{"annotations": {"rockpool.dev/inject": "true", "rockpool.dev/status": "{}"}}`, false},
		"a Deployment elsewhere": {"Deployment", "default", asks, false},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "web.json")
			if err := os.WriteFile(file, []byte(workload(test.kind, test.namespace, test.metadata)), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := kubectl(t.Context(), "apply", "--dry-run=server", "-f", file)
			if err != nil {
				t.Fatal(err)
			}
			if warned := strings.Contains(out, "rockpool: excluded-namespace: pods in the namespace "+test.namespace); warned != test.warned {
				t.Errorf("output: %s", out)
			}
		})
	}
}

// kubeSystem makes what controllers make in the namespace, which do not run here.
func kubeSystem(t *testing.T) {
	t.Helper()
	if err := plane.CreateNamespace(t.Context(), metav1.NamespaceSystem); err != nil {
		t.Fatal(err)
	}
}

// withComponent applies the default overlay with a component until the test ends.
func withComponent(t *testing.T, component string) {
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
	text = append(text, []byte("components:\n- components/"+component+"\n")...)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := kubectl(t.Context(), "apply", "-k", directory); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := kubectl(context.Background(), "apply", "-k", manifests); err != nil {
			t.Error(err)
		}
	})
}

func TestPodsInKubeSystemWithTheLabelAreInjected(t *testing.T) {
	kubeSystem(t)
	withComponent(t, "kube-system")
	f := newFront(t)
	injector, process := replica(t, kubeconfig(t, account(t)), "--excluded-namespaces=rockpool-system")
	until(t, "the injector is ready", func() error { return ready(injector) })
	f.setBackends(injector)

	pod := optedIn(metav1.NamespaceSystem)
	pod.Annotations = map[string]string{"rockpool.dev/log-level": "debug"}
	pod.Labels = map[string]string{"rockpool.dev/inject": "true"}
	has := func(want bool) func() error {
		return func() error {
			got, err := admit(t.Context(), pod)
			if err == nil && (len(got.Spec.InitContainers) == 2) != want {
				err = fmt.Errorf("init containers %v", got.Spec.InitContainers)
			}
			return err
		}
	}
	until(t, "a pod with the label is injected", has(true))
	pod.Labels = nil
	pod.Annotations[inject.AnnotationInject] = "true"
	if err := has(false)(); err != nil {
		t.Errorf("without the label: %v", err)
	}
	until(t, "a damaged pod is refused", func() error { // the API server takes changes of policies in after a while
		_, err := admit(t.Context(), damagedInKubeSystem())
		if err == nil || !strings.Contains(err.Error(), "rockpool-sidecar is gone") {
			return fmt.Errorf("a damaged pod: %v", err)
		}
		return nil
	})
	pod.Labels = map[string]string{"rockpool.dev/inject": "true"}
	delete(pod.Annotations, inject.AnnotationInject)
	if err := process.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	f.setBackends()
	f.drop()
	if err := has(false)(); err != nil {
		t.Errorf("with the injector down: %v", err)
	}
}

// damagedInKubeSystem is a pod that has lost its sidecar.
func damagedInKubeSystem() *corev1.Pod {
	pod := optedIn(metav1.NamespaceSystem)
	pod.Annotations[inject.AnnotationStatus] = "{}"
	return pod
}
