package install

import (
	"bytes"
	"context"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/injector/certificate"
	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/webhook"
)

const secretName = "rockpool-injector-certificate"

func secret(t *testing.T) *corev1.Secret {
	t.Helper()
	s, err := plane.Client().CoreV1().Secrets(system).Get(t.Context(), secretName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func bundle(t *testing.T) []byte {
	t.Helper()
	config, err := plane.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), "rockpool", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, hook := range config.Webhooks {
		if !bytes.Equal(hook.ClientConfig.CABundle, config.Webhooks[0].ClientConfig.CABundle) {
			t.Fatalf("webhook %s has another bundle", hook.Name)
		}
	}
	return config.Webhooks[0].ClientConfig.CABundle
}

func deleteSecret(t *testing.T) {
	t.Helper()
	err := plane.Client().CoreV1().Secrets(system).Delete(t.Context(), secretName, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

// optedIn is a pod with Rockpool's annotation.
func optedIn(namespace string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "web-", Annotations: map[string]string{inject.AnnotationInject: "true"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web:v1"}}},
	}
}

// admit has the API server admit a pod in a dry run.
func admit(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return plane.Client().CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

func TestTwoReplicasAgreeOnOneCertificate(t *testing.T) {
	if err := plane.CreateNamespace(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	deleteSecret(t)
	f := newFront(t)
	kubeconfig := kubeconfig(t, account(t))
	one, first := replica(t, kubeconfig)
	two, _ := replica(t, kubeconfig)
	for _, address := range []string{one, two} {
		until(t, "replica "+address+" is ready", func() error { return ready(address) })
		if _, err := served(address, bundle(t)); err != nil {
			t.Errorf("the ready replica has a certificate that API servers do not trust: %v", err)
		}
	}
	a, err := served(one, bundle(t))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := served(two, bundle(t)); err != nil || !a.Equal(b) {
		t.Errorf("the replicas serve different certificates: %v", err)
	}
	if s := secret(t); s.Labels[certificate.LabelManagedBy] != certificate.ManagedBy || s.Type != corev1.SecretTypeTLS {
		t.Errorf("the Secret is a %s with labels %v", s.Type, s.Labels)
	}

	f.setBackends(one, two)
	until(t, "pods are injected", func() error {
		_, err := admit(t.Context(), optedIn("shop"))
		return err
	})
	if err := first.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	f.setBackends(two)
	for range 5 {
		pod, err := admit(t.Context(), optedIn("shop"))
		if err != nil || len(pod.Spec.InitContainers) != 2 {
			t.Fatalf("with one replica: %v", err)
		}
	}
	plain := optedIn("shop")
	plain.Annotations = nil
	f.setBackends()
	f.drop()
	if _, err := admit(t.Context(), plain); err != nil {
		t.Errorf("without replicas, a pod without the annotation: %v", err)
	}
	if _, err := admit(t.Context(), optedIn("shop")); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
		t.Errorf("without replicas, a pod with the annotation: %v", err)
	}

	before := bundle(t)
	if _, err := kubectl(t.Context(), "apply", "-k", manifests); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bundle(t), before) {
		t.Error("another apply has changed the bundle")
	}
	// As Argo CD and Flux compare. It fails if there is a difference.
	if out, err := kubectl(t.Context(), "diff", "--server-side", "--force-conflicts", "--field-manager=argocd-controller", "-k", manifests); err != nil {
		t.Errorf("on the API server's side, there is a difference: %v\n%s", err, out)
	}
}

// TestNoAdmissionFailsDuringARotation has three replicas during the lifetimes of two CAs, an hour
// in steps of a minute. Certificates are backdated, so each is also valid by the API server's
// clock.
func TestNoAdmissionFailsDuringARotation(t *testing.T) {
	if err := plane.CreateNamespace(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	deleteSecret(t)
	f := newFront(t)
	policy := certificate.DefaultPolicy("rockpool-injector", system)
	policy.CAValidity, policy.CARenewal, policy.Validity, policy.Renewal, policy.Settle = 50*time.Minute, 25*time.Minute, 20*time.Minute, 8*time.Minute, 4*time.Minute
	began := time.Now()
	config := account(t)
	var replicas []*inProcess
	for range 3 { // concurrently, so that they race for the Secret
		replicas = append(replicas, startInProcess(t, config, policy, began))
	}
	var addresses []string
	for _, r := range replicas {
		until(t, "the replica is ready", r.server.Ready)
		addresses = append(addresses, r.address)
	}
	f.setBackends(addresses...)
	until(t, "pods are injected", func() error {
		_, err := admit(t.Context(), optedIn("shop"))
		return err
	})

	old := secret(t).Data[certificate.KeyCA]
	leaves, most := map[string]bool{}, 0
	for minute := range 58 {
		for _, r := range replicas {
			until(t, "the replica waits", r.waiting)
			r.clock.Step(time.Minute)
		}
		for _, r := range replicas {
			until(t, "the replica waits", r.waiting)
		}
		trusted := bundle(t)
		most = max(most, bytes.Count(trusted, []byte("BEGIN CERTIFICATE")))
		for _, address := range addresses {
			cert, err := served(address, trusted)
			if err != nil {
				t.Fatalf("minute %d: %v", minute, err)
			}
			leaves[cert.SerialNumber.String()] = true
		}
		f.drop()
		for range replicas {
			if pod, err := admit(t.Context(), optedIn("shop")); err != nil || len(pod.Spec.InitContainers) != 2 {
				t.Fatalf("minute %d: %v", minute, err)
			}
			f.drop()
		}
		if minute == 46 { // the Secret is deleted
			deleteSecret(t)
		}
		if minute == 40 { // the Secret is damaged, after the rotation
			s := secret(t)
			s.Data[corev1.TLSPrivateKeyKey] = s.Data[corev1.TLSPrivateKeyKey][:50]
			if _, err := plane.Client().CoreV1().Secrets(system).Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	now := secret(t).Data[certificate.KeyCA]
	if most != 2 || bytes.Contains(now, old) || !bytes.Equal(bundle(t), now) {
		t.Errorf("no complete rotation: at most %d CAs were trusted, and the first one at the end: %t", most, bytes.Contains(now, old))
	}
	if len(leaves) < 5 {
		t.Errorf("%d certificates were served", len(leaves))
	}
}

// inProcess is a replica in this process, whose clock the test sets.
type inProcess struct {
	address string
	server  *webhook.Server
	clock   *clocktesting.FakeClock
}

func (r *inProcess) waiting() error {
	if r.clock.Waiters() == 0 {
		return context.DeadlineExceeded
	}
	return nil
}

func startInProcess(t *testing.T, config *rest.Config, policy certificate.Policy, now time.Time) *inProcess {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &inProcess{address: listener.Addr().String(), clock: clocktesting.NewFakeClock(now)}
	objects := certificate.ObjectNames{Namespace: system, Secret: secretName, Service: "rockpool-injector", Configuration: "rockpool"}
	rotator, err := certificate.NewRotator(config, objects, policy, zap.NewNop(), r.clock)
	if err != nil {
		t.Fatal(err)
	}
	r.server = webhook.New(webhook.Options{
		Params:      webhook.Always(params),
		Certificate: rotator.Get, Trusted: rotator.Ready, Log: zap.NewNop(), ShutdownGrace: time.Second,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { rotator.Run(ctx) })
	group.Go(func() {
		if err := r.server.Serve(ctx, listener); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); group.Wait() })
	return r
}

func TestTheInjectorHasOnlyThePermissionsThatItNeeds(t *testing.T) {
	type access = authorizationv1.ResourceAttributes
	const admission = "admissionregistration.k8s.io"
	for _, tt := range []struct {
		allowed bool
		access
	}{
		{true, access{Verb: "create", Namespace: system, Resource: "secrets"}},
		{true, access{Verb: "get", Namespace: system, Resource: "secrets", Name: secretName}},
		{true, access{Verb: "update", Namespace: system, Resource: "secrets", Name: secretName}},
		{true, access{Verb: "get", Group: admission, Resource: "mutatingwebhookconfigurations", Name: "rockpool"}},
		{true, access{Verb: "patch", Group: admission, Resource: "mutatingwebhookconfigurations", Name: "rockpool"}},
		{true, access{Verb: "get", Resource: "namespaces", Name: "shop"}},
		{true, access{Verb: "get", Resource: "nodes", Name: "any"}},

		{false, access{Verb: "get", Namespace: system, Resource: "secrets", Name: "other"}},
		{false, access{Verb: "list", Namespace: system, Resource: "secrets"}},
		{false, access{Verb: "delete", Namespace: system, Resource: "secrets", Name: secretName}},
		{false, access{Verb: "get", Namespace: "shop", Resource: "secrets", Name: secretName}},
		{false, access{Verb: "create", Namespace: "shop", Resource: "secrets"}},
		{false, access{Verb: "patch", Group: admission, Resource: "mutatingwebhookconfigurations", Name: "other"}},
		{false, access{Verb: "create", Group: admission, Resource: "mutatingwebhookconfigurations"}},
		{false, access{Verb: "delete", Group: admission, Resource: "mutatingwebhookconfigurations", Name: "rockpool"}},
		{false, access{Verb: "patch", Group: admission, Resource: "validatingadmissionpolicies", Name: "rockpool-injected-pods"}},
		{false, access{Verb: "get", Namespace: system, Resource: "pods", Name: "any"}},
		{false, access{Verb: "list", Resource: "namespaces"}},
		{false, access{Verb: "list", Resource: "nodes"}},
		{false, access{Verb: "create", Namespace: system, Resource: "serviceaccounts", Subresource: "token", Name: "rockpool-injector"}},
		{false, access{Verb: "*", Group: "*", Resource: "*"}},
	} {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User:               "system:serviceaccount:" + system + ":rockpool-injector",
			Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + system, "system:authenticated"},
			ResourceAttributes: &tt.access,
		}}
		got, err := plane.Client().AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got.Status.Allowed != tt.allowed {
			t.Errorf("%s %s/%s %q in %q: allowed %t", tt.Verb, tt.Group, tt.Resource, tt.Name, tt.Namespace, got.Status.Allowed)
		}
	}
}
