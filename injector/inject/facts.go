package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
)

// Facts are the facts about a pod that are not in the pod itself. The zero value of a field
// means unknown, or no.
type Facts struct {
	// Namespace in which the pod is created; at admission the pod itself may not name it.
	Namespace string
	// NamespaceLabels and NamespaceAnnotations show what the namespace forbids: the Pod
	// Security level, and the range of user IDs on OpenShift.
	NamespaceLabels, NamespaceAnnotations map[string]string
	// Asked means that the pod's namespace asks for Rockpool by a label, or a person by a
	// command. The pod may still decline.
	Asked bool
	// KubeletVersion of the node that [NodeOf] names.
	KubeletVersion string
	// Review is different for each pod: the uid of its admission review. Empty: unknown, as for a
	// template, which many pods share.
	Review string
	// Template means that the pod comes from a manifest: the ServiceAccount admission plugin has
	// not mounted the token yet.
	Template bool
	// Controller is the workload whose template the pod is. Nil: see the pod's owner references.
	Controller *metav1.OwnerReference
}

// ExcludedNamespaces are those about whose pods the webhook is not asked, unless the cluster's
// administrator changes that: pods there must start without it.
var ExcludedNamespaces = []string{"kube-system", "rockpool-system"}

// sidecarKubelet is the first kubelet on which native sidecars work by default (KEP-753).
// Older ones would wait for the sidecar to end before they start the application.
var sidecarKubelet = version.MustParseGeneric("1.29")

// OldKubelet reports whether version v is too old. It returns false for an unknown version.
func OldKubelet(v string) bool {
	parsed, err := version.ParseGeneric(v)
	return err == nil && parsed.LessThan(sidecarKubelet)
}

// NodeOf returns the only node on which the pod can run, or "". Either the pod names the node,
// or it belongs to a DaemonSet, whose controller gives each pod an affinity to one node. At
// admission, most pods have not been scheduled.
func NodeOf(pod *corev1.Pod) string {
	if pod.Spec.NodeName != "" {
		return pod.Spec.NodeName
	}
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil || pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	// The terms are alternatives.
	var nodes []string
	for _, term := range pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		i := slices.IndexFunc(term.MatchFields, func(r corev1.NodeSelectorRequirement) bool {
			return r.Key == metav1.ObjectNameField && r.Operator == corev1.NodeSelectorOpIn && len(r.Values) == 1
		})
		if i < 0 {
			return ""
		}
		nodes = append(nodes, term.MatchFields[i].Values[0])
	}
	if nodes = slices.Compact(nodes); len(nodes) != 1 {
		return ""
	}
	return nodes[0]
}

const (
	// labelEnforce has the Pod Security level of a namespace.
	// https://kubernetes.io/docs/concepts/security/pod-security-admission/
	labelEnforce = "pod-security.kubernetes.io/enforce"
	// annotationUserRange is on every namespace of OpenShift. Its admission refuses containers
	// with a user outside the range, and assigns a user to containers without one.
	annotationUserRange = "openshift.io/sa.scc.uid-range"
)

// forbidsHostPath returns why a pod in this namespace cannot have a hostPath volume, or "".
func (f *Facts) forbidsHostPath() (reason Reason, detail string) {
	switch level := f.NamespaceLabels[labelEnforce]; level {
	case "baseline", "restricted":
		return ReasonPodSecurity, labelEnforce + ": " + level
	}
	if f.assignsUsers() {
		return ReasonAssignedUsers, annotationUserRange
	}
	return "", ""
}

func (f *Facts) assignsUsers() bool { return f.NamespaceAnnotations[annotationUserRange] != "" }
