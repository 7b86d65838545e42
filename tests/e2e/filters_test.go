package e2e

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
)

const (
	thisNode    = "edge-node" // of pods of the test bed
	otherNode   = "other-node"
	hostname    = "kubernetes.io/hostname"
	atThisNode  = "[10.1.0.1]"
	atBothNodes = "[10.1.0.1 10.1.0.2]"
)

// nodePools are OpenYurt's
// (https://openyurt.io/docs/user-manuals/node-pool-management/create_a_node_pool).
var nodePools = schema.GroupVersionResource{Group: "apps.openyurt.io", Version: "v1beta1", Resource: "nodepools"}

// nodePoolsAreServed installs the definition of NodePools until the end of the test.
func (s *site) nodePoolsAreServed() {
	s.t.Helper()
	client := dynamicClient(s.t).Resource(definitions)
	definition := customResource(nodePools.GroupResource(), "NodePool", "Cluster", nodePools.Version)
	if _, err := client.Create(s.ctx, definition, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := client.Delete(context.WithoutCancel(s.ctx), definition.GetName(), metav1.DeleteOptions{}); err != nil {
			s.t.Error(err)
		}
	})
	s.until("NodePools are served", func() bool {
		_, err := dynamicClient(s.t).Resource(nodePools).List(s.ctx, metav1.ListOptions{})
		return err == nil
	})
}

// nodePool creates a NodePool, or changes its nodes, as OpenYurt's controller does.
func (s *site) nodePool(name string, nodes ...string) {
	s.t.Helper()
	client := dynamicClient(s.t).Resource(nodePools)
	pool, err := client.Get(s.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		pool, err = client.Create(s.ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": nodePools.GroupVersion().String(), "kind": "NodePool",
			"metadata": map[string]any{"name": name}, "spec": map[string]any{"type": "Edge"},
		}}, metav1.CreateOptions{})
	}
	if err == nil {
		err = unstructured.SetNestedStringSlice(pool.Object, nodes, "status", "nodes")
	}
	if err == nil {
		_, err = client.Update(s.ctx, pool, metav1.UpdateOptions{})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// readsEndpoints lets the pods of the namespace read EndpointSlices, and Nodes and NodePools if so
// asked.
func (s *site) readsEndpoints(nodes bool) {
	s.t.Helper()
	api := cluster.Client().RbacV1()
	verbs := []string{"get", "list", "watch"}
	account := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "default", Namespace: s.namespace}}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "endpoints"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: verbs},
	}}
	if _, err := api.Roles(s.namespace).Create(s.ctx, role, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "endpoints"}, Subjects: account,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "endpoints"},
	}
	if _, err := api.RoleBindings(s.namespace).Create(s.ctx, binding, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	if !nodes {
		return
	}
	name := s.namespace + "-nodes"
	all := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: verbs},
		{APIGroups: []string{nodePools.Group}, Resources: []string{nodePools.Resource}, Verbs: verbs},
	}}
	if _, err := api.ClusterRoles().Create(s.ctx, all, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	everywhere := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: account,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
	}
	if _, err := api.ClusterRoleBindings().Create(s.ctx, everywhere, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		ctx := context.WithoutCancel(s.ctx)
		if err := api.ClusterRoleBindings().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			s.t.Error(err)
		}
		if err := api.ClusterRoles().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			s.t.Error(err)
		}
	})
}

// topology creates a Service, or changes its annotation. An empty topology is none.
func (s *site) topology(name, topology string) {
	s.t.Helper()
	api := cluster.Client().CoreV1().Services(s.namespace)
	service, err := api.Get(s.ctx, name, metav1.GetOptions{})
	annotations := map[string]string{}
	if topology != "" {
		annotations["openyurt.io/topologyKeys"] = topology
	}
	if err == nil {
		service.Annotations = annotations
		_, err = api.Update(s.ctx, service, metav1.UpdateOptions{})
	} else {
		_, err = api.Create(s.ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// endpoints creates a slice of a Service with an endpoint on each of two nodes.
func (s *site) endpoints(name, service string) {
	s.t.Helper()
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: ptr.To[int32](80)}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.1.0.1"}, NodeName: ptr.To(thisNode)},
			{Addresses: []string{"10.1.0.2"}, NodeName: ptr.To(otherNode)},
		},
	}
	if _, err := cluster.Client().DiscoveryV1().EndpointSlices(s.namespace).Create(s.ctx, slice, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// labelNode creates a Node with a label, or changes the label.
func (s *site) labelNode(name, label, value string) {
	s.t.Helper()
	api := cluster.Client().CoreV1().Nodes()
	node, err := api.Get(s.ctx, name, metav1.GetOptions{})
	if err == nil {
		node.Labels[label] = value
		_, err = api.Update(s.ctx, node, metav1.UpdateOptions{})
	} else {
		_, err = api.Create(s.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: value}}}, metav1.CreateOptions{})
		s.t.Cleanup(func() {
			if err := api.Delete(context.WithoutCancel(s.ctx), name, metav1.DeleteOptions{}); err != nil {
				s.t.Error(err)
			}
		})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// followsEndpoints has the app follow the EndpointSlices of its namespace through servicetopology.
func followsEndpoints(contentType string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Annotations["rockpool.dev/filters"] = "servicetopology"
		p.Spec.Containers[0].Args = []string{"-resource", "endpointslices.v1.discovery.k8s.io", "-content-type", contentType}
	}
}

