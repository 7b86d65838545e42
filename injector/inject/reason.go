package inject

import "fmt"

// Reason is a stable code for why a pod, or one of its containers, runs without Rockpool or in
// another way than usual. Codes are part of the interface: they appear in admission warnings,
// in messages of refused pods and as a metric label. Their meaning never changes.
type Reason string

// Reasons for admitting a pod without Rockpool.
const (
	ReasonNotRequested     Reason = "not-requested"
	ReasonMirrorPod        Reason = "mirror-pod"
	ReasonWindows          Reason = "windows"
	ReasonHostNetwork      Reason = "host-network"
	ReasonNoServiceAccount Reason = "no-service-account-mount"
	ReasonNothingToServe   Reason = "nothing-to-serve"
)

// Reasons for refusing a pod: its author has to decide.
const (
	ReasonInvalidAnnotation Reason = "invalid-annotation"
	ReasonPortConflict      Reason = "port-conflict"
	ReasonNameConflict      Reason = "name-conflict"
	ReasonInvalidName       Reason = "invalid-name"
	ReasonOldKubelet        Reason = "old-kubelet"
)

// Reasons for leaving one container of an injected pod alone.
const (
	ReasonOwnAddress Reason = "container-sets-api-address"
	ReasonOwnAccount Reason = "container-mounts-own-account"
	ReasonExcluded   Reason = "container-excluded"
)

// Reasons for a notice about an injected pod.
const (
	ReasonPodSecurity       Reason = "pod-security-forbids-hostpath"
	ReasonAssignedUsers     Reason = "namespace-assigns-users"
	ReasonNoSuchContainer   Reason = "no-such-container"
	ReasonProxy             Reason = "container-uses-proxy"
	ReasonAPINames          Reason = "api-names-not-served"
	ReasonNoStableName      Reason = "no-stable-name"
	ReasonUserNamespace     Reason = "user-namespace"
	ReasonHostPorts         Reason = "host-ports"
	ReasonExcludedNamespace Reason = "excluded-namespace"
	ReasonOwnToleration     Reason = "own-toleration"
	ReasonFloatingImage     Reason = "floating-image"
	ReasonPullAlways        Reason = "pull-always"
	ReasonPullSecrets       Reason = "pull-secrets"
)

// messages has one sentence for each reason.
var messages = map[Reason]string{
	ReasonNotRequested:      "the pod does not ask for Rockpool",
	ReasonMirrorPod:         "static pods have no service account; nothing was injected",
	ReasonWindows:           "Rockpool runs on Linux only; nothing was injected",
	ReasonHostNetwork:       "the pod uses the node's network, where all pods would share the sidecar's port; nothing was injected; choose a port for this pod with rockpool.dev/port",
	ReasonNoServiceAccount:  "no container mounts a service-account token that the sidecar can read (see automountServiceAccountToken); nothing was injected",
	ReasonNothingToServe:    "every container with a service-account token was left alone; nothing was injected",
	ReasonInvalidAnnotation: "an annotation is not valid",
	ReasonPortConflict:      "a container uses a port that the sidecar needs; choose two others for the sidecar with rockpool.dev/port",
	ReasonNameConflict:      "the pod has a container or volume with a name that Rockpool adds; choose another one",
	ReasonInvalidName:       "the cache directory cannot be named after this pod",
	ReasonOwnAddress:        "the container sets the address of the API server itself and was left alone; remove that variable to have Rockpool serve it",
	ReasonOwnAccount:        "the container mounts another volume at the service-account path, or one that the sidecar cannot read, and was left alone",
	ReasonExcluded:          "the container is excluded by annotation",
	ReasonOldKubelet:        "native sidecars need kubelet 1.29 or newer; keep the pod from that node, or opt out with rockpool.dev/inject: \"false\"",
	ReasonPodSecurity:       "the namespace's Pod Security level forbids hostPath; the cache is an emptyDir and is lost with the pod",
	ReasonAssignedUsers:     "the namespace assigns user IDs and allows no hostPath; the cache is an emptyDir and is lost with the pod",
	ReasonUserNamespace:     "the pod has users of its own (hostUsers: false), and not every file system maps them; the cache is an emptyDir and is lost with the pod; rockpool.dev/cache-volume: hostPath has it on the node all the same",
	ReasonNoStableName:      "neither the pod nor its controller has a name that the next run shares; the cache is an emptyDir and is lost with the pod",
	ReasonHostPorts:         "all pods of this workload use the same ports of their nodes, so two cannot be on one node; for rolling updates set maxSurge: 0 and maxUnavailable: 1",
	ReasonOwnToleration:     "the pod limits how long it stays on a node that the control plane cannot reach, and keeps that limit; remove its toleration to have rockpool.dev/stay in effect",
	ReasonExcludedNamespace: "the API server does not ask the webhook about pods in this namespace, so these run with the settings of this command, and later changes of rockpool-cfg do not reach them; for kube-system see the component kube-system of the manifests",
	ReasonFloatingImage:     "the sidecar's image has no version, so nodes run whichever they have pulled once; name a tag other than latest, or a digest",
	ReasonPullAlways:        "with the pull policy Always, a sidecar that ends while the registry cannot be reached does not start again; use IfNotPresent",
	ReasonPullSecrets:       "the pod names no pull secrets, and with those that were added the API server does not add those of its ServiceAccount; name these in the pod as well, if there are any",
	ReasonNoSuchContainer:   "no container of the pod has this name; the entry excludes nothing",
	ReasonProxy:             "the container uses a proxy, and its NO_PROXY comes from a valueFrom; make sure that it includes the sidecar, 127.0.0.1 (::1 in an IPv6 cluster)",
	ReasonAPINames:          "the sidecar does not answer at the names of the API server's Service and at port 443 in this pod; see rockpool.dev/api-names",
}

// Message returns the sentence that explains r.
func (r Reason) Message() string { return messages[r] }

// Notice is a reason, and the part of the pod that it is about.
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

// Outcome is the decision about a pod.
type Outcome string

// The outcomes.
const (
	// Injected: the returned pod differs from the given one.
	Injected Outcome = "injected"
	// Unchanged: the given pod was injected before, and needs no change.
	Unchanged Outcome = "unchanged"
	// Skipped: the pod may run without Rockpool.
	Skipped Outcome = "skipped"
	// Refused: the pod must not be admitted until its author changes it.
	Refused Outcome = "refused"
)

// Result is the decision of [Inject], with its reasons.
type Result struct {
	Outcome Outcome
	// Cause is why the pod was skipped or refused; its zero value otherwise.
	Cause Notice
	// Notices are about an injected pod: containers that keep talking to the API server
	// directly, and decisions that differ from the usual ones.
	Notices []Notice
}

// Warnings returns the messages for the pod's author: why the pod, or some of its containers,
// run without Rockpool although it was asked for, or with it in another way than usual.
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
