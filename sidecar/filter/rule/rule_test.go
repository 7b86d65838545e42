// Endpoints are deprecated, but programs still read them.
//
//nolint:staticcheck
package rule

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"rockpool.dev/sidecar/api/filters"
	"rockpool.dev/sidecar/api/wire"
)

func TestMasterService(t *testing.T) {
	master := func(ip string, ips []string, port int32) *corev1.Service {
		s := service("kubernetes", corev1.ServiceTypeClusterIP, nil)
		s.Namespace, s.Spec.ClusterIP, s.Spec.ClusterIPs, s.Spec.Ports[0].Port = "default", ip, ips, port
		return s
	}
	other := service("kubernetes", corev1.ServiceTypeClusterIP, nil)
	run(t, filters.MasterService, []example{
		{"the API server's Service shows the sidecar", Context{}, master("10.96.0.1", []string{"10.96.0.1"}, 443), master("127.0.0.1", []string{"127.0.0.1"}, 10268)},
		{"of two families one address remains", Context{}, master("10.96.0.1", []string{"10.96.0.1", "fd00::1"}, 443), master("127.0.0.1", []string{"127.0.0.1"}, 10268)},
		{"a Service of that name in another namespace passes", Context{}, other, other},
	})
}

func TestForwardKubeSvcTraffic(t *testing.T) {
	master := func(family discoveryv1.AddressType, port int32, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		s := slice("kubernetes")
		s.Namespace, s.AddressType, s.Endpoints = "default", family, endpoints
		s.Ports = []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: &port}, {Name: ptr.To("metrics"), Port: ptr.To[int32](9)}}
		return s
	}
	server := func(ip string) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true)}, NodeName: ptr.To("m")}
	}
	sidecar := discoveryv1.Endpoint{Addresses: []string{"127.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}
	old := func(port int32, ready, notReady []string) *corev1.Endpoints {
		e := endpoints("kubernetes", nil, nil)
		e.Namespace = "default"
		subset := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "https", Port: port}}}
		for _, ip := range ready {
			subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: ip})
		}
		for _, ip := range notReady {
			subset.NotReadyAddresses = append(subset.NotReadyAddresses, corev1.EndpointAddress{IP: ip})
		}
		e.Subsets = []corev1.EndpointSubset{subset}
		return e
	}
	other := slice("web", place{node: "m"})
	run(t, filters.ForwardKubeSvcTraffic, []example{
		{"three API servers become the sidecar", Context{}, master("IPv4", 6443, server("172.16.0.1"), server("172.16.0.2"), server("172.16.0.3")), master("IPv4", 10268, sidecar)},
		{"a slice of the other family is left empty", Context{}, master("IPv6", 6443, server("fd00::1")), master("IPv6", 10268)},
		{"a slice of another Service passes", Context{}, other, other},
		{"Endpoints likewise", Context{}, old(6443, []string{"172.16.0.1", "172.16.0.2"}, []string{"172.16.0.3"}), old(10268, []string{"127.0.0.1"}, nil)},
		{"Endpoints of another Service pass", Context{}, endpoints("web", []string{"a"}, nil), endpoints("web", []string{"a"}, nil)},
	})
}

func TestDiscardCloudService(t *testing.T) {
	discard := map[string]string{"svc.openyurt.io/discard": "true"}
	alias := map[string]string{"rockpool.dev/discard": "true"}
	tunnel := service("x-tunnel-server-internal-svc", corev1.ServiceTypeClusterIP, nil)
	tunnel.Namespace = "kube-system"
	kept := func(name string, s *corev1.Service) example { return example{name, Context{}, s, s} }
	partial := &corev1.Service{ObjectMeta: service("web", "", discard).ObjectMeta}
	bare := &corev1.Service{ObjectMeta: service("web", "", nil).ObjectMeta}
	run(t, filters.DiscardCloudService, []example{
		{"a LoadBalancer with the annotation", Context{}, service("web", corev1.ServiceTypeLoadBalancer, discard), nil},
		{"a LoadBalancer with the alias", Context{}, service("web", corev1.ServiceTypeLoadBalancer, alias), nil},
		{"the Service of YurtHub's tunnel", Context{}, tunnel, nil},
		kept("a LoadBalancer with another value", service("web", corev1.ServiceTypeLoadBalancer, map[string]string{"svc.openyurt.io/discard": "false"})),
		kept("a LoadBalancer without annotation", service("web", corev1.ServiceTypeLoadBalancer, nil)),
		kept("another type with the annotation", service("web", corev1.ServiceTypeClusterIP, discard)),
		kept("metadata alone, whose type is unknown", partial),
		{"metadata alone, of a Service that is known", Context{Services: services("web", Service{Discarded: true})}, partial, nil},
		{"metadata alone, whose annotation has gone", Context{Services: services("web", Service{Discarded: true})}, bare, bare},
		{"the slices of a discarded Service", Context{Services: services("web", Service{Discarded: true})}, slice("web", place{}), nil},
		{"the Endpoints of a discarded Service", Context{Services: services("web", Service{Discarded: true})}, endpoints("web", []string{"a"}, nil), nil},
		{"the slices of another Service", Context{Services: services("db", Service{Discarded: true})}, slice("web", place{}), slice("web", place{})},
	})
}

