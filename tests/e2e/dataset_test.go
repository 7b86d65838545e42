package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// dataset creates objects in two namespaces.
func (s *site) dataset(random *rand.Rand) *dataset {
	s.t.Helper()
	other := s.namespace + "-b"
	if err := cluster.Namespace(s.ctx, other); err != nil {
		s.t.Fatal(err)
	}
	f := &dataset{random: random, namespaces: []string{s.namespace, other}, names: map[string][]string{}}
	wanted := []string{"configmaps", "pods", "events", "widgets", "secrets", "services", "nodes", "namespaces"}
	for _, k := range s.kinds() {
		if slices.Contains(wanted, k.Resource) && k.Group != "events.k8s.io" && (k.Group != customGroup || k.Version == "v1") {
			f.kinds = append(f.kinds, k)
		}
	}
	slices.SortFunc(f.kinds, func(a, b kind) int { return strings.Compare(a.String(), b.String()) })
	for _, namespace := range f.namespaces {
		in := *s
		in.namespace = namespace
		in.populateNamespace(random)
	}
	for i := range 4 {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("edge-%d", i), Labels: objectLabels(random)}, Spec: corev1.NodeSpec{Unschedulable: i%2 == 0}}
		_, err := cluster.Client().CoreV1().Nodes().Create(s.ctx, node, metav1.CreateOptions{})
		s.must(err)
		s.t.Cleanup(func() {
			s.must(cluster.Client().CoreV1().Nodes().Delete(context.Background(), node.Name, metav1.DeleteOptions{}))
		})
	}
	for _, k := range f.kinds {
		list, err := dynamicClient(s.t).Resource(k.GroupVersionResource).List(s.ctx, metav1.ListOptions{})
		if err != nil {
			s.t.Fatal(err)
		}
		for _, o := range list.Items {
			if o.GetNamespace() == "" || slices.Contains(f.namespaces, o.GetNamespace()) {
				f.names[k.Resource] = append(f.names[k.Resource], o.GetNamespace()+"/"+o.GetName())
			}
		}
	}
	return f
}

// populateNamespace creates the objects of one namespace.
func (s *site) populateNamespace(random *rand.Rand) {
	s.t.Helper()
	core, create := cluster.Client().CoreV1(), metav1.CreateOptions{}
	for i := range 12 {
		m := metav1.ObjectMeta{Name: fmt.Sprintf("cm-%d", i), Labels: objectLabels(random)}
		_, err := core.ConfigMaps(s.namespace).Create(s.ctx, &corev1.ConfigMap{ObjectMeta: m, Data: map[string]string{"value": m.Name}}, create)
		s.must(err)

		m = metav1.ObjectMeta{Name: fmt.Sprintf("pod-%d", i), Labels: objectLabels(random)}
		pod := &corev1.Pod{ObjectMeta: m, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}}}
		pod.Spec.NodeName = pick(random, "", "edge-0", "edge-1")
		pod, err = core.Pods(s.namespace).Create(s.ctx, pod, create)
		s.must(err)
		pod.Status.Phase = pick(random, corev1.PodRunning, corev1.PodPending, corev1.PodFailed)
		_, err = core.Pods(s.namespace).UpdateStatus(s.ctx, pod, metav1.UpdateOptions{})
		s.must(err)

		m = metav1.ObjectMeta{Name: fmt.Sprintf("event-%d", i), Labels: objectLabels(random)}
		about := corev1.ObjectReference{
			APIVersion: "v1", Kind: pick(random, "Pod", "Node"), Namespace: s.namespace, Name: fmt.Sprintf("pod-%d", i%3), UID: pick[types.UID](random, "u-1", "u-2"),
			FieldPath: pick(random, "", "spec"),
		}
		_, err = core.Events(s.namespace).Create(s.ctx, &corev1.Event{
			ObjectMeta: m, InvolvedObject: about, Reason: pick(random, "Pulled", "Killed"), Type: pick(random, "Normal", "Warning"),
			Source: corev1.EventSource{Component: pick(random, "kubelet", "")},
		}, create)
		s.must(err)
	}
	for i := range 4 {
		m := metav1.ObjectMeta{Name: fmt.Sprintf("secret-%d", i), Labels: objectLabels(random)}
		_, err := core.Secrets(s.namespace).Create(s.ctx, &corev1.Secret{ObjectMeta: m, Type: pick[corev1.SecretType](random, "example.com/a", "example.com/b")}, create)
		s.must(err)
		m.Name = fmt.Sprintf("service-%d", i)
		_, err = core.Services(s.namespace).Create(s.ctx, &corev1.Service{ObjectMeta: m, Spec: corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{{Port: 80}}}}, create)
		s.must(err)
		w := &unstructured.Unstructured{Object: map[string]any{"apiVersion": widgets.GroupVersion().String(), "kind": "Widget", "data": map[string]any{"value": m.Name}}}
		w.SetName(fmt.Sprintf("widget-%d", i))
		w.SetLabels(objectLabels(random))
		_, err = dynamicClient(s.t).Resource(widgets).Namespace(s.namespace).Create(s.ctx, w, create)
		s.must(err)
	}
}

func objectLabels(random *rand.Rand) map[string]string {
	labels := map[string]string{}
	if app := pick(random, "", "a", "b", "c"); app != "" {
		labels["app"] = app
	}
	if tier := pick(random, "none", "front", "back", ""); tier != "none" {
		labels["tier"] = tier
	}
	if random.IntN(2) > 0 {
		labels["example.com/zone"] = pick(random, "x", "y")
	}
	return labels
}
