package doctor

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/webhook"
)

// Candidate is a pod that may be injected.
type Candidate struct {
	// Name for people, such as Deployment shop/web.
	Name      string
	Namespace string
	Pod       *corev1.Pod
	// Controller and Annotations are those of the workload whose template the pod is.
	Controller  *metav1.OwnerReference
	Annotations map[string]string
}

// Judge says whether pods would be injected if they were created now, and if not, why.
func Judge(f *Facts, candidates []Candidate) []Finding {
	params, err := f.effective()
	if err != nil {
		return nil // Examine names it
	}
	x := &examination{Facts: f, params: params}
	for i := range candidates {
		x.judge(&candidates[i])
	}
	return x.findings
}

func (x *examination) judge(c *Candidate) {
	after, result, code := x.decide(c)
	switch code {
	case PodNotRequested:
		if _, ok := c.Annotations[inject.AnnotationInject]; ok && c.Controller != nil {
			x.found(Fail, AnnotationMisplaced, "%s would not be injected: it has the annotation %s itself, and its pods do not", c.Name, inject.AnnotationInject)
			return
		}
		if _, says := c.Pod.Annotations[inject.AnnotationInject]; !says && !x.read(Namespaces) {
			x.found(Warn, code, "%s would not be injected, unless its namespace asks for Rockpool, which could not be read: the pod does not", c.Name)
			return
		}
		x.found(Fail, code, "%s would not be injected: it does not ask for Rockpool", c.Name)
	case PodExcluded:
		x.found(Fail, code, "%s would not be injected: the API server does not ask the webhook about it", c.Name)
	case PodSkipped, PodRefused:
		x.found(Fail, code, "%s would not be injected: %s", c.Name, result.Cause)
	default:
		_, has := c.Pod.Annotations[inject.AnnotationStatus]
		switch {
		case has:
			x.ok(Pod, "%s is injected, and would be again, with %s", c.Name, imageOf(after))
		case c.Controller == nil && c.Pod.UID != "": // it runs
			x.found(Fail, PodOlder, "%s is not injected, and would be if it were created now", c.Name)
		default:
			x.ok(Pod, "%s would be injected, with %s", c.Name, imageOf(after))
		}
	}
	for _, n := range result.Notices {
		x.found(Warn, PodNotice, "%s: %s", c.Name, n)
	}
}

// decide does what the API server and the injector would do. The code is Pod for a pod that would be
// injected.
func (x *examination) decide(c *Candidate) (*corev1.Pod, inject.Result, Code) {
	pod, _ := inject.Uninject(c.Pod)
	labels := x.labelsOf(c.Namespace)
	var asked, sent bool
	for _, h := range x.hooks() {
		if matches(h.NamespaceSelector, labels) && matches(h.ObjectSelector, pod.Labels) {
			sent = true
			asked = asked || pathOf(&h) == webhook.NamespacePath
		}
	}
	label := labels[inject.AnnotationInject] == "true"
	if !x.read(Configurations) {
		asked, sent = label, true
	}
	if !inject.Requested(pod.Annotations, asked || label) {
		return nil, inject.Result{}, PodNotRequested
	}
	if !sent {
		return nil, inject.Result{}, PodExcluded
	}
	facts := inject.Facts{
		Namespace: c.Namespace, NamespaceLabels: labels, Asked: asked, Review: "doctor", Template: c.Pod.UID == "", Controller: c.Controller,
	}
	if i := slices.IndexFunc(x.Namespaces, func(n corev1.Namespace) bool { return n.Name == c.Namespace }); i >= 0 {
		facts.NamespaceAnnotations = x.Namespaces[i].Annotations
	}
	node := inject.NodeOf(pod)
	if i := slices.IndexFunc(x.Nodes, func(n corev1.Node) bool { return n.Name == node }); i >= 0 {
		facts.KubeletVersion = x.Nodes[i].Status.NodeInfo.KubeletVersion
	}
	after, result := inject.Inject(pod, facts, x.params)
	if facts.Template {
		// These two are about the command inject, which changes the template itself.
		result.Notices = slices.DeleteFunc(result.Notices, func(n inject.Notice) bool {
			return n.Reason == inject.ReasonPullSecrets || n.Reason == inject.ReasonExcludedNamespace
		})
	}
	switch result.Outcome {
	case inject.Skipped:
		return after, result, PodSkipped
	case inject.Refused:
		return after, result, PodRefused
	}
	return after, result, Pod
}

func imageOf(pod *corev1.Pod) string {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == inject.ContainerSidecar {
			return fmt.Sprintf("the image %s", c.Image)
		}
	}
	return "no sidecar"
}
