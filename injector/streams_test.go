package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/manifest"
)

// goldenFlags are goldenParams as flags of the command.
var goldenFlags = []string{"--sidecar-image=registry.example.com/rockpool:v1", "--upstream=https://api.example.com:6443,https://192.0.2.7", "--namespace=" + goldenNamespace}

func injectStream(t *testing.T, stdin string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, err := pipe(t, stdin, append([]string{"inject", "-f", "-"}, goldenFlags...)...)
	if err != nil {
		t.Fatal(err)
	}
	return stdout, stderr
}

// pipe executes the command with stdin as its standard input.
func pipe(t *testing.T, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	err = cmd.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

// TestStreams injects every X in testdata/streams and compares the result with X.injected, which
// begins with the warnings. It also checks that uninject restores X.
func TestStreams(t *testing.T) {
	defer func(old string) { version = old }(version)
	version = goldenParams.Version
	files, err := filepath.Glob("testdata/streams/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no streams: %v", err)
	}
	for _, file := range files {
		if base, isOutput := strings.CutSuffix(file, ".injected"); isOutput {
			if !slices.Contains(files, base) {
				t.Errorf("%s is stale: there is no %s; remove it", file, base)
			}
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			input, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			output, warnings := injectStream(t, string(input))
			compareGolden(t, file+".injected", []byte(warnings+output))

			if again, _ := injectStream(t, output); again != output {
				t.Errorf("injecting again changes the stream (-once +twice):\n%s", cmp.Diff(output, again))
			}
			back, _, err := pipe(t, output, "uninject", "-f", "-")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(objects(t, string(input)), objects(t, back)); diff != "" {
				t.Errorf("uninject does not restore the stream (-before +after):\n%s", diff)
			}
			if _, err := manifest.Rewrite([]byte(output), func(p *manifest.Pod) (*corev1.Pod, error) {
				checkWebhookLeavesAlone(t, p)
				return p.Pod, nil
			}, nil); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// checkWebhookLeavesAlone makes a pod from the template, like its controller, and sends it to
// the webhook.
func checkWebhookLeavesAlone(t *testing.T, p *manifest.Pod) {
	t.Helper()
	pod := p.Pod.DeepCopy()
	if _, injected := inject.Uninject(pod); !injected {
		return
	}
	if p.Controller != nil {
		owner := *p.Controller
		switch owner.Kind {
		case "Deployment":
			owner = metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: owner.Name + "-6d4cf56db6"}
			metav1.SetMetaDataLabel(&pod.ObjectMeta, "pod-template-hash", "6d4cf56db6")
		case "CronJob":
			owner = metav1.OwnerReference{APIVersion: "batch/v1", Kind: "Job", Name: owner.Name + "-29400960"}
		}
		owner.Controller = ptr.To(true)
		pod.GenerateName, pod.OwnerReferences = owner.Name+"-", []metav1.OwnerReference{owner}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == tokenPath }) {
			t.Errorf("%s: the ServiceAccount admission plugin will mount the token in %s", p, c.Name)
		}
	}
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	namespace := p.Namespace
	if namespace == "" {
		namespace = goldenNamespace
	}
	response := review(t, raw, inject.Facts{Namespace: namespace, Asked: true})
	if !response.Allowed || len(response.Patch) != 0 {
		t.Errorf("%s: the webhook changes what the command has injected: allowed %v, %s", p, response.Allowed, response.Patch)
	}
}

// objects reads a stream like kubectl.
func objects(t *testing.T, stream string) []any {
	t.Helper()
	var all []any
	for text := range strings.SplitSeq("\n"+stream, "\n---") {
		if rest := strings.TrimSpace(text); strings.HasPrefix(rest, "{") {
			decoder := json.NewDecoder(strings.NewReader(rest))
			decoder.UseNumber()
			for decoder.More() {
				var object any
				if err := decoder.Decode(&object); err != nil {
					t.Fatal(err)
				}
				all = append(all, object)
			}
			continue
		}
		var object any
		if err := yaml.Unmarshal([]byte(text), &object); err != nil {
			t.Fatalf("%v:\n%s", err, text)
		}
		all = append(all, object)
	}
	return all
}