func TestNodePortIsolation(t *testing.T) {
	pool := func(name string) Context { return Context{Node: Node{Name: "a", Pool: Group{Known: true, Name: name}}} }
	listen := func(kind corev1.ServiceType, value string) *corev1.Service {
		return service("web", kind, map[string]string{"nodeport.openyurt.io/listen": value})
	}
	var examples []example
	for _, x := range []struct {
		name, value, pool string
		keep              bool
	}{
		{"a pool that is named", "hangzhou, shanghai", "hangzhou", true},
		{"a pool that is not named", "shanghai", "hangzhou", false},
		{"all pools", "*", "hangzhou", true},
		{"all pools but this one", "-hangzhou,*", "hangzhou", false},
		{"all pools but another one", "*,-shanghai", "hangzhou", true},
		{"only exceptions", "-shanghai", "hangzhou", false},
		{"of two entries for a pool the first counts", "hangzhou,-hangzhou", "hangzhou", true},
		{"an empty list", "", "hangzhou", false},
		{"a node that is in no pool", "shanghai", "", true},
	} {
		for _, kind := range []corev1.ServiceType{corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer} {
			s := listen(kind, x.value)
			e := example{x.name + " for a " + string(kind), pool(x.pool), s, nil}
			if x.keep {
				e.want = s
			}
			examples = append(examples, e)
		}
	}
	partial := &corev1.Service{ObjectMeta: listen("", "shanghai").ObjectMeta}
	known := pool("hangzhou")
	known.Services = services("web", Service{Listens: true})
	cluster, without := listen(corev1.ServiceTypeClusterIP, "shanghai"), service("web", corev1.ServiceTypeNodePort, nil)
	alias := service("web", corev1.ServiceTypeNodePort, map[string]string{"rockpool.dev/nodeport-listen": "shanghai"})
	run(t, filters.NodePortIsolation, append(examples,
		example{"a ClusterIP is not concerned", pool("hangzhou"), cluster, cluster},
		example{"a NodePort without annotation passes", pool("hangzhou"), without, without},
		example{"the alias", pool("hangzhou"), alias, nil},
		example{"metadata alone, whose type is unknown", pool("hangzhou"), partial, partial},
		example{"metadata alone, of a Service that is known", known, partial, nil},
	))
}

