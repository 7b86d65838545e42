// Package lookup gets the namespaces and nodes of reviewed pods from the API server, and
// caches the answers for a while.
//
// It GETs single objects. That needs two RBAC rules, and its memory does not grow with the
// cluster; an informer would list and watch every node.
package lookup

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
)

// How long an answer stays in the cache.
const (
	// NamespaceLifetime is how long a change of a namespace's labels may go unnoticed.
	NamespaceLifetime = 30 * time.Second
	// NodeLifetime is longer: a kubelet is rarely replaced, and then by a newer one.
	NodeLifetime = 10 * time.Minute
)

// Client is safe for concurrent use.
type Client struct {
	client     rest.Interface
	namespaces *cache.Expiring // of *metav1.ObjectMeta
	kubelets   *cache.Expiring // of string
}

// New returns a Client that connects with config. A nil clock is the system's.
func New(config *rest.Config, c clock.Clock) (*Client, error) {
	if c == nil {
		c = clock.RealClock{}
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.APIPath = "/api"
	config.GroupVersion = &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType = runtime.ContentTypeProtobuf
	// No limit here: the API server sets the rate of reviews, and has limits of its own.
	config.QPS = -1
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	return &Client{
		client: client, namespaces: cache.NewExpiringWithClock(c), kubelets: cache.NewExpiringWithClock(c),
	}, nil
}

// Namespace returns labels and annotations, not older than [NamespaceLifetime]. The caller
// must not change them.
func (c *Client) Namespace(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	if meta, ok := c.namespaces.Get(name); ok {
		return meta.(*metav1.ObjectMeta), nil
	}
	var namespace corev1.Namespace
	if err := c.client.Get().Resource("namespaces").Name(name).Do(ctx).Into(&namespace); err != nil {
		return nil, err
	}
	meta := &metav1.ObjectMeta{Labels: namespace.Labels, Annotations: namespace.Annotations}
	c.namespaces.Set(name, meta, NamespaceLifetime)
	return meta, nil
}

// KubeletVersion returns the version of a node's kubelet, not older than [NodeLifetime].
func (c *Client) KubeletVersion(ctx context.Context, name string) (string, error) {
	if version, ok := c.kubelets.Get(name); ok {
		return version.(string), nil
	}
	var node corev1.Node
	if err := c.client.Get().Resource("nodes").Name(name).Do(ctx).Into(&node); err != nil {
		return "", err
	}
	version := node.Status.NodeInfo.KubeletVersion
	c.kubelets.Set(name, version, NodeLifetime)
	return version, nil
}
