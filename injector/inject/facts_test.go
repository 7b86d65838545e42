package inject

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestNodeOf(t *testing.T) {
	on := func(names ...string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: names}}}
	}
	bound := func(terms ...corev1.NodeSelectorTerm) corev1.PodSpec {
		return corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
		}}}
	}
	not := on("a")
	not.MatchFields[0].Operator = corev1.NodeSelectorOpNotIn
	labelled := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}}}
	tests := []struct {
		name string
		spec corev1.PodSpec
		want string
	}{
		{"a pod that is not scheduled", corev1.PodSpec{}, ""},
		{"a pod that names its node", corev1.PodSpec{NodeName: "a"}, "a"},
		{"a DaemonSet's pod", bound(on("a")), "a"},
		{"a DaemonSet's pod with alternatives of its own", bound(on("a"), on("a")), "a"},
		{"one of two nodes", bound(on("a"), on("b")), ""},
		{"one of two nodes in one term", bound(on("a", "b")), ""},
		{"one node or any with a label", bound(on("a"), labelled), ""},
		{"any other node", bound(not), ""},
		{"a label with the name of the field", bound(labelled), ""},
		{"a preference", corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}}}, ""},
		{"affinity to pods", corev1.PodSpec{Affinity: &corev1.Affinity{}}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := NodeOf(&corev1.Pod{Spec: test.spec}); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestOldKubelet(t *testing.T) {
	for version, want := range map[string]bool{
		"v1.28.15": true, "v1.28.99-eks-1": true, "v1.0.0": true, "v1.29.0": false, "v1.29.0-rc.1": false, "v1.36.3+k3s1": false, "v2.0.0": false, "": false, "unknown": false,
	} {
		if got := OldKubelet(version); got != want {
			t.Errorf("%q is old: %v", version, got)
		}
	}
}
