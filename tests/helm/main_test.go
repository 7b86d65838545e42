// Package helm compares the Helm chart with the manifests for kustomize, and tests its values.
package helm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"rockpool.dev/tests/bed/cluster"
)

const (
	manifests = "../../manifests"
	chart     = manifests + "/helm"
	system    = "rockpool-system"
)

// All tests share these.
var helm, kubectl string

func TestMain(m *testing.M) {
	code, err := run(context.Background(), m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests/helm:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, m *testing.M) (code int, err error) {
	if helm, err = cluster.FindHelm(ctx, os.Stderr); err != nil {
		return 1, err
	}
	tools, err := cluster.FindKubectl(ctx, os.Stderr)
	if err != nil {
		return 1, err
	}
	kubectl = tools.Kubectl
	return m.Run(), nil
}

// command runs a program and returns its output, or an error with all that it has printed.
func command(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	// Helm reads no configuration of the person who runs the tests.
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, messages.String(), out.String())
	}
	return out.String(), nil
}

// template is the output of `helm template` with the values, in YAML.
func template(t *testing.T, namespace, values string, args ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	return command(t, helm, append([]string{"template", "rockpool", chart, "--namespace", namespace, "--values", file}, args...)...)
}

// objects are those of a YAML stream by API version, kind, namespace and name, without the known
// differences between kustomize and Helm.
func objects(t *testing.T, text string) map[string]map[string]any {
	t.Helper()
	out := map[string]map[string]any{}
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		var o unstructured.Unstructured
		if err := decoder.Decode(&o.Object); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if len(o.Object) == 0 {
			continue
		}
		alike(o.Object)
		key := strings.Join([]string{o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName()}, " ")
		if out[key] != nil {
			t.Errorf("%s is there twice", key)
		}
		out[key] = o.Object
	}
}
