package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"rockpool.dev/tests/eventually"
)

func TestThePodsOfAHollowNodeRunUntilTheyAreToGo(t *testing.T) {
	pod := func(name string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "1"},
			Spec:       corev1.PodSpec{NodeName: nodeName, Containers: []corev1.Container{{Name: "a"}, {Name: "b"}}},
			Status:     corev1.PodStatus{Phase: corev1.PodPending},
		}
	}
	ended, going := pod("ended"), pod("going")
	ended.Status.Phase = corev1.PodSucceeded
	going.DeletionTimestamp = ptr.To(metav1.Now())
	going.Finalizers = []string{"example.com/none"} // the fake client takes no such object without one
	client := fake.NewClientset(pod("new"), ended, going)
	node, err := startHollowNode(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	defer node.stop()
	pods := client.CoreV1().Pods("ns")
	eventually.True(t, "the new pod runs, and the one with a deletion timestamp has gone", func() bool {
		created, err := pods.Get(t.Context(), "new", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = pods.Get(t.Context(), "going", metav1.GetOptions{})
		return created.Status.Phase == corev1.PodRunning && len(created.Status.ContainerStatuses) == 2 && apierrors.IsNotFound(err)
	})
	if left, err := pods.Get(t.Context(), "ended", metav1.GetOptions{}); err != nil || left.Status.Phase != corev1.PodSucceeded {
		t.Errorf("the pod that had ended is now %v %v", left, err)
	}
}

func TestAHollowNodeIsThereWhenItTakesPods(t *testing.T) {
	client := fake.NewClientset()
	// As the admission plugin TaintNodesByCondition does, and then the node lifecycle controller.
	gets := 0
	client.PrependReactor("get", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}
		if gets++; gets < 3 {
			node.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}}
		}
		return true, node, nil
	})
	node, err := startHollowNode(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	node.stop()
	if gets != 3 {
		t.Errorf("the node was asked for %d times, want 3: until it has no taint", gets)
	}
}
