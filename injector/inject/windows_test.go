package inject

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestPodsForWindowsAreSkipped(t *testing.T) {
	requires := func(alternatives ...corev1.NodeSelectorRequirement) corev1.PodSpec {
		var terms []corev1.NodeSelectorTerm
		for _, r := range alternatives {
			terms = append(terms, corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: "zone", Operator: corev1.NodeSelectorOpExists}, r,
			}})
		}
		return corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
		}}}
	}
	os := func(operator corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{Key: "kubernetes.io/os", Operator: operator, Values: values}
	}
	host := &corev1.WindowsSecurityContextOptions{HostProcess: ptr.To(true)}
	linux := requires(os(corev1.NodeSelectorOpIn, "windows"))
	linux.OS = &corev1.PodOS{Name: corev1.Linux}
	preferred := corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1, Preference: corev1.NodeSelectorTerm{
			MatchExpressions: []corev1.NodeSelectorRequirement{os(corev1.NodeSelectorOpIn, "windows")},
		}}},
	}}}
	tests := []struct {
		name string
		spec corev1.PodSpec
		want bool
	}{
		{"spec.os", corev1.PodSpec{OS: &corev1.PodOS{Name: corev1.Windows}}, true},
		{"the node selector", corev1.PodSpec{NodeSelector: map[string]string{"kubernetes.io/os": "windows"}}, true},
		{"the node selector with the old label", corev1.PodSpec{NodeSelector: map[string]string{"beta.kubernetes.io/os": "windows"}}, true},
		{"the node selector with a build of Windows", corev1.PodSpec{NodeSelector: map[string]string{"node.kubernetes.io/windows-build": "10.0.20348"}}, true},
		{"an affinity", requires(os(corev1.NodeSelectorOpIn, "windows")), true},
		{"an affinity to all but Linux", requires(os(corev1.NodeSelectorOpNotIn, "linux")), true},
		{"an affinity with the old label", requires(corev1.NodeSelectorRequirement{Key: "beta.kubernetes.io/os", Operator: corev1.NodeSelectorOpIn, Values: []string{"windows"}}), true},
		{"an affinity to builds of Windows", requires(corev1.NodeSelectorRequirement{Key: "node.kubernetes.io/windows-build", Operator: corev1.NodeSelectorOpIn, Values: []string{"a", "b"}}), true},
		{"two alternatives, both Windows", requires(os(corev1.NodeSelectorOpIn, "windows"), os(corev1.NodeSelectorOpNotIn, "linux")), true},
		{"a host process", corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{WindowsOptions: host}}, true},
		{"a container that is a host process", corev1.PodSpec{Containers: []corev1.Container{{SecurityContext: &corev1.SecurityContext{WindowsOptions: host}}}}, true},

		{"a pod that says nothing", corev1.PodSpec{}, false},
		{"Linux or Windows", requires(os(corev1.NodeSelectorOpIn, "windows", "linux")), false},
		{"Windows or any other node", requires(os(corev1.NodeSelectorOpIn, "windows"), os(corev1.NodeSelectorOpExists)), false},
		{"all but Windows", requires(os(corev1.NodeSelectorOpNotIn, "windows")), false},
		{"Windows preferred", preferred, false},
		{"spec.os says Linux", linux, false},
		{"no host process", corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{HostProcess: ptr.To(false)}}}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := onWindows(&test.spec); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
