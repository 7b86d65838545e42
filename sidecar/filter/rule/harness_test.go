// Endpoints are deprecated, but programs still read them.
//
//nolint:staticcheck
package rule

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"rockpool.dev/sidecar/api/wire"
)

// object is an API object that has both encodings.
type object interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

func encode(t testing.TB, f wire.Format, o object) []byte {
	t.Helper()
	raw, err := json.Marshal(o)
	if f == wire.Protobuf {
		raw, err = o.Marshal()
	}
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func decode(t testing.TB, f wire.Format, raw []byte, into object) object {
	t.Helper()
	var err error
	if f == wire.JSON {
		err = json.Unmarshal(raw, into)
	} else {
		err = into.Unmarshal(raw)
	}
	if err != nil {
		t.Fatalf("%v: %q", err, raw)
	}
	return into
}

func resourceOf(o object) (schema.GroupResource, object) {
	switch o.(type) {
	case *corev1.Service:
		return Services, &corev1.Service{}
	case *corev1.Endpoints:
		return Endpoints, &corev1.Endpoints{}
	}
	return EndpointSlices, &discoveryv1.EndpointSlice{}
}

// example is one case of a filter, which is tried in JSON and protobuf. Want nil: the object is left
// out.
type example struct {
	name    string
	context Context
	object  object
	want    object
}

func run(t *testing.T, filter string, examples []example) {
	t.Helper()
	for _, x := range examples {
		for _, format := range []wire.Format{wire.JSON, wire.Protobuf} {
			t.Run(x.name+" in "+format.MediaType(), func(t *testing.T) {
				resource, empty := resourceOf(x.object)
				chain := NewChain(resource, nil, func(name string) bool { return name == filter })
				raw := encode(t, format, x.object)
				before := bytes.Clone(raw)
				x.context.Address = netip.MustParseAddrPort("127.0.0.1:10268")
				got, keep := chain.Apply(&Object{Format: format, Resource: resource, Raw: raw}, &x.context, func(_ string, err error) { t.Error(err) })
				if !bytes.Equal(raw, before) {
					t.Error("the object itself was changed")
				}
				if keep != (x.want != nil) {
					t.Fatalf("kept: %v", keep)
				}
				if x.want == nil {
					return
				}
				// Both sides go through the encoding, which drops empty lists.
				_, again := resourceOf(x.object)
				want := decode(t, format, encode(t, format, x.want), again)
				if diff := cmp.Diff(want, normal(decode(t, format, got, empty))); diff != "" {
					t.Error(diff)
				}
				if x.want == x.object && !bytes.Equal(got, raw) {
					t.Error("the bytes of an object that passes have changed")
				}
			})
		}
	}
}

// normal has null where JSON has an empty list, which protobuf cannot say.
func normal(o object) object {
	switch o := o.(type) {
	case *discoveryv1.EndpointSlice:
		if len(o.Endpoints) == 0 {
			o.Endpoints = nil
		}
	case *corev1.Endpoints:
		if len(o.Subsets) == 0 {
			o.Subsets = nil
		}
		for i := range o.Subsets {
			s := &o.Subsets[i]
			if len(s.Addresses) == 0 {
				s.Addresses = nil
			}
			if len(s.NotReadyAddresses) == 0 {
				s.NotReadyAddresses = nil
			}
		}
	}
	return o
}

func service(name string, kind corev1.ServiceType, annotations map[string]string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, ResourceVersion: "7", Annotations: annotations},
		Spec: corev1.ServiceSpec{
			Type: kind, ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"},
			Ports: []corev1.ServicePort{{Name: "https", Port: 443}, {Name: "http", Port: 80}},
		},
	}
}

// place is where an endpoint is: its node and zone.
type place struct{ node, zone string }

func slice(name string, places ...place) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: name + "-x", ResourceVersion: "8", Labels: map[string]string{LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](80)}},
	}
	for i, p := range places {
		e := discoveryv1.Endpoint{Addresses: []string{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String()}}
		e.Addresses[0] = "10.0.0." + p.node + p.zone // so that it does not depend on the place in the list
		if p.node != "" {
			e.NodeName = &p.node
		}
		if p.zone != "" {
			e.Zone = &p.zone
			e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: p.zone}}}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func endpoints(name string, ready, notReady []string) *corev1.Endpoints {
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, ResourceVersion: "9"}}
	if len(ready)+len(notReady) == 0 {
		return e
	}
	addresses := func(nodes []string) (list []corev1.EndpointAddress) {
		for _, node := range nodes {
			a := corev1.EndpointAddress{IP: "10.0.0." + node}
			if node != "" {
				a.NodeName = &node
			}
			list = append(list, a)
		}
		return list
	}
	e.Subsets = []corev1.EndpointSubset{{Addresses: addresses(ready), NotReadyAddresses: addresses(notReady), Ports: []corev1.EndpointPort{{Name: "http", Port: 80}}}}
	return e
}

func services(name string, s Service) map[types.NamespacedName]Service {
	return map[types.NamespacedName]Service{{Namespace: "shop", Name: name}: s}
}
