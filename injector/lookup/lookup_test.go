package lookup

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"
)

// apiServer answers GETs in protobuf and counts them.
func apiServer(t *testing.T, objects map[string]runtime.Object) (config *rest.Config, requests map[string]int) {
	t.Helper()
	requests = map[string]int{}
	encoder := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests[r.URL.Path]++
		object, ok := objects[r.URL.Path]
		if !ok {
			http.Error(w, "not found", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
		if err := encoder.Encode(object, w); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}, requests
}

func TestAnswersAreCachedForAWhile(t *testing.T) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}}}
	namespace.APIVersion, namespace.Kind = "v1", "Namespace"
	node := &corev1.Node{Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{KubeletVersion: "v1.36.3"}}}
	node.APIVersion, node.Kind = "v1", "Node"
	objects := map[string]runtime.Object{"/api/v1/namespaces/shop": namespace, "/api/v1/nodes/edge-1": node}
	config, requests := apiServer(t, objects)
	fake := clocktesting.NewFakeClock(time.Now())
	c, err := New(config, fake)
	if err != nil {
		t.Fatal(err)
	}
	read := func(label string) {
		t.Helper()
		meta, err := c.Namespace(t.Context(), "shop")
		if err != nil || meta.Labels["a"] != label || meta.Annotations["c"] != "d" {
			t.Errorf("%+v, %v; want the label %s", meta, err, label)
		}
		if version, err := c.KubeletVersion(t.Context(), "edge-1"); err != nil || version != "v1.36.3" {
			t.Errorf("%s, %v", version, err)
		}
	}
	expect := func(namespaces, nodes int) {
		t.Helper()
		if requests["/api/v1/namespaces/shop"] != namespaces || requests["/api/v1/nodes/edge-1"] != nodes {
			t.Errorf("requests: %v; want %d and %d times", requests, namespaces, nodes)
		}
	}
	read("b")
	namespace.Labels["a"] = "changed"
	read("b")
	expect(1, 1)
	fake.Step(NamespaceLifetime + time.Second)
	read("changed")
	expect(2, 1)
	fake.Step(NodeLifetime + time.Second)
	read("changed")
	expect(3, 2)
}

func TestFailuresAreNotCached(t *testing.T) {
	objects := map[string]runtime.Object{}
	config, requests := apiServer(t, objects)
	c, err := New(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.Namespace(t.Context(), "gone"); err == nil {
			t.Error("a missing namespace is found")
		}
		if _, err := c.KubeletVersion(t.Context(), "gone"); err == nil {
			t.Error("a missing node is found")
		}
	}
	if requests["/api/v1/namespaces/gone"] != 2 || requests["/api/v1/nodes/gone"] != 2 {
		t.Errorf("requests: %v", requests)
	}
	for _, name := range []string{"", "..", "a/b"} {
		if _, err := c.KubeletVersion(t.Context(), name); err == nil || strings.Contains(err.Error(), "not found") {
			t.Errorf("%q was requested: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Namespace(ctx, "shop"); err == nil {
		t.Error("a request after the end of the context")
	}
}