func TestServiceTopology(t *testing.T) {
	group := func(name string, members ...string) Group {
		g := Group{Known: true, Name: name, Complete: true, Members: map[string]struct{}{}}
		for _, m := range members {
			g.Members[m] = struct{}{}
		}
		return g
	}
	in := func(topology Topology, node Node) Context {
		return Context{Node: node, Services: services("web", Service{Topology: topology})}
	}
	node := Node{Name: "a", Pool: group("hangzhou", "a", "b")}
	zoned := Node{Name: "a", Pool: group("hangzhou", "a", "b"), Zone: group("east", "a", "c")}
	dropping := func(c Context) Context { c.DropUnknown = true; return c }
	all := slice("web", place{node: "a"}, place{node: "b"}, place{node: "c"}, place{})
	patterns := Node{Name: "a", Pool: Group{Known: true, Name: "hangzhou", Complete: true, Patterns: []string{"b*"}}}
	run(t, filters.ServiceTopology, []example{
		{"hostname keeps this node's", in(TopologyNode, node), slice("web", place{node: "a"}, place{node: "b"}), slice("web", place{node: "a"})},
		{"hostname may leave nothing", in(TopologyNode, node), slice("web", place{node: "b"}), slice("web")},
		{"nodepool keeps those of the pool's nodes", in(TopologyPool, node), slice("web", place{node: "a"}, place{node: "b"}, place{node: "c"}), slice("web", place{node: "a"}, place{node: "b"})},
		{"nodepool by patterns", in(TopologyPool, patterns), slice("web", place{node: "a"}, place{node: "b1"}, place{node: "c"}), slice("web", place{node: "a"}, place{node: "b1"})},
		{"zone means the pool where no zone is known", in(TopologyZone, node), slice("web", place{node: "b"}, place{node: "c"}), slice("web", place{node: "b"})},
		{"zone keeps endpoints of the zone", in(TopologyZone, zoned), slice("web", place{"b", "west"}, place{"d", "east"}), slice("web", place{"d", "east"})},
		{"zone by nodes where the slice does not say", in(TopologyZone, zoned), slice("web", place{node: "b"}, place{node: "c"}), slice("web", place{node: "c"})},
		{"a node in no pool is one of its own", in(TopologyPool, Node{Name: "a", Pool: group("")}), slice("web", place{node: "a"}, place{node: "b"}), slice("web", place{node: "a"})},
		{"an endpoint without node is kept", in(TopologyNode, node), slice("web", place{}, place{node: "b"}), slice("web", place{})},
		{"an endpoint without node is dropped if so set", dropping(in(TopologyNode, node)), slice("web", place{}, place{node: "a"}), slice("web", place{node: "a"})},
		{"an unknown node keeps all", in(TopologyNode, Node{}), all, all},
		{"an unknown pool keeps all", in(TopologyPool, Node{Name: "a"}), all, all},
		{"a pool whose nodes are unknown keeps all", in(TopologyPool, Node{Name: "a", Pool: Group{Known: true, Name: "hangzhou"}}), all, all},
		{"a Service without annotation", Context{Node: node}, all, all},
		{"an unknown Service", in(TopologyNode, node), slice("db", place{node: "c"}), slice("db", place{node: "c"})},
		{"all endpoints here pass byte for byte", in(TopologyNode, node), slice("web", place{node: "a"}), slice("web", place{node: "a"})},
		{"Endpoints by hostname", in(TopologyNode, node), endpoints("web", []string{"a", "b"}, []string{"a", "c"}), endpoints("web", []string{"a"}, []string{"a"})},
		{"Endpoints of which nothing is left", in(TopologyNode, node), endpoints("web", []string{"b"}, nil), endpoints("web", nil, nil)},
		{"Endpoints by nodepool", in(TopologyPool, node), endpoints("web", []string{"a", "b", "c"}, nil), endpoints("web", []string{"a", "b"}, nil)},
	})
}

func TestAServiceSaysWhatItMeans(t *testing.T) {
	for value, want := range map[string]Topology{
		"kubernetes.io/hostname": TopologyNode, "openyurt.io/nodepool": TopologyPool, "kubernetes.io/zone": TopologyZone,
		"openyurt.io/zone": TopologyZone, "*": "", "": "", "*, kubernetes.io/zone": TopologyZone,
	} {
		for _, name := range annotationsTopology {
			for _, format := range []wire.Format{wire.JSON, wire.Protobuf} {
				s := service("web", corev1.ServiceTypeLoadBalancer, map[string]string{name: value, "svc.openyurt.io/discard": "true"})
				key, got, err := ReadService(&Object{Format: format, Resource: Services, Raw: encode(t, format, s)})
				if err != nil || got != (Service{Topology: want, Discarded: true}) || key != (types.NamespacedName{Namespace: "shop", Name: "web"}) {
					t.Errorf("%s: %q: %v %+v %v", name, value, key, got, err)
				}
			}
		}
	}
}

