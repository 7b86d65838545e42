package cluster

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// rootCAConfigMap is the ConfigMap that every projected service-account volume takes ca.crt from
// (kube-controller-manager, controller root-ca-certificate-publisher).
const rootCAConfigMap = "kube-root-ca.crt"

// CreateNamespace creates a namespace, and the objects that controllers create in it: the
// ServiceAccount "default" and the ConfigMap with the cluster's CA. It leaves existing objects as
// they are.
func (c *ControlPlane) CreateNamespace(ctx context.Context, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); ignoreExists(err) != nil {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := c.client.CoreV1().ServiceAccounts(name).Create(ctx, account, metav1.CreateOptions{}); ignoreExists(err) != nil {
		return fmt.Errorf("default service account of namespace %s: %w", name, err)
	}
	ca := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: rootCAConfigMap},
		Data:       map[string]string{"ca.crt": string(c.ca.pem)},
	}
	if _, err := c.client.CoreV1().ConfigMaps(name).Create(ctx, ca, metav1.CreateOptions{}); ignoreExists(err) != nil {
		return fmt.Errorf("CA of namespace %s: %w", name, err)
	}
	return nil
}

// waitForDefaults waits for the objects that the API server creates in the background, the
// namespace "default" and its own Service, and then completes that namespace.
func (c *ControlPlane) waitForDefaults(ctx context.Context) error {
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, err := c.client.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return fmt.Errorf("wait for service default/kubernetes: %w", err)
	}
	return c.CreateNamespace(ctx, "default")
}

func ignoreExists(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
