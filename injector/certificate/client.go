package certificate

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// callTimeout bounds each call of the API server.
const callTimeout = 10 * time.Second

// client makes the five calls that a Rotator needs. The clientset of client-go would add all
// kinds of Kubernetes to the binary, which would grow by half.
type client struct {
	core, admission *rest.RESTClient
	objects         ObjectNames
}

// ObjectNames are the names of the objects that a [Rotator] manages.
type ObjectNames struct {
	// Namespace of Secret and Service.
	Namespace string
	// Secret with the certificate and the CAs. It is created if it is missing.
	Secret string
	// Service of the webhook, which API servers call.
	Service string
	// Configuration is the MutatingWebhookConfiguration. Its webhooks that call the Service get
	// the CAs.
	Configuration string
}

func newClient(config *rest.Config, objects ObjectNames) (*client, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, admissionregistrationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	restClient := func(path string, version schema.GroupVersion) (*rest.RESTClient, error) {
		c := rest.CopyConfig(config)
		c.APIPath, c.GroupVersion, c.NegotiatedSerializer, c.Timeout = path, &version, codecs, callTimeout
		return rest.RESTClientFor(c)
	}
	core, err := restClient("/api", corev1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	admission, err := restClient("/apis", admissionregistrationv1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	return &client{core: core, admission: admission, objects: objects}, nil
}

func (c *client) secret(ctx context.Context) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	return secret, c.core.Get().Namespace(c.objects.Namespace).Resource("secrets").Name(c.objects.Secret).Do(ctx).Into(secret)
}

func (c *client) createSecret(ctx context.Context, secret *corev1.Secret) error {
	return c.core.Post().Namespace(c.objects.Namespace).Resource("secrets").Body(secret).Do(ctx).Error()
}

// updateSecret fails with a conflict if the Secret has changed since it was read.
func (c *client) updateSecret(ctx context.Context, secret *corev1.Secret) error {
	return c.core.Put().Namespace(c.objects.Namespace).Resource("secrets").Name(c.objects.Secret).Body(secret).Do(ctx).Error()
}

// trust sets the caBundle of each webhook that calls the Service: bundle computes it from the
// present one. trust reports whether a bundle has changed. It fails with a conflict if another
// client changes the configuration meanwhile.
func (c *client) trust(ctx context.Context, bundle func(present []byte) []byte) (changed bool, err error) {
	const resource = "mutatingwebhookconfigurations"
	var config admissionregistrationv1.MutatingWebhookConfiguration
	if err := c.admission.Get().Resource(resource).Name(c.objects.Configuration).Do(ctx).Into(&config); err != nil {
		return false, err
	}
	found := false
	// A patch preserves the fields that this version does not know.
	var patch struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Webhooks []webhookPatch `json:"webhooks"`
	}
	patch.Metadata.ResourceVersion = config.ResourceVersion
	for _, hook := range config.Webhooks {
		service := hook.ClientConfig.Service
		if service == nil || service.Name != c.objects.Service || service.Namespace != c.objects.Namespace {
			continue
		}
		found = true
		if want := bundle(hook.ClientConfig.CABundle); string(want) != string(hook.ClientConfig.CABundle) {
			patch.Webhooks = append(patch.Webhooks, webhookPatch{Name: hook.Name, ClientConfig: clientPatch{CABundle: want}})
		}
	}
	if !found {
		return false, fmt.Errorf("mutatingwebhookconfiguration %s: none of its webhooks calls the service %s/%s",
			config.Name, c.objects.Namespace, c.objects.Service)
	}
	if len(patch.Webhooks) == 0 {
		return false, nil
	}
	body, err := json.Marshal(patch)
	if err != nil {
		return false, err
	}
	err = c.admission.Patch(types.StrategicMergePatchType).Resource(resource).Name(c.objects.Configuration).Body(body).Do(ctx).Error()
	return err == nil, err
}

// webhookPatch is merged into the webhook with the same name.
type webhookPatch struct {
	Name         string      `json:"name"`
	ClientConfig clientPatch `json:"clientConfig"`
}

type clientPatch struct {
	CABundle []byte `json:"caBundle"`
}

// labels of a Secret that a Rotator creates.
func (c *client) labels() map[string]string {
	return map[string]string{
		"app.kubernetes.io/name": "rockpool-injector", "app.kubernetes.io/component": "injector",
		"app.kubernetes.io/part-of": "rockpool", LabelManagedBy: ManagedBy,
	}
}

func (c *client) emptySecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.objects.Namespace, Name: c.objects.Secret, Labels: c.labels()},
		Type:       corev1.SecretTypeTLS,
	}
}
