package main

import (
	"context"
	"fmt"
	"os"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

const (
	nodeName = "hollow"
	// heartbeat is the time between two renewals of the Node's Lease, as a kubelet does it. The node
	// lifecycle controller taints a Node whose Lease is not renewed for 50 s.
	heartbeat = 10 * time.Second
)

// A hollowNode is a Node in the API that nothing stands behind. It says that every pod on it runs,
// and removes one that is to be deleted at once. It starts no container: a test that talks to a pod
// cannot pass with it.
type hollowNode struct {
	client kubernetes.Interface
	cancel context.CancelFunc
	pods   informers.SharedInformerFactory
	beaten chan struct{} // closed when the heartbeat has ended
}

// startHollowNode registers the node and waits until it takes pods. Its goroutines end with stop.
func startHollowNode(ctx context.Context, client kubernetes.Interface) (*hollowNode, error) {
	nodes := client.CoreV1().Nodes()
	node, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	node.Status = nodeStatus()
	if _, err := nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		return nil, err
	}
	lease, err := client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: ptr.To(nodeName), LeaseDurationSeconds: ptr.To[int32](40), RenewTime: ptr.To(metav1.NowMicro()),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	n := &hollowNode{client: client, beaten: make(chan struct{})}
	n.pods = informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", nodeName).String()
	}))
	ctx, n.cancel = context.WithCancel(ctx)
	_, err = n.pods.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { n.see(ctx, object.(*corev1.Pod)) },
		UpdateFunc: func(_, object any) { n.see(ctx, object.(*corev1.Pod)) },
	})
	if err != nil {
		n.cancel()
		return nil, err
	}
	n.pods.Start(ctx.Done())
	go n.beat(ctx, lease)
	if err := n.awaitUntainted(ctx); err != nil {
		n.stop()
		return nil, err
	}
	return n, nil
}

// awaitUntainted waits until the node lifecycle controller has removed the taint that a new Node
// has: before that, it is not counted among those that take pods.
func (n *hollowNode) awaitUntainted(ctx context.Context) error {
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		node, err := n.client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
		return err == nil && len(node.Spec.Taints) == 0, err
	})
	if err != nil {
		return fmt.Errorf("wait until Node %s has no taint: %w", nodeName, err)
	}
	return nil
}

func (n *hollowNode) stop() {
	n.cancel()
	n.pods.Shutdown()
	<-n.beaten
}

func (n *hollowNode) beat(ctx context.Context, lease *coordinationv1.Lease) {
	defer close(n.beaten)
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		lease.Spec.RenewTime = ptr.To(metav1.NowMicro())
		renewed, err := n.client.CoordinationV1().Leases(lease.Namespace).Update(ctx, lease, metav1.UpdateOptions{})
		if err != nil {
			complain(ctx, "renew the Lease", err)
			continue
		}
		lease = renewed
	}
}

// see does what a kubelet would have done in the end for the pod.
func (n *hollowNode) see(ctx context.Context, pod *corev1.Pod) {
	pods := n.client.CoreV1().Pods(pod.Namespace)
	if pod.DeletionTimestamp != nil {
		// With a finalizer it stays, and each event of it leads here again, which changes nothing.
		complain(ctx, "delete pod "+pod.Name, pods.Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
		}))
		return
	}
	if pod.Status.Phase != corev1.PodPending {
		return
	}
	running := pod.DeepCopy()
	running.Status = podStatus(pod)
	_, err := pods.UpdateStatus(ctx, running, metav1.UpdateOptions{})
	complain(ctx, "start pod "+pod.Name, err)
}

// complain prints an error, unless it only says that the pod has changed or gone, or that the node
// ends.
func complain(ctx context.Context, what string, err error) {
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || ctx.Err() != nil {
		return
	}
	fmt.Fprintf(os.Stderr, "node %s: %s: %v\n", nodeName, what, err)
}

func nodeStatus() corev1.NodeStatus {
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("16Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("64Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	return corev1.NodeStatus{Capacity: room, Allocatable: room, Conditions: []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Hollow", Message: "it runs no container",
		LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
	}}}
}

// podStatus says that all containers of a pod run.
func podStatus(pod *corev1.Pod) corev1.PodStatus {
	now := metav1.Now()
	status := corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &now, QOSClass: pod.Status.QOSClass}
	for _, condition := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	for _, c := range pod.Spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Ready: true, Started: ptr.To(true),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
	return status
}