func TestUnknownFieldsAndOrderSurvive(t *testing.T) {
	raw := `{"future":[1, 2], "metadata":{"name":"kubernetes","namespace":"default","new\u0041":1e3},
	"spec" : {"ports":[{"port":443,"name":"https","x":null}],"clusterIP":"10.96.0.1","y":{"z":[]}}, "more":1.50}`
	want := `{"future":[1, 2], "metadata":{"name":"kubernetes","namespace":"default","new\u0041":1e3},
	"spec" : {"ports":[{"port":10268,"name":"https","x":null}],"clusterIP":"127.0.0.1","y":{"z":[]}}, "more":1.50}`
	ctx := Context{Address: netip.MustParseAddrPort("127.0.0.1:10268")}
	chain := NewChain(Services, nil, func(string) bool { return true })
	got, keep := chain.Apply(&Object{Format: wire.JSON, Resource: Services, Raw: []byte(raw)}, &ctx, func(_ string, err error) { t.Error(err) })
	if !keep || string(got) != want {
		t.Errorf("%s", got)
	}
	s := service("kubernetes", "", nil)
	s.Namespace = "default"
	unknown := []byte("\xa2\x06\x03new") // field 100
	got, _ = chain.Apply(&Object{Format: wire.Protobuf, Resource: Services, Raw: append(encode(t, wire.Protobuf, s), unknown...)}, &ctx, func(_ string, err error) { t.Error(err) })
	if !strings.HasSuffix(string(got), string(unknown)) {
		t.Error("a field that nobody knows is gone")
	}
}

func TestAFilterThatFailsLeavesTheObject(t *testing.T) {
	for _, raw := range []string{`{"metadata":{"name":"kubernetes","namespace":"default"},"spec":{"clusterIP":5,"ports":7}}`, `{"metadata":"x"}`, `{`, ``} {
		for _, format := range []wire.Format{wire.JSON, wire.Protobuf} {
			chain := NewChain(Services, nil, func(string) bool { return true })
			failures := 0
			got, keep := chain.Apply(&Object{Format: format, Resource: Services, Raw: []byte(raw)}, &Context{}, func(string, error) { failures++ })
			if !keep || string(got) != raw || (failures == 0 && raw != "") {
				t.Errorf("%q in %s: %q, kept: %v, %d failures", raw, format.MediaType(), got, keep, failures)
			}
		}
	}
}

func TestTheOrderOfFiltersIsFixed(t *testing.T) {
	conditions := map[schema.GroupResource]Condition{Services: func(*Object, *Context) (bool, error) { return true, nil }}
	var names []string
	for _, f := range NewChain(Services, conditions, func(string) bool { return true }).Filters {
		names = append(names, f.Name)
	}
	if got := strings.Join(names, " "); got != "discardcloudservice nodeportisolation keep masterservice" {
		t.Error(got)
	}
}

func FuzzChain(f *testing.F) {
	s := service("web", corev1.ServiceTypeNodePort, map[string]string{"nodeport.openyurt.io/listen": "*"})
	e := slice("web", place{"a", "z"}, place{"b", ""})
	for _, format := range []wire.Format{wire.JSON, wire.Protobuf} {
		for _, o := range []object{s, e, endpoints("web", []string{"a"}, []string{"b"})} {
			f.Add(encode(f, format, o), format == wire.JSON, uint8(0))
		}
	}
	ctx := Context{
		Address: netip.MustParseAddrPort("[::1]:1"), Node: Node{Name: "a", Pool: Group{Known: true, Name: "p"}},
		Services: services("web", Service{Topology: TopologyNode}), DropUnknown: true,
	}
	f.Fuzz(func(t *testing.T, raw []byte, asJSON bool, which uint8) {
		format := wire.Protobuf
		if asJSON {
			format = wire.JSON
		}
		resource := []schema.GroupResource{Services, Endpoints, EndpointSlices}[which%3]
		before := string(raw)
		chain := NewChain(resource, nil, func(string) bool { return true })
		chain.Apply(&Object{Format: format, Resource: resource, Raw: raw}, &ctx, func(string, error) {})
		if string(raw) != before {
			t.Error("the object itself was changed")
		}
	})
}

func TestAnObjectThatPassesTakesNoMemory(t *testing.T) {
	web, db := slice("web", place{node: "a"}, place{node: "b"}), endpoints("db", []string{"a"}, nil)
	ctx := Context{Node: Node{Name: "a"}, Services: services("shop", Service{Topology: TopologyNode})}
	for _, format := range []wire.Format{wire.JSON, wire.Protobuf} {
		for _, x := range []object{web, db} {
			resource, _ := resourceOf(x)
			chain := NewChain(resource, nil, func(string) bool { return true })
			raw, o := encode(t, format, x), Object{}
			n := testing.AllocsPerRun(100, func() {
				o = Object{Format: format, Resource: resource, Raw: raw}
				chain.Apply(&o, &ctx, func(_ string, err error) { t.Error(err) })
			})
			if n > 0 {
				t.Errorf("%s in %s: %v allocations", resource, format.MediaType(), n)
			}
		}
	}
}
