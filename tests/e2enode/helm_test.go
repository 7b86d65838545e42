package e2enode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/cluster"
)

const chart = "../../manifests/helm"

// TestTheHelmChart takes over the installation from the manifests, changes it, removes it, and installs
// it again. The manifests are applied again afterwards.
func TestTheHelmChart(t *testing.T) {
	s := newSite(t, "helm")
	program, err := cluster.FindHelm(s.ctx, os.Stderr)
	s.try(err)
	helm := func(args ...string) (string, error) {
		return testEnv.command(s.ctx, append([]string{program, "--namespace=rockpool-system"}, args...)...)
	}
	must := func(args ...string) {
		t.Helper()
		out, err := helm(args...)
		if err != nil {
			t.Log(s.admin("get", "pods,events", "-A"))
		}
		s.try(err)
		t.Logf("helm %s: %s", args[0], strings.SplitN(out, "\n", 2)[0])
	}
	t.Cleanup(func() {
		s.admin("delete", "namespace", "rockpool-check", "--ignore-not-found", "--timeout=90s")
		if err := testEnv.install(context.WithoutCancel(s.ctx)); err != nil {
			t.Error(err)
		}
	})

	// Helm takes the installation over, and leaves what has another name there.
	must("install", "rockpool", chart, "--take-ownership", "--force-conflicts", "--values=testdata/helm.yaml", "--wait", "--timeout=90s")
	s.admin("-n", "rockpool-system", "delete", "configmap", "-l", "app.kubernetes.io/part-of=rockpool,app.kubernetes.io/managed-by=kustomize")
	s.until("the API server calls the webhook", func(ctx context.Context) error { return s.injects(ctx, true) })
	s.noDrift(helm)
	first := s.bundle()

	// The injector makes another CA, which Helm must neither see nor undo.
	s.admin("-n", "rockpool-system", "delete", "secret", "rockpool-injector-certificate")
	s.until("the CA is another one", func(context.Context) error {
		if bytes.Equal(s.bundle(), first) {
			return errors.New("the bundle has not changed")
		}
		return nil
	})
	s.noDrift(helm)
	must("upgrade", "rockpool", chart, "--reset-then-reuse-values", "--set=settings.log_level=debug,flags.log-level=debug", "--wait", "--timeout=90s")
	s.until("pods are injected after the upgrade", func(ctx context.Context) error { return s.injects(ctx, true) })
	if level := s.level(); level != "debug" {
		t.Errorf("log_level after the upgrade is %q", level)
	}
	s.noDrift(helm, "--set=settings.log_level=debug,flags.log-level=debug")

	must("rollback", "rockpool", "1", "--wait", "--timeout=90s")
	s.until("pods are injected after the rollback", func(ctx context.Context) error { return s.injects(ctx, true) })
	if level := s.level(); level != "" {
		t.Errorf("log_level after the rollback is %q", level)
	}

	// Somebody else changes what the chart sets.
	s.admin("-n", "rockpool-system", "patch", "configmap", "rockpool-cfg", "-p", `{"data":{"upstreams":"https://203.0.113.11:6443"}}`)
	if out, err := helm("upgrade", "rockpool", chart, "--reset-then-reuse-values", "--set=upstreams={https://203.0.113.12:6443}"); err == nil || !strings.Contains(err.Error(), "conflict") {
		t.Errorf("an upgrade over a change by somebody else: %v\n%s", err, out)
	}
	must("upgrade", "rockpool", chart, "--reset-then-reuse-values", "--values=testdata/helm.yaml", "--force-conflicts", "--wait", "--timeout=90s")

	s.uninstalls(must)

	s.admin("delete", "namespace", "rockpool-system", "--timeout=90s")
	must("install", "rockpool", chart, "--create-namespace", "--values=testdata/helm.yaml", "--wait", "--timeout=90s")
	s.until("pods are injected after a new installation", func(ctx context.Context) error { return s.injects(ctx, true) })
	s.uninstalls(must)
}

// uninstalls uninstalls the chart as docs/install.md says, and checks that nothing of it is left.
func (s *site) uninstalls(must func(...string)) {
	s.t.Helper()
	must("uninstall", "rockpool", "--wait", "--timeout=90s")
	s.admin("delete", "configmap", "-A", "--field-selector", "metadata.name=rockpool-sidecar") // of all namespaces that had injected pods
	s.until("nothing is left, once the pods have ended", func(context.Context) error {
		left := s.admin("get", "all,configmaps,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,mutatingwebhookconfigurations,"+
			"validatingadmissionpolicies,validatingadmissionpolicybindings,priorityclasses", "-A", "-l", "app.kubernetes.io/part-of=rockpool", "-o", "name")
		if left = strings.TrimSpace(left); left != "" {
			return errors.New(left)
		}
		return nil
	})
	s.try(s.injects(s.ctx, false))
}

// noDrift checks that a tool that applies the output of helm template on the API server's side would
// see no difference.
func (s *site) noDrift(helm func(...string) (string, error), values ...string) {
	s.t.Helper()
	out, err := helm(append([]string{"template", "rockpool", chart, "--values=testdata/helm.yaml"}, values...)...)
	s.try(err)
	file := filepath.Join(s.t.TempDir(), "objects.yaml")
	s.try(os.WriteFile(file, []byte(out), 0o600))
	s.admin("diff", "--server-side", "--force-conflicts", "--field-manager=argocd-controller", "-f", file) // fails if there is a difference
}

// injects returns nil if the API server has a pod with the annotation injected, or not.
func (s *site) injects(ctx context.Context, want bool) error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "check", Annotations: map[string]string{"rockpool.dev/inject": "true"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: programsImage}}},
	}
	pod, err := testEnv.Client().CoreV1().Pods(s.namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil && len(pod.Spec.InitContainers) > 0 != want {
		err = fmt.Errorf("the pod has %d init containers", len(pod.Spec.InitContainers))
	}
	return err
}

// bundle is the caBundle of the webhook.
func (s *site) bundle() []byte {
	s.t.Helper()
	config, err := testEnv.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Get(s.ctx, "rockpool", metav1.GetOptions{})
	s.try(err)
	return config.Webhooks[0].ClientConfig.CABundle
}

// level is the log_level of rockpool-cfg.
func (s *site) level() string {
	s.t.Helper()
	cfg, err := testEnv.Client().CoreV1().ConfigMaps("rockpool-system").Get(s.ctx, "rockpool-cfg", metav1.GetOptions{})
	s.try(err)
	return cfg.Data["log_level"]
}
