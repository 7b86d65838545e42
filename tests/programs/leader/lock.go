package main

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// annotation holds the record of the ConfigMapLock and the EndpointsLock, which client-go had until
// 0.24. They did what annotationLock does.
const annotation = "control-plane.alpha.kubernetes.io/leader"

// newLock makes the lock that the settings ask for.
func newLock(s settings, client kubernetes.Interface, namespace string) (resourcelock.Interface, error) {
	switch s.lock {
	case "leases":
		return &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.lease}, Client: client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: s.identity},
		}, nil
	case "configmaps":
		return &annotationLock[*corev1.ConfigMap]{
			objects: client.CoreV1().ConfigMaps(namespace), name: s.lease, identity: s.identity,
			make: func(m metav1.ObjectMeta) *corev1.ConfigMap { return &corev1.ConfigMap{ObjectMeta: m} },
		}, nil
	case "endpoints":
		return &annotationLock[*corev1.Endpoints]{ //nolint:staticcheck // older programs use this kind
			objects: client.CoreV1().Endpoints(namespace), name: s.lease, identity: s.identity,
			make: func(m metav1.ObjectMeta) *corev1.Endpoints { return &corev1.Endpoints{ObjectMeta: m} }, //nolint:staticcheck // likewise
		}, nil
	}
	return nil, fmt.Errorf("-lock: %q is not leases, configmaps or endpoints", s.lock)
}

// objects is client-go's interface of one kind in a namespace.
type objects[T metav1.Object] interface {
	Get(context.Context, string, metav1.GetOptions) (T, error)
	Create(context.Context, T, metav1.CreateOptions) (T, error)
	Update(context.Context, T, metav1.UpdateOptions) (T, error)
}

// annotationLock is a lock in the annotation of an object.
type annotationLock[T metav1.Object] struct {
	objects        objects[T]
	name, identity string
	make           func(metav1.ObjectMeta) T
	last           T // as it was last seen
}

func (l *annotationLock[T]) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	o, err := l.objects.Get(ctx, l.name, metav1.GetOptions{})
	if err != nil {
		return nil, nil, err
	}
	l.last = o
	record, raw := &resourcelock.LeaderElectionRecord{}, []byte(o.GetAnnotations()[annotation])
	if len(raw) > 0 {
		err = json.Unmarshal(raw, record)
	}
	return record, raw, err
}

func (l *annotationLock[T]) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	raw, err := json.Marshal(record)
	if err != nil {
		return err
	}
	o, err := l.objects.Create(ctx, l.make(metav1.ObjectMeta{Name: l.name, Annotations: map[string]string{annotation: string(raw)}}), metav1.CreateOptions{})
	if err == nil {
		l.last = o
	}
	return err
}

func (l *annotationLock[T]) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	raw, err := json.Marshal(record)
	if err != nil {
		return err
	}
	annotations := map[string]string{annotation: string(raw)}
	for name, value := range l.last.GetAnnotations() {
		if name != annotation {
			annotations[name] = value
		}
	}
	l.last.SetAnnotations(annotations)
	o, err := l.objects.Update(ctx, l.last, metav1.UpdateOptions{})
	if err == nil {
		l.last = o
	}
	return err
}

func (l *annotationLock[T]) RecordEvent(string) {}

func (l *annotationLock[T]) Identity() string { return l.identity }

func (l *annotationLock[T]) Describe() string { return l.name }
