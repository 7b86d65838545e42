package e2e

import (
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"
)

// The custom resources of the tests: a namespaced one with two versions, and a cluster-scoped one.
const customGroup = "edge.example.com"

var (
	widgets        = schema.GroupVersionResource{Group: customGroup, Version: "v1", Resource: "widgets"}
	definitions    = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	customVersions = map[string][]string{"Widget": {"v1", "v1beta1"}, "ClusterWidget": {"v1"}}
)

// dynamicClient returns an administrator's client.
func dynamicClient(t *testing.T) dynamic.Interface {
	t.Helper()
	client, err := dynamic.NewForConfig(cluster.Config())
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// customResources installs the custom resources, for all tests.
func (s *site) customResources() {
	s.t.Helper()
	client := dynamicClient(s.t).Resource(definitions)
	for kind, versions := range customVersions {
		plural, scope := strings.ToLower(kind)+"s", "Namespaced"
		if strings.HasPrefix(kind, "Cluster") {
			scope = "Cluster"
		}
		definition := customResource(schema.GroupResource{Group: customGroup, Resource: plural}, kind, scope, versions...)
		if _, err := client.Create(s.ctx, definition, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			s.t.Fatal(err)
		}
		s.until(kind+" is served", func() bool {
			_, err := dynamicClient(s.t).Resource(widgets.GroupVersion().WithResource(plural)).List(s.ctx, metav1.ListOptions{})
			return err == nil
		})
	}
}

// customResource is the definition of a custom resource that may have any fields, and has no status
// of its own. The first version is that of etcd.
func customResource(r schema.GroupResource, kind, scope string, versions ...string) *unstructured.Unstructured {
	var served []any
	for i, version := range versions {
		served = append(served, map[string]any{
			"name": version, "served": true, "storage": i == 0,
			"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
		})
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": r.String()},
		"spec": map[string]any{
			"group": r.Group, "scope": scope, "versions": served,
			"names": map[string]any{"plural": r.Resource, "singular": strings.ToLower(kind), "kind": kind, "listKind": kind + "List"},
		},
	}}
}

// widget creates or changes a Widget, not over the link.
func (s *site) widget(name, value string) *unstructured.Unstructured {
	s.t.Helper()
	api := dynamicClient(s.t).Resource(widgets).Namespace(s.namespace)
	w := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": widgets.GroupVersion().String(), "kind": "Widget", "metadata": map[string]any{"name": name}, "data": map[string]any{"value": value},
	}}
	out, err := api.Apply(s.ctx, name, w, metav1.ApplyOptions{FieldManager: "test", Force: true})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// allow gives the default service account further permissions in its namespace.
func (s *site) allow(rules ...rbacv1.PolicyRule) {
	s.t.Helper()
	api := s.cluster.Client().RbacV1().Roles(s.namespace)
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		role, err := api.Get(s.ctx, "app", metav1.GetOptions{})
		if err != nil {
			return err
		}
		role.Rules = append(role.Rules, rules...)
		_, err = api.Update(s.ctx, role, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// allowEverywhere gives the default service account of the namespace further permissions in the
// whole cluster.
func (s *site) allowEverywhere(rules ...rbacv1.PolicyRule) {
	s.t.Helper()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}, Rules: rules}
	if _, err := cluster.Client().RbacV1().ClusterRoles().Create(s.ctx, role, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: s.namespace},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "default", Namespace: s.namespace}},
	}
	if _, err := cluster.Client().RbacV1().ClusterRoleBindings().Create(s.ctx, binding, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// must fails the test if err is not nil.
func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}
