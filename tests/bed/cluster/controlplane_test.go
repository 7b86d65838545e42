package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"rockpool.dev/tests/eventually"
)

// plane is the control plane that the tests of this package share.
var plane *ControlPlane

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if testing.Short() {
		return m.Run()
	}
	var err error
	plane, err = Start(context.Background(), Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, "control plane:", err)
		return 1
	}
	defer plane.Stop()
	return m.Run()
}

// controlPlane returns the shared control plane. It skips the test if there is none.
func controlPlane(t *testing.T) *ControlPlane {
	t.Helper()
	if plane == nil {
		t.Skip("needs a control plane, not started with -short")
	}
	return plane
}

func TestTheAPIServerServesAdministratorsAndRefusesAnonymousClients(t *testing.T) {
	c := controlPlane(t)
	if _, err := c.Client().CoreV1().Secrets("kube-system").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("administrator: %v", err)
	}
	client := &http.Client{Transport: transportFor(t, c.CA())}
	response, err := client.Get("https://" + c.Address() + "/api/v1/secrets")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("anonymous client: %s, want 403", response.Status)
	}
}

func TestKubectlWorksWithTheKubeconfigFile(t *testing.T) {
	c := controlPlane(t)
	output, err := exec.CommandContext(t.Context(), c.Tools().Kubectl, "--kubeconfig", c.Kubeconfig(), "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}").CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl: %v: %s", err, output)
	}
	if string(output) != c.ServiceAddress() {
		t.Errorf("service address %q, want %q", output, c.ServiceAddress())
	}
}

func TestPodsOfACreatedNamespaceMountTheServiceAccount(t *testing.T) {
	c := controlPlane(t)
	for range 2 { // the second call changes nothing
		if err := c.CreateNamespace(t.Context(), "complete"); err != nil {
			t.Fatal(err)
		}
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "p-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	created, err := c.Client().CoreV1().Pods("complete").Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if mounts := created.Spec.Containers[0].VolumeMounts; len(mounts) != 1 {
		t.Errorf("mounts of a created pod: %v, want the service account's", mounts)
	}
}

func TestTheAPIServerCallsWebhooksOnLoopback(t *testing.T) {
	c := controlPlane(t)
	webhook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Result: &metav1.Status{Message: "the webhook says no"}}
		_ = json.NewEncoder(w).Encode(review)
	}))
	defer webhook.Close()
	registrations := c.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err := registrations.Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "no"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "no.example.com",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL:      ptr.To(webhook.URL),
				CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: webhook.Certificate().Raw}),
			},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			}},
			ObjectSelector:          &metav1.LabelSelector{MatchLabels: map[string]string{"refuse": "yes"}},
			SideEffects:             ptr.To(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer registrations.Delete(context.WithoutCancel(t.Context()), "no", metav1.DeleteOptions{})
	eventually.NoError(t, "the API server calls the webhook", func() error {
		_, err := c.Client().CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "refused-", Labels: map[string]string{"refuse": "yes"}},
		}, metav1.CreateOptions{})
		if err == nil || !strings.Contains(err.Error(), "the webhook says no") {
			return fmt.Errorf("create: %v, want the webhook's refusal", err)
		}
		return nil
	})
}

func TestRestartAndCompactKeepDataAndDropHistory(t *testing.T) {
	c := controlPlane(t)
	ctx := t.Context()
	maps := c.Client().CoreV1().ConfigMaps("default")
	before, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Delete(context.WithoutCancel(ctx), "kept", metav1.DeleteOptions{})
	if _, err := maps.Patch(ctx, "kept", types.MergePatchType, []byte(`{"data":{"a":"b"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	address := c.Address()
	if err := c.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if c.Address() != address {
		t.Errorf("address %s after the restart, %s before", c.Address(), address)
	}
	if _, err := maps.Get(ctx, "kept", metav1.GetOptions{}); err != nil {
		t.Errorf("after the restart: %v", err)
	}
	if err := c.Compact(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = maps.List(ctx, metav1.ListOptions{ResourceVersion: before.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	if !apierrors.IsResourceExpired(err) {
		t.Errorf("list at a compacted version: %v, want 410 Gone", err)
	}
}

func TestStartFailsWithTheEndOfTheLog(t *testing.T) {
	c := controlPlane(t)
	_, err := Start(t.Context(), Options{Tools: c.Tools(), APIServerArgs: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("start with a bad flag: %v, want the message of kube-apiserver", err)
	}
}

func TestUnusableToolsAreRejectedWithAReason(t *testing.T) {
	find := func(name string) tool {
		all := slices.Concat(controlPlaneTools, nodeTools)
		return all[slices.IndexFunc(all, func(t tool) bool { return t.name == name })]
	}
	tests := []struct{ name, tool, script, want string }{
		{"an etcd that is too old", "etcd", `echo "etcd Version: 3.4.23"`, "too old"},
		{"an etcd that prints nothing", "etcd", `true`, "does not print a version"},
		{"an etcd that does not run", "etcd", `exit 3`, "exit status 3"},
		{"a kubelet that is too old", "kubelet", `echo Kubernetes v1.28.1`, "too old"},
		{"a containerd that is too old", "containerd", `echo containerd github.com/containerd/containerd 1.7.2`, "does not print a version"},
		{"a runc that is too old", "runc", `printf 'runc version 1.1.5\nlibseccomp: 2.5.4\n'`, "too old"},
		{"a runc that cannot filter system calls", "runc", `echo runc version 1.4.3`, "does not print a version"},
		{"another program named as a plugin", "ptp", `echo point to point`, "does not print a version"},
		{"a plugin that is too old", "host-local", `echo CNI host-local plugin v0.5; echo CNI protocol versions supported: 0.3.1, 0.4.0`, "does not print a version"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			directory := t.TempDir()
			if err := os.WriteFile(filepath.Join(directory, test.tool), []byte("#!/bin/sh\n"+test.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv(AssetsVariable, directory)
			t.Setenv("PATH", "/usr/bin:/bin")
			_, rejected := find(test.tool).find(t.Context())
			if len(rejected) == 0 || !strings.Contains(rejected[0].Error(), test.want) {
				t.Errorf("rejected: %v, want %q", rejected, test.want)
			}
		})
	}
}

func transportFor(t *testing.T, ca []byte) *http.Transport {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("no certificate in the CA")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}
