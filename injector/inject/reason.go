package inject

import "fmt"

// Reason is a stable code for why a pod, or one of its containers, did not get
// Rockpool. Codes are part of the interface: they appear in admission warnings, in
// messages of refused pods and as a metric label, and never change their meaning.
type Reason string

// Reasons for which a pod is admitted as it is.
const (
	ReasonNotRequested     Reason = "not-requested"
	ReasonMirrorPod        Reason = "mirror-pod"
	ReasonWindows          Reason = "windows"
	ReasonHostNetwork      Reason = "host-network"
	ReasonNoServiceAccount Reason = "no-service-account-mount"
	ReasonNothingToServe   Reason = "nothing-to-serve"
)

// Reasons for which a pod is refused: the person who wrote it has to decide.
const (
	ReasonInvalidAnnotation Reason = "invalid-annotation"
	ReasonPortConflict      Reason = "port-conflict"
	ReasonNameConflict      Reason = "name-conflict"
	ReasonInvalidName       Reason = "invalid-name"
	ReasonOldKubelet        Reason = "old-kubelet"
)

// Reasons for which one container of an injected pod is left alone.
const (
	ReasonOwnAddress Reason = "container-sets-api-address"
	ReasonOwnAccount Reason = "container-mounts-own-account"
	ReasonExcluded   Reason = "container-excluded"
)

// Reasons for a word about a pod that is injected all the same.
const (
	ReasonPodSecurity     Reason = "pod-security-forbids-hostpath"
	ReasonAssignedUsers   Reason = "namespace-assigns-users"
	ReasonNoSuchContainer Reason = "no-such-container"
	ReasonProxy           Reason = "container-uses-proxy"
)

// messages has the one sentence of each reason.
var messages = map[Reason]string{
	ReasonNotRequested:      "the pod does not ask for Rockpool",
	ReasonMirrorPod:         "static pods have no service account, nothing was injected",
	ReasonWindows:           "Rockpool runs on Linux only, nothing was injected",
	ReasonHostNetwork:       "the pod uses the node's network, where the sidecar's port would be shared by all pods, nothing was injected; choose a port of its own with rockpool.dev/port",
	ReasonNoServiceAccount:  "no container mounts a service-account token that the sidecar can read (see automountServiceAccountToken), nothing was injected",
	ReasonNothingToServe:    "every container that has a service-account token was left alone, nothing was injected",
	ReasonInvalidAnnotation: "an annotation is not valid",
	ReasonPortConflict:      "a container uses a port that the sidecar needs; choose two others for the sidecar with rockpool.dev/port",
	ReasonNameConflict:      "the pod has a container or volume with a name that Rockpool adds; choose another one",
	ReasonInvalidName:       "the cache directory cannot be named after this pod",
	ReasonOwnAddress:        "the container sets the address of the API server itself and was left alone; remove that variable to have Rockpool serve it",
	ReasonOwnAccount:        "the container mounts another volume at the service-account path, or one that the sidecar cannot read, and was left alone",
	ReasonExcluded:          "the container was left alone, as asked",
	ReasonOldKubelet:        "native sidecars need kubelet 1.29 or newer; keep the pod from that node, or opt out with rockpool.dev/inject: \"false\"",
	ReasonPodSecurity:       "the namespace's Pod Security level forbids hostPath, the cache is an emptyDir and ends with the pod",
	ReasonAssignedUsers:     "the namespace assigns user IDs and allows no hostPath, the cache is an emptyDir and ends with the pod",
	ReasonNoSuchContainer:   "no container of the pod has this name, nothing was excluded by it",
	ReasonProxy:             "the container uses a proxy, and its NO_PROXY comes from elsewhere; see to it that 127.0.0.1 is in there",
}

// Message returns the one sentence that explains r.
func (r Reason) Message() string { return messages[r] }

// Notice is a reason and what it is about in this pod.
type Notice struct {
	Reason Reason
	// Detail names the container, annotation or field. May be empty.
	Detail string
}

// String returns the text for an admission warning or a refusal.
func (n Notice) String() string {
	if n.Detail == "" {
		return fmt.Sprintf("rockpool: %s: %s", n.Reason, n.Reason.Message())
	}
	return fmt.Sprintf("rockpool: %s: %s: %s", n.Reason, n.Reason.Message(), n.Detail)
}

// Outcome is what became of a pod.
type Outcome string

// The outcomes.
const (
	// Injected: the returned pod differs from the one given.
	Injected Outcome = "injected"
	// Unchanged: the pod had been injected before and nothing was left to do.
	Unchanged Outcome = "unchanged"
	// Skipped: the pod may run as it is, without Rockpool.
	Skipped Outcome = "skipped"
	// Refused: the pod must not be admitted until its author changes it.
	Refused Outcome = "refused"
)

// Result says what [Inject] did.
type Result struct {
	Outcome Outcome
	// Cause is why the pod was skipped or refused; its zero value otherwise.
	Cause Notice
	// Notices are about an injected pod: containers that keep talking to the API server
	// directly, and what was decided otherwise than usual.
	Notices []Notice
}

// Warnings returns what the author of the pod should read: why the pod, or some of its
// containers, run without Rockpool although it was asked for, or with it in another way.
func (r Result) Warnings() []string {
	var warnings []string
	if r.Outcome == Skipped && r.Cause.Reason != ReasonNotRequested {
		warnings = append(warnings, r.Cause.String())
	}
	for _, n := range r.Notices {
		if n.Reason != ReasonExcluded {
			warnings = append(warnings, n.String())
		}
	}
	return warnings
}
