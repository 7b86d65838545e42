package patch

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
)

// applied patches the document that before was read from, and reads the result.
func applied(t *testing.T, document []byte, before, after *corev1.Pod) (patched []byte, pod *corev1.Pod) {
	t.Helper()
	text, err := Create(before, after)
	if err != nil {
		t.Fatal(err)
	}
	operations, err := jsonpatch.DecodePatch(text)
	if err != nil {
		t.Fatal(err)
	}
	if patched, err = operations.Apply(document); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	pod = &corev1.Pod{}
	if err := json.Unmarshal(patched, pod); err != nil {
		t.Fatal(err)
	}
	return patched, pod
}

func TestAnyTwoPodsHaveAPatch(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		before, after := randomPod(r), randomPod(r)
		document, err := json.Marshal(before)
		if err != nil {
			t.Fatal(err)
		}
		_, got := applied(t, document, before, after)
		if diff := cmp.Diff(after, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("seed %d (-want +got):\n%s", seed, diff)
		}
		first, err := Create(before, after)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := Create(before, after); err != nil || string(first) != string(second) {
			t.Fatalf("seed %d: two patches for the same pods, %v:\n%s\n%s", seed, err, first, second)
		}
	}
}

// Each unknown field stays in its element.
func TestElementsKeepUnknownFields(t *testing.T) {
	element := func(name string) string { return fmt.Sprintf(`{"name":%q,"future":"of %s"}`, name, name) }
	list := func(names ...string) string {
		var all []string
		for _, n := range names {
			all = append(all, element(n))
		}
		return "[" + strings.Join(all, ",") + "]"
	}
	document := `{"spec":{"initContainers":` + list("a", "b", "c", "d") + `,"volumes":` + list("v", "w", "x") +
		`,"containers":[{"name":"m","env":` + list("A", "B", "A") + `}]}}`
	before := &corev1.Pod{}
	if err := json.Unmarshal([]byte(document), before); err != nil {
		t.Fatal(err)
	}
	after := before.DeepCopy()
	c := after.Spec.InitContainers
	after.Spec.InitContainers = []corev1.Container{{Name: "new"}, c[3], c[0], c[2]}
	after.Spec.Volumes = after.Spec.Volumes[1:]
	e := after.Spec.Containers[0].Env
	after.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "NEW"}, e[1], e[0]}
	patched, _ := applied(t, []byte(document), before, after)
	for _, want := range []string{
		`"initContainers":[{"name":"new","resources":{}},` + strings.Trim(list("d", "a", "c"), "[]") + "]",
		`"volumes":` + list("w", "x"),
		`"env":[{"name":"NEW"},` + strings.Trim(list("B", "A"), "[]") + "]",
	} {
		if !strings.Contains(string(patched), want) {
			t.Errorf("want %s in\n%s", want, patched)
		}
	}
}

func randomPod(r *rand.Rand) *corev1.Pod {
	names := func() []string {
		all := []string{"a", "b", "c", "d", "e"}
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		return all[:r.IntN(len(all)+1)]
	}
	containers := func() (all []corev1.Container) {
		for _, name := range names() {
			c := corev1.Container{Name: name, Image: fmt.Sprint(r.IntN(3)), Args: names()}
			for _, e := range append(names(), names()...) { // some twice
				c.Env = append(c.Env, corev1.EnvVar{Name: e, Value: fmt.Sprint(r.IntN(3))})
			}
			for _, m := range names() {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: fmt.Sprint(r.IntN(3)), MountPath: "/" + m})
			}
			all = append(all, c)
		}
		return all
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{InitContainers: containers(), Containers: containers()}}
	for _, name := range names() {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name})
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[name+"/~"] = fmt.Sprint(r.IntN(3))
	}
	return pod
}
