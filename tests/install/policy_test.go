package install

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"rockpool.dev/injector/inject"
)

var params = inject.Params{Image: "rockpool:dev", CacheHostPath: inject.DefaultCacheHostPath}

// injected is a pod after the ServiceAccount admission plugin and the injector. Its annotation is
// removed, so that the API server does not send it to the injector, which would restore it.
func injected(t *testing.T, change func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	plain := optedIn("damage")
	plain.Annotations = nil
	plain.Spec.InitContainers = []corev1.Container{{Name: "migrate", Image: "web:v1"}}
	plain.Spec.Containers = append(plain.Spec.Containers, corev1.Container{Name: "log", Image: "log:v1"})
	pod, err := admit(t.Context(), plain)
	if err != nil {
		t.Fatal(err)
	}
	pod.Annotations = map[string]string{inject.AnnotationInject: "true"}
	if change != nil {
		change(pod)
	}
	pod, result := inject.Inject(pod, inject.Facts{Namespace: "damage"}, params)
	if result.Outcome != inject.Injected {
		t.Fatalf("%s: %s", result.Outcome, result.Cause)
	}
	delete(pod.Annotations, inject.AnnotationInject)
	pod.ObjectMeta = metav1.ObjectMeta{Namespace: "damage", GenerateName: "web-", Annotations: pod.Annotations}
	return pod
}

func sidecar(pod *corev1.Pod) *corev1.Container {
	i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == inject.ContainerSidecar })
	return &pod.Spec.InitContainers[i]
}

func setEnv(c *corev1.Container, name, value string) {
	for i := range c.Env {
		if c.Env[i].Name == name {
			c.Env[i].Value = value
		}
	}
}