func TestAStreamWithAnErrorIsNotWritten(t *testing.T) {
	const good = "apiVersion: v1\nkind: Pod\nmetadata: {name: good}\nspec: {containers: [{name: a, image: a}]}\n---\n"
	tests := []struct {
		name, stdin string
		want        []string
	}{
		{"a wrong annotation", "kind: Pod\napiVersion: v1\nmetadata: {name: web, namespace: shop, annotations: {rockpool.dev/port: http}}\nspec: {containers: [{name: a}]}",
			[]string{`-: document 2: Pod shop/web: rockpool: invalid-annotation: an annotation is not valid: rockpool.dev/port: "http" is not such a port (allowed: a port from 1024 to 65534)`}},
		{"not YAML", "a: [", []string{"-: document 2: "}},
		{"a template without containers", "kind: Job\napiVersion: batch/v1\nmetadata: {name: j}\nspec: {template: {spec: {}}}", []string{"document 2: Job j: spec.template.spec.containers: missing"}},
		{"a workload without a template", "kind: Deployment\napiVersion: apps/v1\nmetadata: {name: d}\nspec: {}", []string{"document 2: Deployment d: spec.template: missing"}},
		{"every invalid document is reported", "kind: Job\napiVersion: batch/v1\n---\nkind: Job\napiVersion: batch/v1\n", []string{"document 2: ", "document 3: "}},
		{"a container that is null", "kind: Job\napiVersion: batch/v1\nspec: {template: {spec: {containers: [{name: a}, null]}}}", []string{"spec.template.spec.containers[1]: null in a list"}},
		{"a field of another type", "kind: Pod\napiVersion: v1\nspec: {containers: {}}", []string{"document 2: Pod without a name: json: cannot unmarshal"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			stdout, _, err := pipe(t, good+test.stdin, append([]string{"inject", "-f", "-"}, goldenFlags...)...)
			if err == nil || stdout != "" {
				t.Fatalf("error %v, written: %s", err, stdout)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
			}
		})
	}
}

func TestFilesOfTheCommands(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"b.yaml": "b: 1", "a.json": `{"a": 1}`, "c.yml": "---\nc: 1\n", "readme.txt": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, _, err := pipe(t, "d: 1", "uninject", "-f", dir, "-f", "-"); err != nil || out != "{\"a\": 1}\n---\nb: 1\n---\nc: 1\n---\nd: 1" {
		t.Errorf("a directory and standard input: %v\n%s", err, out)
	}
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no file", []string{"uninject"}, "--filename: no file is named; -f - reads standard input"},
		{"a missing file", []string{"uninject", "-f", filepath.Join(dir, "none.yaml")}, filepath.Join(dir, "none.yaml") + ": no such file or directory"},
		{"a directory without manifests", []string{"uninject", "-f", t.TempDir()}, "has no *.yaml, *.yml or *.json"},
		{"no image", []string{"inject", "-f", "-"}, "--sidecar-image: no image is named"},
		{"an argument", []string{"inject", "deployment.yaml"}, "unknown command"},
		{"an unknown kind of cache volume", append([]string{"inject", "-f", "-", "--cache-volume=ram"}, goldenFlags...), `--cache-volume: "ram" is not hostPath or emptyDir`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, _, err := pipe(t, "", test.args...); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a}]}\n"
	if _, _, err := pipe(t, pod, "inject", "-f", "-", "--sidecar-image=rockpool:dev"); err == nil || !strings.Contains(err.Error(), "the namespace is not known") {
		t.Errorf("without a namespace: %v", err)
	}
	if _, _, err := pipe(t, pod, "inject", "-f", "-", "--sidecar-image=rockpool:dev", "--cache-volume=emptyDir"); err != nil {
		t.Errorf("an emptyDir needs no namespace: %v", err)
	}
}
