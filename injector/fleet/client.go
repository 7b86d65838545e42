package fleet

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"rockpool.dev/injector/inject"
)

// pageSize bounds the memory of one answer of the API server.
const pageSize = 500

// Client reads and changes pods with the rights of the person who runs the command: list, get and
// patch on pods, and get on the ConfigMap with the settings.
type Client struct{ client rest.Interface }

var _ Pods = (*Client)(nil)

// NewClient returns a Client that connects with config.
func NewClient(config *rest.Config) (*Client, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/api", &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.QPS, config.Burst = 50, 100
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	return &Client{client}, nil
}

// List returns the sidecars in a namespace, or in all if it is empty.
func (c *Client) List(ctx context.Context, namespace, labelSelector string) ([]Sidecar, error) {
	var all []Sidecar
	options := metav1.ListOptions{Limit: pageSize, LabelSelector: labelSelector}
	for {
		var page corev1.PodList
		err := c.client.Get().Namespace(namespace).Resource("pods").VersionedParams(&options, metav1.ParameterCodec).Do(ctx).Into(&page)
		if err != nil {
			return nil, err
		}
		all = append(all, Look(page.Items)...)
		if options.Continue = page.Continue; options.Continue == "" {
			return all, nil
		}
	}
}

// Get is for [Pods].
func (c *Client) Get(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	return pod, c.client.Get().Namespace(namespace).Resource("pods").Name(name).Do(ctx).Into(pod)
}

// Patch is for [Pods].
func (c *Client) Patch(ctx context.Context, namespace, name string, patch []byte) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	err := c.client.Patch(types.StrategicMergePatchType).Namespace(namespace).Resource("pods").Name(name).
		VersionedParams(&metav1.PatchOptions{FieldManager: "rockpool-injector-upgrade"}, metav1.ParameterCodec).Body(patch).Do(ctx).Into(pod)
	return pod, err
}

// Image returns the image that new pods get by the settings of the cluster; empty if these leave it to
// the injector.
func (c *Client) Image(ctx context.Context, namespace, configMap string) (string, error) {
	var settings corev1.ConfigMap
	if err := c.client.Get().Namespace(namespace).Resource("configmaps").Name(configMap).Do(ctx).Into(&settings); err != nil {
		return "", err
	}
	image := settings.Data["image"]
	if image == "" {
		return "", nil
	}
	return image, inject.ValidateImage(image)
}
