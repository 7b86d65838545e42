package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// directories are all arguments for `kubectl apply -k`, that of the README first.
func directories(t *testing.T) []string {
	t.Helper()
	overlays, err := filepath.Glob(manifests + "/overlays/*")
	if err != nil || len(overlays) == 0 {
		t.Fatalf("no overlays: %v", err)
	}
	return append([]string{manifests}, overlays...)
}

func rendered(t *testing.T, directory string) []unstructured.Unstructured {
	t.Helper()
	out, err := kubectl(t.Context(), "kustomize", directory)
	if err != nil {
		t.Fatal(err)
	}
	var objects []unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(out), 4096)
	for {
		var object unstructured.Unstructured
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatalf("%s: %v", directory, err)
		}
		objects = append(objects, object)
	}
}

// template returns the pod template of a workload, or nil for other objects.
func template(t *testing.T, object unstructured.Unstructured) *corev1.PodTemplateSpec {
	t.Helper()
	for _, path := range [][]string{{"spec", "template"}, {"spec", "jobTemplate", "spec", "template"}} {
		fields, ok, err := unstructured.NestedMap(object.Object, path...)
		if err != nil || !ok {
			continue
		}
		var pods corev1.PodTemplateSpec
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(fields, &pods); err != nil {
			t.Fatal(err)
		}
		return &pods
	}
	return nil
}

func TestObjectsOfAllOverlaysMeetTheRulesOfClusterAdmins(t *testing.T) {
	help, err := exec.CommandContext(t.Context(), binary, "serve", "--help").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	for _, directory := range directories(t) {
		t.Run(filepath.Base(directory), func(t *testing.T) {
			workloads := 0
			for _, object := range rendered(t, directory) {
				name := object.GetKind() + " " + object.GetName()
				checkLabels(t, name, object.GetLabels())
				pods := template(t, object)
				if pods == nil {
					continue
				}
				workloads++
				checkLabels(t, "pods of "+name, pods.Labels)
				checkPod(t, name, &pods.Spec)
				if object.GetName() == "rockpool-injector" {
					checkInjector(t, &pods.Spec, string(help))
				}
			}
			if workloads == 0 {
				t.Error("there is no workload, so this test shows nothing")
			}
		})
	}
}

func checkLabels(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	for _, key := range []string{"name", "component", "part-of", "managed-by"} {
		if labels["app.kubernetes.io/"+key] == "" {
			t.Errorf("%s has no label app.kubernetes.io/%s", name, key)
		}
	}
}

// onTheNode are the workloads that do more than a restricted pod may, with their capabilities.
// Their manifests give the reason.
var onTheNode = map[string][]corev1.Capability{"DaemonSet rockpool-janitor": {"DAC_OVERRIDE"}}

// checkPod checks a pod against the restricted Pod Security level, and further rules.
func checkPod(t *testing.T, name string, spec *corev1.PodSpec) {
	t.Helper()
	capabilities, root := onTheNode[name]
	s := spec.SecurityContext
	if s == nil || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault || !root && (s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil) {
		t.Errorf("%s: securityContext of the pod: %+v", name, s)
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		r := c.Resources
		if r.Requests.Cpu().IsZero() || r.Requests.Memory().IsZero() || r.Limits.Memory().IsZero() {
			t.Errorf("%s: resources of %s: %+v", name, c.Name, r)
		}
		s := c.SecurityContext
		if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
			s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(s.Capabilities.Add, capabilities) {
			t.Errorf("%s: securityContext of %s: %+v", name, c.Name, s)
		}
	}
}

// checkInjector checks the environment variables of the overlays.
func checkInjector(t *testing.T, spec *corev1.PodSpec, help string) {
	t.Helper()
	c := spec.Containers[0]
	for _, e := range c.Env {
		flag := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(e.Name, "ROCKPOOL_INJECTOR_"), "_", "-"))
		if !strings.Contains(help, "--"+flag+" ") {
			t.Errorf("no flag for the variable %s", e.Name)
		}
		if flag == "sidecar-image" && e.Value != c.Image {
			t.Errorf("the sidecar's image is %s, the injector's %s", e.Value, c.Image)
		}
	}
}

func TestOneEditSetsTheImage(t *testing.T) {
	directory := t.TempDir()
	if err := os.CopyFS(directory, os.DirFS(manifests)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(directory, "kustomization.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	edited := bytes.Replace(text, []byte("newName: rockpool\n  newTag: dev"), []byte("newName: registry.example.com/rockpool\n  newTag: v1"), 1)
	edited = bytes.Replace(edited, []byte("- upstreams="), []byte("- upstreams=https://api.example.com"), 1)
	edited = bytes.Replace(edited, []byte("# components:            # makes any overlay highly available\n# - components/ha"), []byte("components:\n- components/ha"), 1)
	if err := os.WriteFile(file, edited, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, object := range rendered(t, directory) {
		switch object.GetKind() {
		case "Deployment":
			c := template(t, object).Spec.Containers[0]
			i := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "ROCKPOOL_INJECTOR_SIDECAR_IMAGE" })
			if want := "registry.example.com/rockpool:v1"; c.Image != want || c.Env[i].Value != want {
				t.Errorf("injector %s, sidecar %s", c.Image, c.Env[i].Value)
			}
			if n, _, _ := unstructured.NestedFieldNoCopy(object.Object, "spec", "replicas"); fmt.Sprint(n) != "3" {
				t.Errorf("%v replicas with components/ha", n)
			}
		case "ConfigMap":
			data, _, _ := unstructured.NestedStringMap(object.Object, "data")
			if object.GetName() == "rockpool-cfg" && data["upstreams"] != "https://api.example.com" {
				t.Errorf("ConfigMap %v", data)
			}
		}
	}
}

func TestApplyOnAnEmptyCluster(t *testing.T) {
	if strings.Contains(applied, "Warning") || !strings.Contains(applied, "deployment.apps/rockpool-injector created") {
		t.Errorf("output of the first apply:\n%s", applied)
	}
	if changes != "" {
		t.Errorf("a second apply would change:\n%s", changes)
	}

	// cert-manager is not installed: its custom resource definitions are enough for the API server.
	if _, err := kubectl(t.Context(), "apply", "-f", "testdata/cert-manager-crds.yaml"); err != nil {
		t.Fatal(err)
	}
	if _, err := kubectl(t.Context(), "wait", "--for=condition=Established", "--timeout=30s", "-f", "testdata/cert-manager-crds.yaml"); err != nil {
		t.Fatal(err)
	}
	// Each overlay can be applied over each other one.
	for _, directory := range append(directories(t), manifests) {
		out, err := kubectl(t.Context(), "apply", "-k", directory)
		if err != nil || strings.Contains(out, "Warning") {
			t.Errorf("%s: %v\n%s", directory, err, out)
		}
	}
}
