package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/webhook"
	"rockpool.dev/sidecar/config"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// goldenReview is the uid of the reviews.
const goldenReview = "golden"

// goldenNamespace is where the pods of the golden files are created.
const goldenNamespace = "shop"

var goldenParams = inject.Params{
	Version:       "v1.2.3",
	Image:         "registry.example.com/rockpool:v1",
	Settings:      map[string]string{"upstream.servers": "https://api.example.com:6443,https://192.0.2.7"},
	CacheHostPath: inject.DefaultCacheHostPath,
	Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("20m"), corev1.ResourceMemory: resource.MustParse("48Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("192Mi")},
	},
}

// TestGolden injects every X.yaml in testdata and compares the result with X.injected.yaml. It
// also checks that the pure function and the webhook agree.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		base, isOutput := strings.CutSuffix(file, ".injected.yaml")
		if isOutput {
			if !slices.Contains(files, base+".yaml") {
				t.Errorf("%s is stale: there is no %s.yaml; remove it", file, base)
			}
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			input := readYAML(t, file)
			facts := readFacts(t, file)
			response := review(t, input, facts)
			output := applied(t, input, response)
			golden := strings.TrimSuffix(file, ".yaml") + ".injected.yaml"
			compareGolden(t, golden, describe(t, response, output))

			pod := decodePod(t, input)
			patched, result := inject.Inject(pod, facts, goldenParams)
			if diff := cmp.Diff(decodePod(t, output), patched); diff != "" {
				t.Errorf("the pure function and the webhook differ (-webhook +function):\n%s", diff)
			}
			if refused := result.Outcome == inject.Refused; refused == response.Allowed {
				t.Errorf("the pure function says %s, the webhook allowed: %v", result.Outcome, response.Allowed)
			}
			if diff := cmp.Diff(response.Warnings, result.Warnings()); diff != "" {
				t.Errorf("warnings differ:\n%s", diff)
			}
			if !response.Allowed {
				return
			}
			// Uninject also restores the original of a pod that was injected before.
			want, _ := inject.Uninject(pod)
			got, _ := inject.Uninject(patched)
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("Uninject does not restore the pod (-before +after):\n%s", diff)
			}
			if again := review(t, output, facts); len(again.Patch) != 0 {
				t.Errorf("injecting again gives a patch: %s", again.Patch)
			}
		})
	}
}

// TestTheSidecarAcceptsItsConfiguration loads the variables and annotations of every golden pod
// like a sidecar.
func TestTheSidecarAcceptsItsConfiguration(t *testing.T) {
	files, err := filepath.Glob("testdata/*.injected.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	taken := map[string]bool{}
	for _, file := range files {
		pod := decodePod(t, readYAML(t, file))
		i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == inject.ContainerSidecar })
		if i < 0 {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			for _, e := range pod.Spec.InitContainers[i].Env {
				t.Setenv(e.Name, e.Value)
				taken[e.Name] = true
			}
			directory := t.TempDir()
			t.Setenv("ROCKPOOL_CONFIG", directory)
			var annotations strings.Builder
			for name, value := range pod.Annotations {
				fmt.Fprintf(&annotations, "%s=%q\n", name, value)
			}
			if err := os.WriteFile(filepath.Join(directory, config.AnnotationsFileName), []byte(annotations.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			flags := pflag.NewFlagSet("sidecar", pflag.ContinueOnError)
			config.Register(flags)
			loaded, err := config.Load(flags)
			if err != nil {
				t.Fatal(err)
			}
			if asked := pod.Annotations[inject.AnnotationLogLevel]; asked != "" && loaded.Log.Level.String() != asked {
				t.Errorf("log.level is %s, the pod asks for %s", loaded.Log.Level, asked)
			}
			if len(loaded.Upstream.Servers) == 0 {
				t.Error("there is no upstream")
			}
		})
	}
	for _, name := range []string{"ROCKPOOL_CONFIG", "ROCKPOOL_LISTEN_ADDRESS", "ROCKPOOL_LISTEN_SERVICE_ADDRESS", "ROCKPOOL_DEFAULT_UPSTREAM_SERVERS"} {
		if !taken[name] {
			t.Errorf("no golden pod has %s", name)
		}
	}
}

