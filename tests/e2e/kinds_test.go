package e2e

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

//go:embed testdata/kinds.yaml
var kindsYAML string

// kind is a resource that the API server lists.
type kind struct {
	schema.GroupVersionResource
	name       string // as in ConfigMap
	namespaced bool
	watchable  bool
}

// collectionPath is the path of the list over all namespaces.
func (k kind) collectionPath() string { return k.pathIn("") }

// objectPath is the path of an object by its key, NAMESPACE/NAME.
func (k kind) objectPath(key string) string {
	namespace, name, _ := strings.Cut(key, "/")
	return k.pathIn(namespace) + "/" + name
}

func (k kind) pathIn(namespace string) string {
	path := "/apis/" + k.Group + "/" + k.Version
	if k.Group == "" {
		path = "/api/" + k.Version
	}
	if namespace != "" {
		path += "/namespaces/" + namespace
	}
	return path + "/" + k.Resource
}

// kinds returns all resources of the API server that can be listed, in all versions.
func (s *site) kinds() (all []kind) {
	s.t.Helper()
	_, lists, err := cluster.Client().Discovery().ServerGroupsAndResources()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, r := range list.APIResources {
			verbs := fmt.Sprint(r.Verbs)
			if strings.Contains(verbs, "list") {
				all = append(all, kind{gv.WithResource(r.Name), r.Kind, r.Namespaced, strings.Contains(verbs, "watch")})
			}
		}
	}
	return all
}

// populate creates some objects of each kind that has a manifest, with random names, labels,
// annotations and data.
func (s *site) populate(random *rand.Rand, kinds []kind) {
	s.t.Helper()
	client := dynamicClient(s.t)
	for document := range strings.SplitSeq(strings.ReplaceAll(kindsYAML, "NAMESPACE", s.namespace), "\n---\n") {
		manifest := &unstructured.Unstructured{}
		raw, err := yaml.YAMLToJSON([]byte(document))
		if err := errors.Join(err, manifest.UnmarshalJSON(raw)); err != nil {
			s.t.Fatalf("testdata/kinds.yaml: %v\n%s", err, document)
		}
		k, ok := kindOf(kinds, manifest)
		if !ok {
			s.t.Logf("this API server does not know %v", manifest.GroupVersionKind())
			continue
		}
		for i := range 1 + random.IntN(3) {
			object := manifest.DeepCopy()
			object.SetName(fmt.Sprintf("%s-%d-%x", strings.ToLower(k.name), i, random.Uint32()))
			object.SetLabels(randomLabels(random))
			object.SetAnnotations(randomAnnotations(random))
			api := dynamic.ResourceInterface(client.Resource(k.GroupVersionResource))
			if k.namespaced {
				api = client.Resource(k.GroupVersionResource).Namespace(s.namespace)
			}
			created, err := api.Create(s.ctx, object, metav1.CreateOptions{})
			if err != nil {
				s.t.Errorf("%s: %v", k.GroupVersionResource, err)
				continue
			}
			if !k.namespaced {
				s.t.Cleanup(func() {
					// An object with a finalizer stays, which does no harm.
					_ = api.Delete(context.Background(), created.GetName(), metav1.DeleteOptions{})
				})
			}
		}
	}
}

func kindOf(kinds []kind, o *unstructured.Unstructured) (kind, bool) {
	gvk := o.GroupVersionKind()
	for _, k := range kinds {
		if k.GroupVersion() == gvk.GroupVersion() && k.name == gvk.Kind {
			return k, true
		}
	}
	return kind{}, false
}

// seed repeats the random choices of a failed test.
var seed = flag.Uint64("seed", 0, "of the tests that make random choices; 0: another one each time")

func randomOf(t *testing.T) *rand.Rand {
	n := *seed
	if n == 0 {
		n = rand.Uint64()
	}
	t.Logf("the random choices are those of -seed=%d", n)
	return rand.New(rand.NewPCG(n, 0))
}

func randomLabels(random *rand.Rand) map[string]string {
	labels := map[string]string{}
	for range random.IntN(4) {
		key := [...]string{"app", "tier", "app.kubernetes.io/name", "example.com/A_b-c.d"}[random.IntN(4)]
		labels[key] = [...]string{"", "a", "B", "x_y.z-1", strings.Repeat("l", 63)}[random.IntN(5)]
	}
	return labels
}

// randomAnnotations have values that a wrong encoder would change.
func randomAnnotations(random *rand.Rand) map[string]string {
	parts := [...]string{
		`"`, `\`, `\"}`, "\n", "\t", "\r\n", "\x01", "\x7f", "<&>", "\u2028\u2029", "é", "漢字", "🦀", "\ufeff", "\u00a0", `{"items":[{"metadata":{"name":"not me"}}]}`,
		`\u0041`, "]}", "k8s\x00", "", strings.Repeat("long ", 200), "\u202e", "e\u0301", "\U0010ffff",
	}
	annotations := map[string]string{}
	for i := range 1 + random.IntN(5) {
		var value strings.Builder
		for range random.IntN(6) {
			value.WriteString(parts[random.IntN(len(parts))])
		}
		annotations[fmt.Sprintf("example.com/a%d", i)] = value.String()
	}
	return annotations
}