func TestAnInformerSeesTheEndpointsOfItsNode(t *testing.T) {
	for name, contentType := range map[string]string{"JSON": "application/json", "protobuf": "application/vnd.kubernetes.protobuf"} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.readsEndpoints(false)
			s.topology("web", hostname)
			s.endpoints("web-1", "web")
			p := s.pod(followsEndpoints(contentType), withDebugLog)
			p.sees("present", "web-1", atThisNode)

			// A changed annotation corrects the open watch.
			s.topology("web", "")
			p.sees("web-1", atBothNodes)
			s.topology("web", hostname)
			p.sees("web-1", atThisNode)

			// Offline, after a restart of the app and of the sidecar.
			p.offline()
			p.restart("app")
			p.sees("present", "web-1", atThisNode)
			p.restart("rockpool-sidecar")
			p.restart("app")
			p.sees("present", "web-1", atThisNode)

			// What changed meanwhile holds when the link is back.
			s.topology("web", "")
			p.online()
			p.sees("web-1", atBothNodes)

			// The record has the truth, so another setting holds for it at once.
			s.topology("web", hostname)
			p.sees("web-1", atThisNode)
			p.offline()
			p.annotate("filters", "-servicetopology")
			p.sidecarSays(`changed settings are in effect","keys":["filters.choice"]`)
			p.sees("web-1", atBothNodes)
			p.annotate("filters", "servicetopology")
			p.sees("web-1", atThisNode)
			if n := strings.Count(mustLogs(t, p, "app"), `"event":"synced"`); n != 3 {
				t.Errorf("the informer synced %d times, want once per start", n)
			}
		})
	}
}

func TestAnInformerSeesTheEndpointsOfItsPoolAndZone(t *testing.T) {
	for name, x := range map[string]struct{ label, topology string }{
		"pool": {"apps.openyurt.io/nodepool", "openyurt.io/nodepool"},
		"zone": {"topology.kubernetes.io/zone", "kubernetes.io/zone"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.readsEndpoints(true)
			s.labelNode(thisNode, x.label, "hangzhou")
			s.labelNode(otherNode, x.label, "shanghai")
			s.topology("web", x.topology)
			s.endpoints("web-1", "web")
			p := s.pod(followsEndpoints(""))
			p.sees("present", "web-1", atThisNode)
			s.labelNode(otherNode, x.label, "hangzhou")
			p.sees("web-1", atBothNodes)
			p.offline()
			p.restart("rockpool-sidecar")
			p.restart("app")
			p.sees("present", "web-1", atBothNodes)
			s.labelNode(otherNode, x.label, "shanghai")
			p.online()
			p.sees("web-1", atThisNode)
		})
	}
}

func TestAnInformerSeesTheEndpointsOfItsNodePool(t *testing.T) {
	s := newSite(t)
	s.nodePoolsAreServed()
	s.readsEndpoints(true)
	s.nodePool("hangzhou", thisNode)
	s.nodePool("shanghai", otherNode)
	s.topology("web", "openyurt.io/nodepool")
	s.endpoints("web-1", "web")
	p := s.pod(followsEndpoints(""))
	p.sees("present", "web-1", atThisNode)
	s.nodePool("shanghai")
	s.nodePool("hangzhou", thisNode, otherNode)
	p.sees("web-1", atBothNodes)
	p.offline()
	p.restart("rockpool-sidecar")
	p.restart("app")
	p.sees("present", "web-1", atBothNodes)
	s.nodePool("hangzhou", thisNode)
	s.nodePool("shanghai", otherNode)
	p.online()
	p.sees("web-1", atThisNode)
}

func TestAClientIsNotShownWhatIsFilteredAway(t *testing.T) {
	s := newSite(t)
	s.readsEndpoints(false)
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "cloud", Annotations: map[string]string{"svc.openyurt.io/discard": "true"}},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}},
	}
	if _, err := cluster.Client().CoreV1().Services(s.namespace).Create(s.ctx, service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.topology("web", "")
	s.endpoints("cloud-1", "cloud")
	s.endpoints("web-1", "web")
	p := s.pod(func(p *corev1.Pod) { p.Annotations["rockpool.dev/filters"] = "discardcloudservice" })
	p.sees("synced")
	check := func(when string) {
		t.Helper()
		if out := p.kubectl("get", "services", "-o", "name"); strings.TrimSpace(out) != "service/web" {
			t.Errorf("%s, a list: %q", when, out)
		}
		if out := p.run("/kubectl", "get", "service", "cloud", "-o", "name"); out.ExitCode == 0 || !strings.Contains(out.Stderr, "NotFound") {
			t.Errorf("%s, a GET: %+v", when, out)
		}
		if out := p.kubectl("get", "endpointslices", "-o", "name"); strings.Contains(out, "cloud") || !strings.Contains(out, "web-1") {
			t.Errorf("%s, slices: %q", when, out)
		}
		if out := p.kubectl("get", "endpointslices"); strings.Contains(out, "cloud") || !strings.Contains(out, "web-1") {
			t.Errorf("%s, a Table: %q", when, out)
		}
	}
	check("online")
	p.offline()
	check("offline")
}
