package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/sidecar/api/wire"
)

// The encodings of objects, as Accept headers.
const (
	asJSON             = "application/json"
	asProtobuf         = "application/vnd.kubernetes.protobuf"
	asMetadata         = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	asProtobufMetadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
)

// TestOfflineAnswersHaveTheRequestedEncoding records each list in one encoding only, and compares
// the offline answers in all encodings with those of the API server.
func TestOfflineAnswersHaveTheRequestedEncoding(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.allow(core("pods"))
	s.populateFar()
	p := s.pod()
	p.sees("synced")

	const far = "?labelSelector=side%3Dfar"
	selectors := map[string][]string{
		"pods": {"spec.nodeName=edge-1", "spec.nodeName!=edge-1", "status.phase=Pending", "status.phase=Running", "spec.hostNetwork=false", "spec.hostNetwork=true,spec.nodeName=edge-2",
			"spec.restartPolicy=Always,spec.schedulerName=default-scheduler,spec.serviceAccountName=default,status.podIP=", "metadata.name=far-1", "metadata.name!=far-1", "metadata.namespace=elsewhere", "status.podIPs=x"},
		"services":   {"spec.type=ClusterIP", "spec.clusterIP=None", "spec.clusterIP!=None"},
		"secrets":    {"type=Opaque", "type!=Opaque"},
		"events":     {"involvedObject.name=far-1", "involvedObject.kind=Pod,type=Warning", "source=me", "reason=There,reportingComponent="},
		"configmaps": {"metadata.name=far-1"},
	}
	recorded := map[string]string{"pods": asProtobuf, "services": asJSON, "secrets": asProtobuf, "events": asJSON, "configmaps": asProtobuf}
	path := func(resource string) string { return "/api/v1/namespaces/" + s.namespace + "/" + resource }
	accept := func(target, form string) question { return with("GET", target, map[string]string{"Accept": form}) }

	type expected struct{ target, form string }
	var asked []expected
	var record, ask []question
	for resource, selectors := range selectors {
		record = append(record, accept(path(resource)+far, recorded[resource]))
		for _, selector := range append(selectors, "") {
			target := path(resource) + far
			if selector != "" {
				target += "&fieldSelector=" + url.QueryEscape(selector)
			}
			for _, form := range []string{asJSON, asProtobuf, asMetadata, asProtobufMetadata} {
				asked = append(asked, expected{target, form})
			}
		}
		for _, form := range []string{asJSON, asProtobuf, asMetadata, asProtobufMetadata} {
			asked = append(asked, expected{path(resource) + "/far-1", strings.Replace(form, "MetadataList", "Metadata", 1)})
		}
	}
	for _, r := range p.ask(record...) {
		if r.Status != http.StatusOK {
			t.Fatalf("a request to record: %+v", r)
		}
	}
	p.offline()
	for _, e := range asked {
		ask = append(ask, accept(e.target, e.form))
	}
	for i, r := range p.ask(ask...) {
		e := asked[i]
		if r.Status != http.StatusOK {
			t.Errorf("%s as %s: %+v", e.target, e.form, r)
			continue
		}
		body := []byte(r.Body)
		if wire.FormatOf(r.Headers["Content-Type"]) == wire.Protobuf {
			var err error
			if body, err = base64.StdEncoding.DecodeString(r.Body); err != nil {
				t.Fatal(err)
			}
		}
		want, got := objects(t, s.server(e.target, e.form)), objects(t, body)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s as %s: %s", e.target, e.form, d)
		}
	}
	for _, target := range []string{path("pods") + far + "&fieldSelector=spec.priority%3D1", path("configmaps") + "?fieldSelector=data.x%3D1"} {
		if r := p.ask(get(target))[0]; r.Status != http.StatusServiceUnavailable {
			t.Errorf("%s, which the server refuses too: %+v", target, r)
		}
	}
}

// populateFar creates objects that nothing in the cluster changes.
func (s *site) populateFar() {
	s.t.Helper()
	core, ctx := cluster.Client().CoreV1(), s.ctx
	for name, node := range map[string]string{"far-1": "edge-1", "far-2": "edge-2"} {
		meta := metav1.ObjectMeta{Name: name, Labels: map[string]string{"side": "far"}, Annotations: map[string]string{"text": "<&>ü\"\n"}}
		_, errPod := core.Pods(s.namespace).Create(ctx, &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{NodeName: node, HostNetwork: name == "far-2", Containers: []corev1.Container{
			{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{ContainerPort: 80}}, VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}}},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}}}, metav1.CreateOptions{})
		service := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		if name == "far-2" {
			service.Spec.ClusterIP = corev1.ClusterIPNone
		}
		_, errService := core.Services(s.namespace).Create(ctx, service, metav1.CreateOptions{})
		_, errSecret := core.Secrets(s.namespace).Create(ctx, &corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"k": {0, 255}}}, metav1.CreateOptions{})
		_, errConfig := core.ConfigMaps(s.namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"k": "v"}, BinaryData: map[string][]byte{"b": {1}}}, metav1.CreateOptions{})
		_, errEvent := core.Events(s.namespace).Create(ctx, &corev1.Event{ObjectMeta: meta, Reason: "There", Type: "Warning", Source: corev1.EventSource{Component: "me"}, FirstTimestamp: metav1.Now(),
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: name, Namespace: s.namespace}}, metav1.CreateOptions{})
		for _, err := range []error{errPod, errService, errSecret, errConfig, errEvent} {
			if err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// server sends a GET to the API server itself, without Rockpool.
func (s *site) server(target, accept string) []byte {
	s.t.Helper()
	raw, err := cluster.Client().CoreV1().RESTClient().Get().RequestURI(target).SetHeader("Accept", accept).DoRaw(s.ctx)
	if err != nil {
		s.t.Fatalf("%s as %s: %v", target, accept, err)
	}
	return raw
}

// objects decodes a body: its kind, and its objects by name. Objects in JSON are decoded, so that
// they are compared by value; objects in protobuf are compared byte by byte.
func objects(t *testing.T, body []byte) map[string]any {
	t.Helper()
	format := wire.JSON
	if bytes.HasPrefix(body, []byte("k8s\x00")) {
		format = wire.Protobuf
	}
	out := map[string]any{}
	add := func(item []byte) error {
		m, err := format.ParseItem(item)
		var object any = item
		if err == nil && format == wire.JSON {
			err = json.Unmarshal(item, &object)
		}
		out[m.Name] = object
		return err
	}
	split := format.NewList(add)
	_, err := split.Write(body)
	head, errHead := split.ListMeta()
	if err != nil || errHead != nil {
		t.Fatalf("%q: %v %v", body, err, errHead)
	}
	out["kind"] = head.APIVersion + " " + head.Kind
	if !head.HasItems { // a single object
		m, err := format.ParseMeta(body)
		if err != nil {
			t.Fatal(err)
		}
		bare, _ := format.Bare(body)
		if err := add(bare); err != nil {
			t.Fatal(err)
		}
		out["kind"] = m.APIVersion + " " + m.Kind
	}
	return out
}