func TestDamagedPodsAreRefused(t *testing.T) {
	if err := plane.CreateNamespace(t.Context(), "damage"); err != nil {
		t.Fatal(err)
	}
	without := func(mounts []corev1.VolumeMount, path string) []corev1.VolumeMount {
		return slices.DeleteFunc(mounts, func(m corev1.VolumeMount) bool { return m.MountPath == path })
	}
	const accountPath = "/var/run/secrets/kubernetes.io/serviceaccount"
	// It takes a moment until the policy is in effect.
	until(t, "the policy is in effect", func() error {
		pod := injected(t, nil)
		sidecar(pod).RestartPolicy = nil
		if _, err := admit(t.Context(), pod); err == nil {
			return errors.New("not yet")
		}
		return nil
	})
	for _, tt := range []struct {
		name   string
		before func(*corev1.Pod)
		damage func(*corev1.Pod)
		want   string // "": admitted
	}{
		{"a correct pod", nil, func(*corev1.Pod) {}, ""},
		{"a pod in which the sidecar answers at the API server's names", func(p *corev1.Pod) { p.Annotations[inject.AnnotationAPINames] = "true" }, func(p *corev1.Pod) {
			if len(p.Spec.HostAliases) != 1 || len(p.Spec.SecurityContext.Sysctls) != 1 {
				t.Errorf("host aliases %v, security context %v", p.Spec.HostAliases, p.Spec.SecurityContext)
			}
		}, ""},
		{"a pod of an IPv6 cluster", nil, func(p *corev1.Pod) {
			for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
				for i := range list {
					setEnv(&list[i], "KUBERNETES_SERVICE_HOST", "::1")
				}
			}
		}, ""},
		{"changes that other webhooks may make", nil, func(p *corev1.Pod) {
			sidecar(p).Image = "mirror.example.com/rockpool:dev"
			sidecar(p).Env = append(sidecar(p).Env, corev1.EnvVar{Name: "HTTPS_PROXY", Value: "http://proxy"})
			p.Spec.InitContainers = append([]corev1.Container{{Name: "first", Image: "other:v1", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}}, p.Spec.InitContainers...)
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "mesh", Image: "mesh:v1", Env: []corev1.EnvVar{{Name: "A", Value: "b"}}})
		}, ""},
		{"a container with its own address on loopback", func(p *corev1.Pod) {
			p.Spec.Containers[1].Env = []corev1.EnvVar{{Name: "KUBERNETES_SERVICE_HOST", Value: "127.0.0.1"}, {Name: "KUBERNETES_SERVICE_PORT", Value: "8443"}}
		}, func(*corev1.Pod) {}, ""},
		{"a pod that has opted out, with a stale status", nil, func(p *corev1.Pod) {
			p.Annotations[inject.AnnotationInject] = "false"
			p.Spec.InitContainers = nil
		}, ""},
		{"the sidecar is missing", nil, func(p *corev1.Pod) {
			p.Spec.InitContainers = slices.DeleteFunc(p.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == inject.ContainerSidecar })
		}, "rockpool-sidecar is gone"},
		{"all init containers are missing", nil, func(p *corev1.Pod) { p.Spec.InitContainers = nil }, "rockpool-sidecar is gone"},
		{"the sidecar is an ordinary init container", nil, func(p *corev1.Pod) {
			sidecar(p).RestartPolicy, sidecar(p).Lifecycle = nil, nil
		}, "restartPolicy: Always"},
		{"the sidecar's cache volume is missing", nil, func(p *corev1.Pod) { sidecar(p).VolumeMounts = without(sidecar(p).VolumeMounts, "/var/lib/rockpool") }, "has lost a volume"},
		{"a container does not have the address", nil, func(p *corev1.Pod) { p.Spec.Containers[1].Env = nil }, "must have its address, and these have not: log:"},
		{"an init container has another address", nil, func(p *corev1.Pod) {
			setEnv(&p.Spec.InitContainers[2], "KUBERNETES_SERVICE_HOST", "10.96.0.1")
		}, "must have its address, and these have not: migrate:"},
		{"a container has another port", nil, func(p *corev1.Pod) { setEnv(&p.Spec.Containers[0], "KUBERNETES_SERVICE_PORT", "443") }, "must have its address, and these have not: web:"},
		// The ServiceAccount admission plugin mounts the token where no volume is mounted.
		{"a container does not have its service account", nil, func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = without(p.Spec.Containers[0].VolumeMounts, accountPath)
		}, "a service account that does not trust it: web:"},
		{"no container has its service account", nil, func(p *corev1.Pod) {
			p.Spec.AutomountServiceAccountToken = ptr.To(false)
			for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
				for i := range list {
					if c := &list[i]; c.Name != inject.ContainerSidecar {
						c.VolumeMounts = without(c.VolumeMounts, accountPath)
					}
				}
			}
		}, "no container has the service account"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := injected(t, tt.before)
			tt.damage(pod)
			_, err := admit(t.Context(), pod)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "rockpool-injected-pods")) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestCorrectlyInjectedPodsAreAdmitted injects the pods of the injector's golden files.
func TestCorrectlyInjectedPodsAreAdmitted(t *testing.T) {
	if err := plane.CreateNamespace(t.Context(), "damage"); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../injector/testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	admitted := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var pod corev1.Pod
		if err := yaml.Unmarshal(text, &pod); err != nil || pod.Kind != "Pod" || strings.HasSuffix(file, ".injected.yaml") {
			continue
		}
		asked := pod.Annotations
		// The service account and the node do not matter here.
		pod.ObjectMeta = metav1.ObjectMeta{Namespace: "damage", GenerateName: "web-"}
		pod.Spec.ServiceAccountName, pod.Spec.NodeName, pod.Spec.PriorityClassName = "default", "", ""
		seen, err := admit(t.Context(), &pod)
		if err != nil {
			t.Logf("%s is not valid: %v", filepath.Base(file), err)
			continue
		}
		seen.Annotations = asked
		made, result := inject.Inject(seen, inject.Facts{Namespace: "damage"}, params)
		if result.Outcome != inject.Injected {
			continue
		}
		delete(made.Annotations, inject.AnnotationInject)
		made.ObjectMeta = metav1.ObjectMeta{Namespace: "damage", GenerateName: "web-", Annotations: made.Annotations}
		if _, err = admit(t.Context(), made); err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
		}
		admitted++
	}
	if admitted < 10 {
		t.Errorf("only %d pods were admitted, too few for this test", admitted)
	}
}

