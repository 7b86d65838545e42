package cluster

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Existing is a cluster that runs elsewhere, with its controllers.
type Existing struct {
	client kubernetes.Interface
	tools  Tools
	url    *url.URL
	name   string
}

// Connect uses the cluster of a kubeconfig file. Of the tools only kubectl is used.
func Connect(kubeconfig string, tools Tools) (*Existing, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // no limit: a person waits for the server only
	e := &Existing{tools: tools, name: config.ServerName}
	if e.url, err = url.Parse(config.Host); err != nil || e.url.Scheme != "https" {
		return nil, fmt.Errorf("kubeconfig %s: server %q is no https URL", kubeconfig, config.Host)
	}
	if e.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	return e, nil
}

// Client returns the client of the kubeconfig's user.
func (e *Existing) Client() kubernetes.Interface { return e.client }

// Tools are the programs in use.
func (e *Existing) Tools() Tools { return e.tools }

// Address is the host:port of the API server.
func (e *Existing) Address() string {
	if e.url.Port() != "" {
		return e.url.Host
	}
	return net.JoinHostPort(e.url.Hostname(), "443")
}

// URL is the URL of the API server at another host:port, and the name in its certificate.
func (e *Existing) URL(address string) (at, serverName string) {
	out := *e.url
	out.Host = address
	if e.name != "" {
		return out.String(), e.name
	}
	return out.String(), e.url.Hostname()
}

// CreateNamespace creates a namespace in which nothing limits what pods may do, and waits for the
// objects that controllers create in it.
func (e *Existing) CreateNamespace(ctx context.Context, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "privileged"},
	}}
	if _, err := e.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		_, err := e.client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			_, err = e.client.CoreV1().ConfigMaps(name).Get(ctx, rootCAConfigMap, metav1.GetOptions{})
		}
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return fmt.Errorf("wait for the service account and the CA of namespace %s: %w", name, err)
	}
	return nil
}

// Stop does nothing: the cluster goes on.
func (e *Existing) Stop() error { return nil }
