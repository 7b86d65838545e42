// Package doctor examines the injector and its webhook, in the order in which the API server uses
// them: which pods it asks about, whom it asks, whether it trusts the answer, and what the injector
// does with a pod. [Gather] reads all facts and changes nothing; [Examine] and [Judge] are pure
// functions of them. Each finding has a code that never changes its meaning;
// docs/troubleshooting.md has a section for each.
package doctor

import (
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/injector/inject"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	OK   Level = "OK"
	Warn Level = "WARN" // something is not as it should be, or may be intended
	Fail Level = "FAIL" // pods that ask for Rockpool do not get it, or cannot be created
)

// Finding is the result of one check.
type Finding struct {
	Level Level  `json:"level"`
	Code  Code   `json:"code"`
	Fact  string `json:"fact"`
	Next  string `json:"next,omitempty"` // what to do; empty: nothing
}

// Names are the names of the objects.
type Names struct {
	// Namespace of the Service, the injector's pods, the Secret and the ConfigMap.
	Namespace string
	// Service of the webhook; Configuration is its MutatingWebhookConfiguration.
	Service, Configuration string
	// Secret with the certificate, unless the injector's pods mount another one.
	Secret string
	// ConfigMap with the settings for all pods.
	ConfigMap string
}

// Object is a kind of object that facts are read from.
type Object string

// The objects.
const (
	Configurations Object = "mutatingwebhookconfigurations"
	Policies       Object = "validatingadmissionpolicies"
	Services       Object = "services"
	Injectors      Object = "pods of the injector"
	Secrets        Object = "secrets"
	ConfigMaps     Object = "configmaps"
	NodeList       Object = "nodes"
	Namespaces     Object = "namespaces"
	PodList        Object = "pods"
)

// Facts are what is known of a cluster. An object that is nil or empty does not exist, unless it
// could not be read.
type Facts struct {
	Now   time.Time
	Names Names
	// Version is that of this program.
	Version string
	// ServerError is why the API server does not answer; nothing else is known then. Server is its
	// version, such as v1.36.3.
	ServerError error
	Server      string
	// Unread is why objects could not be read.
	Unread map[Object]error

	Configuration *admissionregistrationv1.MutatingWebhookConfiguration
	// Policy tells whether the policy about damaged pods exists.
	Policy    bool
	Service   *corev1.Service
	Injectors []corev1.Pod
	// Certificate is the serving certificate of the Secret, in PEM, without its key.
	Certificate []byte
	// Base are the settings by the injector's flags, and Excluded its excluded namespaces; none if
	// these cannot be known.
	Base       inject.Params
	Excluded   []string
	Settings   *corev1.ConfigMap
	Nodes      []corev1.Node
	Namespaces []corev1.Namespace
	// Pods are those that are injected, or may have asked for it.
	Pods []corev1.Pod
	// Probe is nil if no pod was tried.
	Probe *Probe
}

// Probe is what became of a pod that asks for Rockpool, created with dryRun: the API server calls
// the webhook for it as for any other, and does not store it.
type Probe struct {
	Namespace string
	// Error of the API server; empty: it would have created the pod.
	Error string
	// Injected, by this version of the injector.
	Injected bool
	Version  string
}

// examination is what is found.
type examination struct {
	*Facts
	params   inject.Params // for new pods; zero: the ConfigMap is invalid
	findings []Finding
}

// Examine makes all checks of the cluster.
func Examine(f *Facts) []Finding {
	x := &examination{Facts: f}
	if f.ServerError != nil {
		x.found(Fail, ServerSilent, "the API server does not answer: %v", f.ServerError)
		return x.findings
	}
	for _, check := range []func(){
		x.server, x.unread, x.webhook, x.exclusions, x.policy, x.bundle, x.certificate, x.service, x.injectors, x.call, x.settings, x.nodes, x.sidecars, x.forgotten,
	} {
		check()
	}
	return x.findings
}

// ok notes that a check has found nothing wrong.
func (x *examination) ok(check Code, format string, args ...any) {
	x.findings = append(x.findings, Finding{Level: OK, Code: check, Fact: fmt.Sprintf(format, args...)})
}

// found notes what a check has found.
func (x *examination) found(level Level, code Code, format string, args ...any) {
	x.findings = append(x.findings, Finding{Level: level, Code: code, Fact: fmt.Sprintf(format, args...), Next: Advice[code]})
}

// has reports whether one of the codes was found already.
func (x *examination) has(codes ...Code) bool {
	return slices.ContainsFunc(x.findings, func(f Finding) bool { return slices.Contains(codes, f.Code) })
}

// read reports whether objects could be read.
func (f *Facts) read(o Object) bool { return f.Unread[o] == nil }

// Worst is the worst level of findings.
func Worst(all []Finding) Level {
	worst := OK
	for _, f := range all {
		if f.Level == Fail || f.Level == Warn && worst == OK {
			worst = f.Level
		}
	}
	return worst
}
