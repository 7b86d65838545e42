package e2enode

import (
	"context"
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// The control plane takes 50 s to miss the node, and then evicts pods after 5 s instead of 300.
func TestAPodThatStaysOutlivesALongOutage(t *testing.T) {
	s := newSite(t, "stay")
	setSettings := func(seconds string) {
		s.admin("-n", "rockpool-system", "patch", "configmap", "rockpool-cfg", "-p", `{"data":{"default_toleration_seconds":"`+seconds+`"}}`)
	}
	setSettings("5")
	t.Cleanup(func() { setSettings("") })
	s.until("the injector knows the default of the cluster", s.staysForever)
	s.kubectl("apply", "-f", "testdata/stay.yaml")
	stays, leaves := s.pod("stays"), s.pod("leaves")
	stays.sees("app", "synced")
	before := stays.pid("app")

	testEnv.node.Link.Cut()
	s.until("the control plane evicts the pod without the annotation", func(ctx context.Context) error {
		pod, err := testEnv.Client().CoreV1().Pods(s.namespace).Get(ctx, leaves.Name, metav1.GetOptions{})
		if err == nil && pod.DeletionTimestamp == nil {
			err = errors.New("it is still wanted")
		}
		return err
	})
	testEnv.node.Link.Restore()
	s.try(testEnv.node.AwaitReady(s.ctx))
	if now := s.pod("leaves"); now.UID == leaves.UID {
		t.Error("the pod without the annotation was not replaced")
	}
	if now := s.pod("stays"); now.UID != stays.UID || now.pid("app") != before {
		t.Errorf("%s was replaced by %s, process %d by %d", stays.Name, now.Name, before, now.pid("app"))
	}
}

// staysForever returns nil if a pod with the cluster's default of 5 s would stay forever.
func (s *site) staysForever(ctx context.Context) error {
	lost := corev1.Toleration{
		Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](5),
	}
	pod, err := testEnv.Client().CoreV1().Pods(s.namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "dry", Annotations: map[string]string{"rockpool.dev/inject": "true", "rockpool.dev/stay": "forever"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: programsImage}}, Tolerations: []corev1.Toleration{lost}},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return err
	}
	for _, t := range pod.Spec.Tolerations {
		if t.Key == lost.Key && t.TolerationSeconds != nil {
			return fmt.Errorf("it has %ds", *t.TolerationSeconds)
		}
	}
	return nil
}
