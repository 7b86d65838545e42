// Package cluster asks the API server about the namespaces and nodes of pods that are
// reviewed, and remembers the answers for a while.
//
// It GETs single objects: that needs two rules of RBAC and nothing that grows with the
// cluster, where an informer would list and watch every node.
package cluster

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

// For how long an answer is believed.
const (
	// NamespaceLifetime is how long a change of a namespace's labels may go unnoticed.
	NamespaceLifetime = 30 * time.Second
	// NodeLifetime is longer: a kubelet is seldom replaced, and by a newer one.
	NodeLifetime = 10 * time.Minute
)

// Cluster is safe for concurrent use.
type Cluster struct {
	client     rest.Interface
	namespaces *cache.Expiring // of *metav1.ObjectMeta
	kubelets   *cache.Expiring // of string
}

// New returns a Cluster that asks as config says. A nil clock is the system's.
func New(config *rest.Config, c clock.Clock) (*Cluster, error) {
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
	// The API server sets the pace of the reviews, and has limits of its own.
	config.QPS = -1
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	return &Cluster{client: client, namespaces: cache.NewExpiringWithClock(c), kubelets: cache.NewExpiringWithClock(c)}, nil
}

// Namespace returns labels and annotations, not older than [NamespaceLifetime]. The caller must not change them.
func (c *Cluster) Namespace(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
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

// KubeletVersion of a node, not older than [NodeLifetime].
func (c *Cluster) KubeletVersion(ctx context.Context, name string) (string, error) {
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
