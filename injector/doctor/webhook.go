package doctor

import (
	"maps"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/version"

	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/webhook"
)

// oldestServer is the first API server with matchConditions and ValidatingAdmissionPolicy as
// stable features (KEP-3716, KEP-3488).
var oldestServer = version.MustParseGeneric("1.30")

func (x *examination) server() {
	if v, err := version.ParseGeneric(x.Server); err == nil && v.LessThan(oldestServer) {
		x.found(Fail, ServerOld, "the API server is %s", x.Server)
		return
	}
	x.ok(Server, "the API server answers; it is %s", x.Server)
}

func (x *examination) unread() {
	for _, o := range slices.Sorted(maps.Keys(x.Unread)) {
		x.found(Warn, NotAllowed, "cannot read %s: %v", o, x.Unread[o])
	}
}

// webhook checks whether the API server has been told to ask.
func (x *examination) webhook() {
	if !x.read(Configurations) {
		return
	}
	if x.Configuration == nil {
		x.found(Fail, WebhookMissing, "there is no MutatingWebhookConfiguration %s", x.Names.Configuration)
		return
	}
	hooks := x.hooks()
	if len(hooks) == 0 {
		x.found(Fail, WebhookElsewhere, "no webhook of %s calls the Service %s/%s", x.Names.Configuration, x.Names.Namespace, x.Names.Service)
		return
	}
	asking := map[string]string{corev1.LabelMetadataName: "default", inject.AnnotationInject: "true"}
	paths := map[string]bool{}
	for i := range hooks {
		h := &hooks[i]
		if !matches(h.NamespaceSelector, asking) {
			continue // such as that for kube-system, which has a policy of its own
		}
		paths[pathOf(h)] = true
		if h.FailurePolicy != nil && *h.FailurePolicy == admissionregistrationv1.Ignore {
			x.found(Warn, FailurePolicyIgnore, "webhook %s has failurePolicy: Ignore: pods start without Rockpool while no injector answers", h.Name)
		}
	}
	for _, path := range []string{webhook.Path, webhook.NamespacePath} {
		if !paths[path] {
			x.found(Fail, WebhookIncomplete, "no webhook of %s calls %s", x.Names.Configuration, path)
		}
	}
	if !x.has(FailurePolicyIgnore, WebhookIncomplete) {
		x.ok(Webhook, "the API server asks the Service %s/%s about pods, by %d webhooks", x.Names.Namespace, x.Names.Service, len(hooks))
	}
}

// hooks are the webhooks that call the injector's Service.
func (f *Facts) hooks() []admissionregistrationv1.MutatingWebhook {
	var all []admissionregistrationv1.MutatingWebhook
	if f.Configuration == nil {
		return nil
	}
	for _, h := range f.Configuration.Webhooks {
		if s := h.ClientConfig.Service; s != nil && s.Namespace == f.Names.Namespace && s.Name == f.Names.Service {
			all = append(all, h)
		}
	}
	return all
}

func pathOf(h *admissionregistrationv1.MutatingWebhook) string {
	if h.ClientConfig.Service == nil || h.ClientConfig.Service.Path == nil {
		return "/"
	}
	return *h.ClientConfig.Service.Path
}

// matches is for selectors of webhooks, where nil is everything.
func matches(selector *metav1.LabelSelector, set map[string]string) bool {
	if selector == nil {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(set))
}

// labelsOf are the labels of a namespace as the API server compares them. A namespace that does not
// exist has only its name.
func (f *Facts) labelsOf(namespace string) map[string]string {
	has := map[string]string{}
	if i := slices.IndexFunc(f.Namespaces, func(n corev1.Namespace) bool { return n.Name == namespace }); i >= 0 {
		maps.Copy(has, f.Namespaces[i].Labels)
	}
	has[corev1.LabelMetadataName] = namespace
	return has
}

// exclusions compares which namespaces are excluded where.
func (x *examination) exclusions() {
	hooks := x.hooks()
	if len(hooks) == 0 {
		return
	}
	asked := func(set map[string]string) bool {
		return slices.ContainsFunc(hooks, func(h admissionregistrationv1.MutatingWebhook) bool { return matches(h.NamespaceSelector, set) })
	}
	for _, namespace := range x.Excluded {
		if asked(x.labelsOf(namespace)) {
			x.found(Fail, ExclusionsDiffer, "the webhook asks about pods in %s, and the injector refuses to answer about them: such pods that ask for Rockpool cannot be created", namespace)
		}
	}
	var left []string
	for i := range x.Namespaces {
		n := &x.Namespaces[i]
		if n.Labels[inject.AnnotationInject] == "true" && !asked(x.labelsOf(n.Name)) {
			left = append(left, n.Name)
		}
	}
	if len(left) > 0 {
		x.found(Warn, NamespaceExcluded, "these namespaces ask for Rockpool by their label, and the webhook excludes them: %s", some(left))
	}
}

// policy checks whether damaged pods are refused.
func (x *examination) policy() {
	if x.read(Policies) && !x.Policy {
		x.found(Warn, PolicyMissing, "there is no ValidatingAdmissionPolicy %s", PolicyName)
	}
}

// some are the first names of a list, for people.
func some(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + ", and others"
}
