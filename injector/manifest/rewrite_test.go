package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// renamed changes a pod with each operation: add, replace, remove and move.
func renamed(p *Pod) (*corev1.Pod, error) {
	pod := p.Pod.DeepCopy()
	pod.Annotations = map[string]string{"kind": fmt.Sprint(p), "on": "yes"}
	first := &pod.Spec.Containers[0]
	first.Image = "new"
	first.Command = nil
	first.Env = append([]corev1.EnvVar{{Name: "FIRST", Value: "1_000"}}, first.Env...)
	pod.Spec.InitContainers = append(pod.Spec.Containers[1:], pod.Spec.InitContainers...)
	pod.Spec.Containers = pod.Spec.Containers[:1]
	return pod, nil
}

func TestRewrite(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"comments, order and styles stay", `# top
apiVersion: v1
kind: Pod # a pod
metadata:
  name: web
spec:
  # containers
  containers:
  - image: old # which
    name: 'web'
    future: [1, 2] # unknown to us
    command: [a]
    env:
    # second
    - {name: SECOND, value: "x"}
`, `# top
apiVersion: v1
kind: Pod # a pod
metadata:
  name: web
  annotations:
    kind: Pod web
    "on": "yes"
spec:
  # containers
  containers:
  - image: new # which
    name: 'web'
    future: [1, 2] # unknown to us
    env:
    - name: FIRST
      value: "1_000"
    # second
    - {name: SECOND, value: "x"}
`},
		{"an indented list stays indented", "kind: Pod\napiVersion: v1\nspec:\n  containers:\n    - name: a\n", "kind: Pod\napiVersion: v1\nspec:\n  containers:\n    - name: a\n      env:\n        - name: FIRST\n          value: \"1_000\"\n      image: new\nmetadata:\n  annotations:\n    kind: Pod without a name\n    \"on\": \"yes\"\n"},
		{"other objects stay byte for byte", "\n\nkind:   Service\n---\nx: &a 1\ny: *a\n--- # end\n\n", "\n\nkind:   Service\n---\nx: &a 1\ny: *a\n--- # end\n\n"},
		{"an empty stream", "", ""},
		{"a document that begins on the line of its separator", "--- {kind: Pod, apiVersion: v1, spec: {containers: [{name: a}]}}\n",
			"---\n{kind: Pod, apiVersion: v1, spec: {containers: [{name: a, env: [{name: FIRST, value: \"1_000\"}], image: new}]}, metadata: {annotations: {kind: Pod without a name, \"on\": \"yes\"}}}\n"},
		{"a compact JSON object stays compact", `{"kind":"Pod","apiVersion":"v1","spec":{"containers":[{"name":"a"}]}}`,
			`{"kind":"Pod","apiVersion":"v1","spec":{"containers":[{"name":"a","env":[{"name":"FIRST","value":"1_000"}],"image":"new"}]},"metadata":{"annotations":{"kind":"Pod without a name","on":"yes"}}}` + "\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Rewrite([]byte(test.in), renamed, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheControllerOfATemplate(t *testing.T) {
	tests := []struct{ in, want string }{
		{"{kind: Pod, apiVersion: v1, metadata: {generateName: web-, namespace: shop}, spec: {containers: [{name: a}]}}", "Pod shop/web-, no controller"},
		{"{kind: Job, apiVersion: batch/v1, metadata: {generateName: once-}, spec: {template: {spec: {containers: [{name: a}]}}}}", "Job once-, of batch/v1 Job once"},
		{"{kind: CronJob, apiVersion: batch/v1beta1, metadata: {name: c}, spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: a}]}}}}}}", "CronJob c, of batch/v1beta1 CronJob c"},
		{"{kind: PodList, apiVersion: v1, items: [{kind: Pod, apiVersion: v1, metadata: {name: p}, spec: {containers: [{name: a}]}}]}", "Pod p, no controller"},
		{"{kind: Deployment, apiVersion: extensions/v1beta1, spec: {template: {}}}", ""},
		{"{kind: Rollout, apiVersion: argoproj.io/v1alpha1, spec: {template: {}}}", ""},
		{"[1, 2]", ""}, {"text", ""}, {"{items: [1]}", ""}, {"{kind: List, items: [1, null]}", ""}, {"{kind: 3, apiVersion: []}", ""},
	}
	for _, test := range tests {
		var got string
		_, err := Rewrite([]byte(test.in), func(p *Pod) (*corev1.Pod, error) {
			got = p.String() + ", no controller"
			if c := p.Controller; c != nil {
				got = fmt.Sprintf("%s, of %s %s %s", p, c.APIVersion, c.Kind, c.Name)
			}
			return p.Pod, nil
		}, nil)
		if err != nil || got != test.want {
			t.Errorf("%s: %q, %v; want %q", test.in, got, err, test.want)
		}
	}
}

// FuzzRewrite checks for any stream that unchanged pods leave every byte as it is, and that the
// changed pods can be read from the changed stream.
func FuzzRewrite(f *testing.F) {
	files, err := filepath.Glob("../testdata/streams/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && !strings.HasSuffix(file, ".injected") {
			f.Add(text)
		}
	}
	f.Add([]byte("--- {kind: Pod, apiVersion: v1, spec: {containers: [{name: a}]}}\r\n---\r\n"))
	f.Add([]byte("kind: Pod\napiVersion: v1\nspec: &s\n  containers: [{name: a, <<: {image: b}}]\n...\n"))
	f.Add([]byte("kind: Pod\napiVersion: v1\nspec: {containers: [{name: a, name: b}]}"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		same, err := Rewrite(stream, func(p *Pod) (*corev1.Pod, error) { return p.Pod, nil }, nil)
		if err != nil {
			return
		}
		if !bytes.Equal(same, stream) {
			t.Fatalf("nothing was changed, but\n%q\nbecame\n%q", stream, same)
		}
		var want []*corev1.Pod
		changed, err := Rewrite(stream, func(p *Pod) (*corev1.Pod, error) {
			pod, err := renamed(p)
			want = append(want, pod)
			return pod, err
		}, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, stream)
		}
		var got []*corev1.Pod
		if _, err := Rewrite(changed, func(p *Pod) (*corev1.Pod, error) {
			got = append(got, p.Pod)
			return p.Pod, nil
		}, nil); err != nil {
			t.Fatalf("%v\n%s", err, changed)
		}
		if a, b := asJSON(t, want), asJSON(t, got); a != b {
			t.Fatalf("(-want +got):\n%s\nfrom\n%s\nto\n%s", cmp.Diff(a, b), stream, changed)
		}
	})
}

func asJSON(t *testing.T, value any) string {
	t.Helper()
	text, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