// TestIPv6 injects every golden pod as in a cluster whose API server has an IPv6 address.
func TestIPv6(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	params := goldenParams
	params.IPv6 = true
	for _, file := range files {
		if strings.HasSuffix(file, ".injected.yaml") {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			pod, facts := decodePod(t, readYAML(t, file)), readFacts(t, file)
			if _, again := inject.Uninject(pod); again {
				t.Skip("it was injected in another cluster")
			}
			patched, result := inject.Inject(pod, facts, params)
			if result.Outcome != inject.Injected {
				return
			}
			spec := string(must(json.Marshal(patched.Spec)))
			for _, want := range []string{`"name":"KUBERNETES_SERVICE_HOST","value":"::1"`, `"value":"tcp://[::1]:`, `"name":"ROCKPOOL_LISTEN_ADDRESS","value":"[::1]:`} {
				if !strings.Contains(spec, want) {
					t.Errorf("%s is missing in %s", want, spec)
				}
			}
			if before := string(must(json.Marshal(pod.Spec))); strings.Count(spec, "127.0.0.1") != strings.Count(before, "127.0.0.1") {
				t.Errorf("127.0.0.1 is added: %s", spec)
			}
			if strings.Contains(spec, "ROCKPOOL_LISTEN_SERVICE_ADDRESS") != strings.Contains(spec, `"ip":"::1"`) {
				t.Errorf("service address and aliases do not fit: %s", spec)
			}
			if _, again := inject.Inject(patched, facts, goldenParams); again.Outcome != inject.Unchanged {
				t.Errorf("injected again it is %s", again.Outcome)
			}
			if restored, _ := inject.Uninject(patched); !cmp.Equal(pod, restored, cmpopts.EquateEmpty()) {
				t.Errorf("Uninject does not restore the pod (-before +after):\n%s", cmp.Diff(pod, restored, cmpopts.EquateEmpty()))
			}
		})
	}
}

func must(text []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return text
}

// describe returns the text of a golden file: the decision as comments, then the pod.
func describe(t *testing.T, response *admissionv1.AdmissionResponse, pod []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "# allowed: %v\n", response.Allowed)
	if response.Result != nil {
		for line := range strings.Lines(response.Result.Message) {
			fmt.Fprintf(&b, "# message: %s\n", strings.TrimSuffix(line, "\n"))
		}
	}
	for _, w := range response.Warnings {
		fmt.Fprintf(&b, "# warning: %s\n", w)
	}
	text, err := yaml.JSONToYAML(pod)
	if err != nil {
		t.Fatal(err)
	}
	b.Write(text)
	return b.Bytes()
}

func compareGolden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; go test ./injector -run TestGolden -update writes it", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; -update accepts it):\n%s", file, diff)
	}
}

// review sends a pod through the webhook's handler.
func review(t *testing.T, pod []byte, facts inject.Facts) *admissionv1.AdmissionResponse {
	t.Helper()
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: goldenReview, Operation: admissionv1.Create, Namespace: facts.Namespace,
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Object:   runtime.RawExtension{Raw: pod},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := webhook.Path
	if facts.Asked {
		path = webhook.NamespacePath
	}
	request := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	recorder := httptest.NewRecorder()
	options := webhook.Options{Params: webhook.Always(goldenParams), Lookup: factsLookup{facts}, Log: zap.NewNop()}
	webhook.NewHandler(options).ServeHTTP(recorder, request)
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil || answer.Response == nil {
		t.Fatalf("HTTP %d, %v: %s", recorder.Code, err, recorder.Body)
	}
	return answer.Response
}

// factsLookup answers lookups from facts.
type factsLookup struct{ facts inject.Facts }

func (c factsLookup) Namespace(context.Context, string) (*metav1.ObjectMeta, error) {
	return &metav1.ObjectMeta{Labels: c.facts.NamespaceLabels, Annotations: c.facts.NamespaceAnnotations}, nil
}

func (c factsLookup) KubeletVersion(context.Context, string) (string, error) {
	return c.facts.KubeletVersion, nil
}

// readFacts reads the line "# facts: {...}" of an input.
func readFacts(t *testing.T, file string) inject.Facts {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	facts := inject.Facts{Namespace: goldenNamespace, Review: goldenReview}
	for line := range strings.Lines(string(text)) {
		if said, ok := strings.CutPrefix(line, "# facts: "); ok {
			if err := yaml.UnmarshalStrict([]byte(said), &facts); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
	}
	return facts
}

// applied applies the patch of the response to the bytes of the pod, like the API server.
func applied(t *testing.T, pod []byte, response *admissionv1.AdmissionResponse) []byte {
	t.Helper()
	if len(response.Patch) == 0 {
		return pod
	}
	patch, err := jsonpatch.DecodePatch(response.Patch)
	if err != nil {
		t.Fatal(err)
	}
	output, err := patch.Apply(pod)
	if err != nil {
		t.Fatalf("apply %s: %v", response.Patch, err)
	}
	return output
}

func readYAML(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	converted, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return converted
}

func decodePod(t *testing.T, text []byte) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := json.Unmarshal(text, pod); err != nil {
		t.Fatal(err)
	}
	return pod
}
