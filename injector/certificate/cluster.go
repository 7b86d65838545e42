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

// cluster makes the five calls that a Keeper needs. The clientset of client-go would bring
// every kind of Kubernetes into the binary, half of its present size again.
type cluster struct {
	core, admission *rest.RESTClient
	where           Where
}

// Where names the objects that a [Keeper] works on.
type Where struct {
	// Namespace of Secret and Service.
	Namespace string
	// Secret with the certificate and the CAs. It is made if there is none.
	Secret string
	// Service that API servers call the webhook by.
	Service string
	// Configuration is the name of the MutatingWebhookConfiguration; those of its webhooks that
	// lead to the Service get the CAs.
	Configuration string
}

func newCluster(config *rest.Config, where Where) (*cluster, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, admissionregistrationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	client := func(path string, version schema.GroupVersion) (*rest.RESTClient, error) {
		c := rest.CopyConfig(config)
		c.APIPath, c.GroupVersion, c.NegotiatedSerializer, c.Timeout = path, &version, codecs, callTimeout
		return rest.RESTClientFor(c)
	}
	core, err := client("/api", corev1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	admission, err := client("/apis", admissionregistrationv1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	return &cluster{core: core, admission: admission, where: where}, nil
}

func (c *cluster) secret(ctx context.Context) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	return secret, c.core.Get().Namespace(c.where.Namespace).Resource("secrets").Name(c.where.Secret).Do(ctx).Into(secret)
}

func (c *cluster) createSecret(ctx context.Context, secret *corev1.Secret) error {
	return c.core.Post().Namespace(c.where.Namespace).Resource("secrets").Body(secret).Do(ctx).Error()
}

// updateSecret is a conflict if the Secret is no longer at the version that was read.
func (c *cluster) updateSecret(ctx context.Context, secret *corev1.Secret) error {
	return c.core.Put().Namespace(c.where.Namespace).Resource("secrets").Name(c.where.Secret).Body(secret).Do(ctx).Error()
}

// trust sets the bundle of each webhook that leads to the Service to what bundle makes of the present
// one, and tells whether there was anything to change. It is a conflict if somebody else changes
// the configuration meanwhile.
func (c *cluster) trust(ctx context.Context, bundle func(present []byte) []byte) (changed bool, err error) {
	const resource = "mutatingwebhookconfigurations"
	var config admissionregistrationv1.MutatingWebhookConfiguration
	if err := c.admission.Get().Resource(resource).Name(c.where.Configuration).Do(ctx).Into(&config); err != nil {
		return false, err
	}
	found := false
	// A patch, so that fields that we do not know survive.
	var patch struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Webhooks []webhookPatch `json:"webhooks"`
	}
	patch.Metadata.ResourceVersion = config.ResourceVersion
	for _, hook := range config.Webhooks {
		service := hook.ClientConfig.Service
		if service == nil || service.Name != c.where.Service || service.Namespace != c.where.Namespace {
			continue
		}
		found = true
		if want := bundle(hook.ClientConfig.CABundle); string(want) != string(hook.ClientConfig.CABundle) {
			patch.Webhooks = append(patch.Webhooks, webhookPatch{Name: hook.Name, ClientConfig: clientPatch{CABundle: want}})
		}
	}
	if !found {
		return false, fmt.Errorf("mutatingwebhookconfiguration %s: no webhook in it leads to the service %s/%s", config.Name, c.where.Namespace, c.where.Service)
	}
	if len(patch.Webhooks) == 0 {
		return false, nil
	}
	body, err := json.Marshal(patch)
	if err != nil {
		return false, err
	}
	err = c.admission.Patch(types.StrategicMergePatchType).Resource(resource).Name(c.where.Configuration).Body(body).Do(ctx).Error()
	return err == nil, err
}

// webhookPatch is merged into the webhook of its name.
type webhookPatch struct {
	Name         string      `json:"name"`
	ClientConfig clientPatch `json:"clientConfig"`
}

type clientPatch struct {
	CABundle []byte `json:"caBundle"`
}

// labels of a Secret that a Keeper has made.
func (c *cluster) labels() map[string]string {
	return map[string]string{
		"app.kubernetes.io/name": "rockpool-injector", "app.kubernetes.io/component": "injector",
		"app.kubernetes.io/part-of": "rockpool", LabelManagedBy: ManagedBy,
	}
}

func (c *cluster) emptySecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.where.Namespace, Name: c.where.Secret, Labels: c.labels()},
		Type:       corev1.SecretTypeTLS,
	}
}
