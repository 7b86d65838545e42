// Package manifests injects manifests in the shape of those of well-known projects, written for this
// purpose, and has the API server's own validation judge the result.
package manifests

import (
	"bufio"
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
	"k8s.io/apimachinery/pkg/util/yaml"

	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/manifest"
)

// least is how many manifests there are, so that none gets lost.
const least = 40

// skipped are the files in which a pod is left alone, with the reason. All other pods are injected.
var skipped = map[string]inject.Reason{
	"csi-driver.yaml":    inject.ReasonHostNetwork,
	"flannel.yaml":       inject.ReasonHostNetwork,
	"kube-proxy.yaml":    inject.ReasonHostNetwork,
	"node-exporter.yaml": inject.ReasonHostNetwork,
	"runner.yaml":        inject.ReasonWindows,
}

// noticed are the notices of each file.
var noticed = map[string][]inject.Reason{
	"coredns.yaml":              {inject.ReasonExcludedNamespace},
	"descheduler.yaml":          {inject.ReasonExcludedNamespace},
	"kube-state-metrics.yaml":   {inject.ReasonExcludedNamespace},
	"kured.yaml":                {inject.ReasonExcludedNamespace},
	"metrics-server.yaml":       {inject.ReasonExcludedNamespace},
	"nvidia-device-plugin.yaml": {inject.ReasonExcludedNamespace},
	"sealed-secrets.yaml":       {inject.ReasonExcludedNamespace},
	"vector.yaml":               {inject.ReasonOwnToleration},
}

func params() inject.Params {
	return inject.Params{
		Version: "v1", Image: "registry.example.com/rockpool:v1", CacheHostPath: inject.DefaultCacheHostPath,
		Settings: map[string]string{"upstream.servers": "https://api.example.com:6443"}, Stay: "24h",
	}
}

// rewritten is a manifest after a command, with the reasons for what it has not done.
func rewritten(t *testing.T, text []byte, change func(*manifest.Pod) (*corev1.Pod, inject.Result)) ([]byte, []inject.Reason) {
	t.Helper()
	var reasons []inject.Reason
	out, err := manifest.Rewrite(text, func(p *manifest.Pod) (*corev1.Pod, error) {
		pod, result := change(p)
		if result.Outcome == inject.Refused {
			return nil, errors.New(result.Cause.String())
		}
		if result.Outcome == inject.Skipped {
			reasons = append(reasons, result.Cause.Reason)
		}
		for _, n := range result.Notices {
			reasons = append(reasons, n.Reason)
		}
		return pod, nil
	}, func(document int) { t.Errorf("document %d is written again as a whole", document) })
	if err != nil {
		t.Fatal(err)
	}
	return out, reasons
}

func injected(t *testing.T, text []byte) ([]byte, []inject.Reason) {
	t.Helper()
	return rewritten(t, text, func(p *manifest.Pod) (*corev1.Pod, inject.Result) {
		return inject.Inject(p.Pod, inject.Facts{Namespace: p.Namespace, Asked: true, Template: true, Controller: p.Controller}, params())
	})
}

func TestManifestsOfWellKnownProjectsStayValid(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < least {
		t.Fatalf("%d manifests, want at least %d: %v", len(files), least, err)
	}
	validate := validator(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate(text); err != nil {
				t.Fatalf("before it is injected: %v", err)
			}
			out, reasons := injected(t, text)
			if err := validate(out); err != nil {
				t.Errorf("injected: %v\n%s", err, out)
			}
			want := noticed[filepath.Base(file)]
			if reason := skipped[filepath.Base(file)]; reason != "" {
				want = append(slices.Clone(want), reason)
			}
			slices.Sort(reasons)
			slices.Sort(want)
			if !slices.Equal(reasons, want) {
				t.Errorf("reasons %q, want %q", reasons, want)
			}
			if added := bytes.Count(out, []byte("name: "+inject.ContainerSidecar)); added == 0 && !strings.Contains(fmt.Sprint(skipped[filepath.Base(file)]), "host-network") {
				t.Errorf("%d sidecars", added)
			}
			onlyAdds(t, text, out)
			back, _ := rewritten(t, out, func(p *manifest.Pod) (*corev1.Pod, inject.Result) {
				pod, _ := inject.Uninject(p.Pod)
				return pod, inject.Result{}
			})
			if !bytes.Equal(back, text) {
				t.Errorf("uninject gives other bytes:\n%s\nwant\n%s", back, text)
			}
		})
	}
}

// onlyAdds checks that the lines of before are those of after, in order, but for those with other
// indentation of lists or in flow style, which an addition must open.
func onlyAdds(t *testing.T, before, after []byte) {
	t.Helper()
	left := strings.Split(string(after), "\n")
	changed := 0
	for line := range strings.SplitSeq(string(before), "\n") {
		at := slices.Index(left, line)
		if at < 0 {
			changed++
			continue
		}
		left = left[at+1:]
	}
	if changed > strings.Count(string(before), "{")+strings.Count(string(before), "[") {
		t.Errorf("%d lines have changed", changed)
	}
}

// validator builds the program of tests/tools that validates objects, which takes minutes the first
// time.
func validator(t *testing.T) func(text []byte) error {
	t.Helper()
	program := filepath.Join(t.TempDir(), "validate")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./validate")
	build.Dir = "../tools"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return func(text []byte) error {
		var objects bytes.Buffer
		for documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text))); ; {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			object, err := yaml.ToJSON(document)
			if err != nil {
				return err
			}
			if string(object) != "null" {
				objects.Write(object)
			}
		}
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Stdin = &objects
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}
}

func TestTheValidatorFindsMistakes(t *testing.T) {
	validate := validator(t)
	for name, text := range map[string]string{
		"no JSON":        "a: [",
		"not valid":      "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: b}, spec: {containers: [{name: A, image: a}]}}",
		"another object": "{apiVersion: v1, kind: Service, metadata: {name: a}}",
	} {
		if validate([]byte(text)) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
