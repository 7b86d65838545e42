package replay

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"net/url"
	"strconv"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes/scheme"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

type object interface {
	metav1.Object
	Marshal() ([]byte, error)
}

// about are the fields of an event's object, by the selector's names.
func about(name string, o corev1.ObjectReference) fields.Set {
	return fields.Set{name + ".kind": o.Kind, name + ".namespace": o.Namespace, name + ".name": o.Name, name + ".uid": string(o.UID),
		name + ".apiVersion": o.APIVersion, name + ".resourceVersion": o.ResourceVersion, name + ".fieldPath": o.FieldPath}
}

func with(a, b fields.Set) fields.Set {
	for k, v := range b {
		a[k] = v
	}
	return a
}

func TestSelectableFieldsAreThoseOfTheServer(t *testing.T) {
	count := func(n int32) string { return strconv.Itoa(int(n)) }
	tests := []struct {
		path string
		make func() object
		want func(object) fields.Set
	}{
		{"/api/v1/pods", func() object { return &corev1.Pod{} }, func(o object) fields.Set {
			p := o.(*corev1.Pod)
			return fields.Set{"spec.nodeName": p.Spec.NodeName, "spec.host": p.Spec.NodeName, "spec.restartPolicy": string(p.Spec.RestartPolicy),
				"spec.schedulerName": p.Spec.SchedulerName, "spec.serviceAccountName": p.Spec.ServiceAccountName, "spec.hostNetwork": fmt.Sprint(p.Spec.HostNetwork),
				"status.phase": string(p.Status.Phase), "status.podIP": p.Status.PodIP, "status.podIPs": "", "status.nominatedNodeName": p.Status.NominatedNodeName}
		}},
		{"/api/v1/events", func() object { return &corev1.Event{} }, func(o object) fields.Set {
			e := o.(*corev1.Event)
			source := e.Source.Component
			if source == "" {
				source = e.ReportingController
			}
			return with(about("involvedObject", e.InvolvedObject), fields.Set{"reason": e.Reason, "reportingComponent": e.ReportingController, "source": source, "type": e.Type})
		}},
		{"/apis/events.k8s.io/v1/events", func() object { return &eventsv1.Event{} }, func(o object) fields.Set {
			e := o.(*eventsv1.Event)
			return with(about("regarding", e.Regarding), fields.Set{"reason": e.Reason, "reportingController": e.ReportingController, "type": e.Type})
		}},
		{"/api/v1/nodes", func() object { return &corev1.Node{} }, func(o object) fields.Set {
			return fields.Set{"spec.unschedulable": fmt.Sprint(o.(*corev1.Node).Spec.Unschedulable)}
		}},
		{"/api/v1/namespaces", func() object { return &corev1.Namespace{} }, func(o object) fields.Set {
			return fields.Set{"status.phase": string(o.(*corev1.Namespace).Status.Phase)}
		}},
		{"/api/v1/secrets", func() object { return &corev1.Secret{} }, func(o object) fields.Set {
			return fields.Set{"type": string(o.(*corev1.Secret).Type)}
		}},
		{"/api/v1/services", func() object { return &corev1.Service{} }, func(o object) fields.Set {
			s := o.(*corev1.Service)
			return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		}},
		{"/api/v1/replicationcontrollers", func() object { return &corev1.ReplicationController{} }, func(o object) fields.Set {
			return fields.Set{"status.replicas": count(o.(*corev1.ReplicationController).Status.Replicas)}
		}},
		{"/apis/batch/v1/jobs", func() object { return &batchv1.Job{} }, func(o object) fields.Set {
			return fields.Set{"status.successful": count(o.(*batchv1.Job).Status.Succeeded)}
		}},
		{"/apis/certificates.k8s.io/v1/certificatesigningrequests", func() object { return &certificatesv1.CertificateSigningRequest{} }, func(o object) fields.Set {
			return fields.Set{"spec.signerName": o.(*certificatesv1.CertificateSigningRequest).Spec.SignerName}
		}},
		{"/apis/certificates.k8s.io/v1beta1/clustertrustbundles", func() object { return &certificatesv1beta1.ClusterTrustBundle{} }, func(o object) fields.Set {
			return fields.Set{"spec.signerName": o.(*certificatesv1beta1.ClusterTrustBundle).Spec.SignerName}
		}},
		{"/apis/certificates.k8s.io/v1beta1/podcertificaterequests", func() object { return &certificatesv1beta1.PodCertificateRequest{} }, func(o object) fields.Set {
			s := o.(*certificatesv1beta1.PodCertificateRequest).Spec
			return fields.Set{"spec.signerName": s.SignerName, "spec.podName": s.PodName, "spec.nodeName": string(s.NodeName)}
		}},
		{"/apis/resource.k8s.io/v1/resourceslices", func() object { return &resourcev1.ResourceSlice{} }, func(o object) fields.Set {
			s, node := o.(*resourcev1.ResourceSlice).Spec, ""
			if s.NodeName != nil {
				node = *s.NodeName
			}
			return fields.Set{"spec.driver": s.Driver, "spec.nodeName": node}
		}},
	}
	random := fuzzer.FuzzerFor(metafuzzer.Funcs, rand.NewSource(3), scheme.Codecs)
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			info := ask(tt.path, "").Info
			byName, _ := selectable(info.Group, info.Version, info.Resource)
			for round := range 20 {
				o := tt.make()
				if round > 0 { // the first one is empty
					random.Fill(o)
				}
				raw, err := o.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				text, err := json.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				want := tt.want(o)
				if len(want) != len(byName) {
					t.Fatalf("%d fields, want %d", len(byName), len(want))
				}
				want["metadata.name"] = o.GetName()
				for label, value := range want {
					for op, expected := range map[string]bool{"=": true, "==": true, "!=": false} {
						selector := label + op + fields.EscapeValue(value)
						conditions, ok := parseConditions(ask(tt.path+"?fieldSelector="+url.QueryEscape(selector), "").Info)
						if !ok || len(conditions) != 1 {
							t.Fatalf("%s is not selectable: %v", selector, conditions)
						}
						for format, payload := range map[wire.Format][]byte{wire.JSON: text, wire.Protobuf: raw} {
							got, err := conditions[0].matches(format, store.Object{Name: o.GetName(), Namespace: o.GetNamespace(), Payload: payload})
							if err != nil || got != expected {
								t.Fatalf("%s: %s: %v %v\n%q", format.MediaType(), selector, got, err, payload)
							}
						}
					}
				}
			}
		})
	}
}

func TestFieldsThatTheServerRefusesAreNotSelectable(t *testing.T) {
	for _, tt := range []struct{ path, selector string }{
		{"/api/v1/pods", "spec.priority=1"},
		{"/api/v1/nodes", "metadata.namespace=a"},
		{"/api/v1/namespaces", "name=a"},
		{"/apis/apps/v1/replicasets", "status.replicas=1"},
		{"/apis/apps/v1/statefulsets", "status.successful=1"},
		{"/apis/events.k8s.io/v1/events", "involvedObject.name=a"},
		{"/apis/example.com/v1/pods", "spec.nodeName=a"},
		{"/api/v1/configmaps", "data.a=b"},
		{"/api/v1/pods", "spec.nodeName=a,spec.priority=1"},
	} {
		if got, ok := parseConditions(ask(tt.path+"?fieldSelector="+url.QueryEscape(tt.selector), "").Info); ok {
			t.Errorf("%s %s: %+v", tt.path, tt.selector, got)
		}
	}
}
