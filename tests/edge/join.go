package edge

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/cluster"
)

// Join builds Rockpool and the test programs for a cluster that runs elsewhere, and needs no rights
// in it but in its own namespaces. Pods are injected by the command and not by a webhook. The pods
// of Node.Create are objects of that cluster, but they run here and no node of it runs them.
func Join(ctx context.Context, kubeconfig string, opts Options) (e *Edge, err error) {
	if opts.Progress == nil {
		opts.Progress = os.Stderr
	}
	e = &Edge{Public: PublicAddress}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Stop())
		}
	}()
	tools, err := cluster.FindKubectl(ctx, opts.Progress)
	if err != nil {
		return e, err
	}
	if e.existing, err = cluster.Connect(kubeconfig, tools); err != nil {
		return e, err
	}
	if err := e.prepare(ctx, opts); err != nil {
		return e, err
	}
	e.makeImages(tools, opts)
	return e, nil
}

// DeleteNamespace deletes a namespace with all that is in it, and does not wait for it.
func (e *Edge) DeleteNamespace(ctx context.Context, name string) error {
	return e.Client().CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
}

// runsHere keeps a pod from being scheduled.
const runsHere = "rockpool.dev/runs-outside-of-the-cluster"

// injectHere injects a pod by the command, and keeps the cluster's nodes from running it.
func (e *Edge) injectHere(ctx context.Context, object *corev1.Pod) (*corev1.Pod, error) {
	object = object.DeepCopy()
	object.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	object.Spec.SchedulingGates = append(object.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: runsHere})
	plain, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	url, name := e.existing.URL(e.Public)
	stream, err := e.inject(ctx, plain, url+";tls-server-name="+name)
	if err != nil {
		return nil, err
	}
	injected := &corev1.Pod{}
	return injected, json.Unmarshal(stream, injected)
}
