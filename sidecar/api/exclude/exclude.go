// Package exclude says which resources are never recorded.
package exclude

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Rule excludes resources. "*" in Resource means all of the group; with "*" in Group as well, all
// there are. An empty Namespace means all namespaces, and cluster-scoped objects.
type Rule struct{ Namespace, Group, Resource string }

// Rules exclude what one of them does.
type Rules []Rule

// Parse reads a comma-separated list of RESOURCE, RESOURCE.GROUP, *.GROUP, and the same or * alone
// after NAMESPACE/.
func Parse(list string) (Rules, error) {
	var rules Rules
	var problems []error
	for entry := range strings.SplitSeq(list, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		rule, ok := parseRule(entry)
		if !ok {
			problems = append(problems, fmt.Errorf("%q is not a resource; RESOURCE, RESOURCE.GROUP or *.GROUP is allowed, and "+
				"the same or * after NAMESPACE/, such as configmaps, *.cert-manager.io, payments/*", entry))
			continue
		}
		if !slices.Contains(rules, rule) {
			rules = append(rules, rule)
		}
	}
	return rules, errors.Join(problems...)
}

func parseRule(entry string) (Rule, bool) {
	namespace, what, namespaced := strings.Cut(entry, "/")
	if !namespaced {
		namespace, what = "", entry
	} else if len(validation.IsDNS1123Label(namespace)) > 0 {
		return Rule{}, false
	}
	if what == "*" {
		return Rule{namespace, "*", "*"}, namespaced
	}
	resource, group, grouped := strings.Cut(what, ".")
	if resource != "*" && len(validation.IsDNS1123Label(resource)) > 0 || grouped && len(validation.IsDNS1123Subdomain(group)) > 0 || resource == "*" && !grouped {
		return Rule{}, false
	}
	return Rule{namespace, group, resource}, true
}

// Object reports whether an object is excluded. The namespace of a cluster-scoped object is empty.
func (rules Rules) Object(group, resource, namespace string) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool {
		return r.kind(group, resource) && (r.Namespace == "" || r.Namespace == namespace)
	})
}

// Scope reports whether a list or watch may show an excluded object. An empty namespace means all
// namespaces. Such a list is excluded as a whole: recorded without some objects, it would say that
// these do not exist.
func (rules Rules) Scope(group, resource, namespace string) bool {
	if namespace != "" || clusterScoped[group+"/"+resource] {
		return rules.Object(group, resource, namespace)
	}
	return slices.ContainsFunc(rules, func(r Rule) bool { return r.kind(group, resource) })
}

func (r Rule) kind(group, resource string) bool {
	return (r.Group == "*" || r.Group == group) && (r.Resource == "*" || r.Resource == resource)
}

// clusterScoped are resources without a namespace that many programs list. Of others, the path of a
// list does not say whether it is in all namespaces; a rule for one namespace counts for these.
var clusterScoped = map[string]bool{
	"/namespaces": true, "/nodes": true, "/persistentvolumes": true,
	"rbac.authorization.k8s.io/clusterroles": true, "rbac.authorization.k8s.io/clusterrolebindings": true,
	"apiextensions.k8s.io/customresourcedefinitions": true, "apiregistration.k8s.io/apiservices": true,
	"admissionregistration.k8s.io/mutatingwebhookconfigurations": true, "admissionregistration.k8s.io/validatingwebhookconfigurations": true,
	"storage.k8s.io/storageclasses": true, "storage.k8s.io/csinodes": true, "storage.k8s.io/csidrivers": true, "storage.k8s.io/volumeattachments": true,
	"networking.k8s.io/ingressclasses": true, "node.k8s.io/runtimeclasses": true, "scheduling.k8s.io/priorityclasses": true,
	"certificates.k8s.io/certificatesigningrequests": true, "gateway.networking.k8s.io/gatewayclasses": true,
}

// Current is Rules that can be replaced while others use it, without locks. The zero value, and nil,
// exclude nothing.
type Current struct{ rules atomic.Pointer[Rules] }

// Set replaces the Rules.
func (c *Current) Set(r Rules) { c.rules.Store(&r) }

// Rules returns the present ones.
func (c *Current) Rules() Rules {
	if c == nil || c.rules.Load() == nil {
		return nil
	}
	return *c.rules.Load()
}
