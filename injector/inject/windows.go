package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// labelOSBeta is the name that the label kubernetes.io/os had before Kubernetes 1.14.
const labelOSBeta = "beta.kubernetes.io/os"

// onWindows reports whether the pod can run on Windows nodes only. A pod says so by its operating
// system, by a node selector, by a node affinity, or as a host process
// (https://kubernetes.io/docs/concepts/windows/user-guide/). spec.os has precedence: the API server
// refuses a pod for Linux with the fields of Windows.
func onWindows(spec *corev1.PodSpec) bool {
	if spec.OS != nil {
		return spec.OS.Name == corev1.Windows
	}
	if _, ok := spec.NodeSelector[corev1.LabelWindowsBuild]; ok {
		return true
	}
	return spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows) ||
		spec.NodeSelector[labelOSBeta] == string(corev1.Windows) ||
		requiresWindows(spec.Affinity) || hostProcess(spec)
}

// requiresWindows reports whether every alternative of the required node affinity is for Windows.
func requiresWindows(affinity *corev1.Affinity) bool {
	if affinity == nil || affinity.NodeAffinity == nil || affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return false
	}
	terms := affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	for _, term := range terms {
		if !slices.ContainsFunc(term.MatchExpressions, selectsWindows) {
			return false
		}
	}
	return len(terms) > 0
}

func selectsWindows(r corev1.NodeSelectorRequirement) bool {
	switch r.Key {
	case corev1.LabelWindowsBuild:
		return r.Operator == corev1.NodeSelectorOpIn || r.Operator == corev1.NodeSelectorOpExists
	case corev1.LabelOSStable, labelOSBeta:
		return r.Operator == corev1.NodeSelectorOpIn && len(r.Values) == 1 && r.Values[0] == string(corev1.Windows) ||
			// Kubernetes has nodes of two operating systems.
			r.Operator == corev1.NodeSelectorOpNotIn && slices.Contains(r.Values, string(corev1.Linux))
	}
	return false
}

// hostProcess reports whether a container is a process of its Windows node.
func hostProcess(spec *corev1.PodSpec) bool {
	is := func(o *corev1.WindowsSecurityContextOptions) bool {
		return o != nil && o.HostProcess != nil && *o.HostProcess
	}
	if spec.SecurityContext != nil && is(spec.SecurityContext.WindowsOptions) {
		return true
	}
	return slices.ContainsFunc(slices.Concat(spec.InitContainers, spec.Containers), func(c corev1.Container) bool {
		return c.SecurityContext != nil && is(c.SecurityContext.WindowsOptions)
	})
}