// TestALaterWebhookThatStripsFieldsLeavesNoBrokenPod has a webhook that was built for an older API:
// it returns a pod without the fields that it does not know, also when it is called again after the
// injector has restored them.
func TestALaterWebhookThatStripsFieldsLeavesNoBrokenPod(t *testing.T) {
	if err := plane.CreateNamespace(t.Context(), "stripped"); err != nil {
		t.Fatal(err)
	}
	deleteSecret(t)
	f := newFront(t)
	address, _ := replica(t, kubeconfig(t, account(t)))
	until(t, "the injector is ready", func() error { return ready(address) })
	f.setBackends(address)
	until(t, "pods are injected", func() error {
		_, err := admit(t.Context(), optedIn("stripped"))
		return err
	})

	stripper := httptest.NewUnstartedServer(http.HandlerFunc(strip))
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	stripper.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	stripper.StartTLS()
	t.Cleanup(stripper.Close)
	hook := admissionregistrationv1.MutatingWebhook{
		Name: "strip.example.com", AdmissionReviewVersions: []string{"v1"}, SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone),
		ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: ptr.To(stripper.URL), CABundle: certPEM},
		Rules: []admissionregistrationv1.RuleWithOperations{{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
			Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
		}},
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: "stripped"}},
	}
	for _, tt := range []struct {
		policy admissionregistrationv1.ReinvocationPolicyType
		want   string
	}{
		// The API server calls the injector again, as the last webhook.
		{admissionregistrationv1.NeverReinvocationPolicy, ""},
		// The API server calls the other webhook last, and the policy refuses the pod.
		{admissionregistrationv1.IfNeededReinvocationPolicy, "restartPolicy: Always"},
	} {
		t.Run(string(tt.policy), func(t *testing.T) {
			hook.ReinvocationPolicy = &tt.policy
			api := plane.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
			config := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "zz-" + strings.ToLower(string(tt.policy))}, Webhooks: []admissionregistrationv1.MutatingWebhook{hook}}
			if _, err := api.Create(t.Context(), config, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := api.Delete(t.Context(), config.Name, metav1.DeleteOptions{}); err != nil {
					t.Error(err)
				}
			}()
			until(t, "the API server calls the other webhook", func() error {
				plain := optedIn("stripped")
				plain.Annotations = nil
				if pod, err := admit(t.Context(), plain); err != nil || pod.Annotations["stripped"] == "" {
					return errors.New("not yet")
				}
				return nil
			})
			pod, err := admit(t.Context(), optedIn("stripped"))
			switch {
			case tt.want == "":
				if err != nil || sidecar(pod).RestartPolicy == nil {
					t.Errorf("not restored: %v", err)
				}
			case err == nil || !strings.Contains(err.Error(), tt.want):
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// strip answers a review with a patch that removes the restartPolicy of each init container, and
// marks the pod.
func strip(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	var pod corev1.Pod
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := json.Unmarshal(review.Request.Object.Raw, &pod); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value,omitempty"`
	}
	var patch []operation
	if pod.Annotations == nil {
		patch = append(patch, operation{"add", "/metadata/annotations", map[string]string{}})
	}
	patch = append(patch, operation{"add", "/metadata/annotations/stripped", "yes"})
	for i, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil {
			patch = append(patch, operation{Op: "remove", Path: fmt.Sprintf("/spec/initContainers/%d/restartPolicy", i)},
				operation{Op: "remove", Path: fmt.Sprintf("/spec/initContainers/%d/lifecycle", i)})
		}
	}
	text, err := json.Marshal(patch)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true, Patch: text, PatchType: ptr.To(admissionv1.PatchTypeJSONPatch)}
	review.Request = nil
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review) // the API server reports an error
}
