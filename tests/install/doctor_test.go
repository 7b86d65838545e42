package install

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"rockpool.dev/injector/inject"
)

// finding is a line of the doctor.
type finding struct{ Level, Code, Fact string }

// diagnose runs the doctor as a person does, and returns its findings by their codes.
func diagnose(t *testing.T, kubeconfig string, args ...string) map[string]finding {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"doctor", "--json", "--kubeconfig=" + kubeconfig, "--probe-namespace=doctor"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var all []finding
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("%v: %s%s", err, out, &stderr)
	}
	found, failed := map[string]finding{}, false
	for _, f := range all {
		found[f.Code] = f
		failed = failed || f.Level == "FAIL"
	}
	if failed != (exit != nil) {
		t.Errorf("exit %v, and the findings are %+v", exit, all)
	}
	return found
}

// backend accepts connections, and does with them what f does.
func backend(t *testing.T, f func(net.Conn)) (address string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				f(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

// selfSigned is a certificate for the injector's name that nobody trusts.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// setBundle replaces the caBundle of each webhook by a certificate; nil: by nothing.
func setBundle(t *testing.T, der []byte) {
	t.Helper()
	configs := plane.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	config, err := configs.Get(t.Context(), "rockpool", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range config.Webhooks {
		config.Webhooks[i].ClientConfig.CABundle = nil
		if der != nil {
			config.Webhooks[i].ClientConfig.CABundle = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		}
	}
	if _, err := configs.Update(t.Context(), config, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// The doctor names what a real API server meets when it calls the webhook.
func TestTheDoctorSeesTheWebhookAsTheAPIServerDoes(t *testing.T) {
	if err := plane.CreateNamespace(t.Context(), "doctor"); err != nil {
		t.Fatal(err)
	}
	namespaces := plane.Client().CoreV1().Namespaces()
	namespace, err := namespaces.Get(t.Context(), "doctor", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	namespace.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
	if _, err := namespaces.Update(t.Context(), namespace, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	deleteSecret(t)
	f := newFront(t)
	address, process := replica(t, kubeconfig(t, account(t)))
	until(t, "the replica is ready", func() error { return ready(address) })
	f.setBackends(address)
	until(t, "pods are injected", func() error {
		_, err := admit(t.Context(), optedIn("doctor"))
		if err != nil && strings.Contains(err.Error(), "violates PodSecurity") {
			return nil // injected, and of no interest here
		}
		return err
	})
	admin := plane.Kubeconfig()

	found := diagnose(t, admin)
	for _, code := range []string{"api-server", "webhook", "certificate", "call", "nodes", "sidecars"} {
		if found[code].Level != "OK" {
			t.Errorf("%s: %+v", code, found[code])
		}
	}
	for code, f := range found {
		if f.Level != "OK" {
			t.Errorf("%s: %+v", code, f)
		}
	}

	certificate := selfSigned(t)
	for _, test := range []struct {
		name, code string
		backend    string
	}{
		{"a backend with another certificate", "call-untrusted", backend(t, func(c net.Conn) {
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}}).Handshake()
		})},
		{"a backend that is silent", "call-silent", backend(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1<<16)); _, _ = c.Read(make([]byte, 1)) })},
		{"a backend that hangs up", "call-fails", backend(t, func(net.Conn) {})},
	} {
		f.setBackends(test.backend)
		f.drop()
		if found := diagnose(t, admin); found[test.code].Level != "FAIL" || found["call"].Level != "" {
			t.Errorf("%s: %+v", test.name, found)
		}
	}

	// The injector repairs the bundle while it runs.
	if err := process.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = process.Wait()
	_ = f.listener.Close()
	f.drop()
	if found := diagnose(t, admin); found["call-refused"].Level != "FAIL" || found["call"].Level != "" {
		t.Errorf("nobody listens: %+v", found)
	}
	setBundle(t, certificate.Certificate[0])
	if found := diagnose(t, admin); found["ca-bundle-mismatch"].Level != "FAIL" {
		t.Errorf("another bundle: %+v", found)
	}
	setBundle(t, nil)
	if found := diagnose(t, admin); found["ca-bundle-empty"].Level != "FAIL" {
		t.Errorf("no bundle: %+v", found)
	}
	limited := diagnose(t, kubeconfig(t, account(t)))
	if limited["not-allowed"].Level != "WARN" || limited["api-server"].Level != "OK" {
		t.Errorf("with few rights: %+v", limited)
	}
}

func TestTheDoctorJudgesPodsOfACluster(t *testing.T) {
	if err := plane.CreateNamespace(t.Context(), "doctor"); err != nil {
		t.Fatal(err)
	}
	for _, pod := range []*corev1.Pod{optedIn("doctor"), optedIn("kube-system")} {
		pod.Annotations = nil
		pod.GenerateName, pod.Name = "", "plain"
		if err := plane.CreateNamespace(t.Context(), pod.Namespace); err != nil {
			t.Fatal(err)
		}
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
		pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
		if _, err := plane.Client().CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	patch := []byte(`{"metadata":{"annotations":{"` + inject.AnnotationInject + `":"true"}}}`)
	admin := plane.Kubeconfig()
	for _, test := range []struct{ pod, before, after string }{
		{"doctor/plain", "pod-not-requested", "pod-older"}, {"kube-system/plain", "pod-not-requested", "pod-excluded"},
	} {
		if found := diagnose(t, admin, "--pod="+test.pod); found[test.before].Level != "FAIL" {
			t.Errorf("%s: %+v", test.pod, found)
		}
		namespace, name, _ := strings.Cut(test.pod, "/")
		if _, err := plane.Client().CoreV1().Pods(namespace).Patch(t.Context(), name, "application/merge-patch+json", patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		if found := diagnose(t, admin, "--pod="+test.pod); found[test.after].Level != "FAIL" {
			t.Errorf("%s with the annotation: %+v", test.pod, found)
		}
	}
	deployment := filepath.Join(t.TempDir(), "deployment.yaml")
	const text = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: doctor, annotations: {rockpool.dev/inject: "true"}},
spec: {template: {spec: {containers: [{name: a, image: a:v1}]}}}}`
	if err := os.WriteFile(deployment, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if found := diagnose(t, admin, "-f", deployment); found["annotation-misplaced"].Level != "FAIL" {
		t.Errorf("a Deployment with the annotation: %+v", found)
	}
}
