package doctor

// Code names a finding. It never changes its meaning.
type Code string

// The codes of checks that have found nothing wrong.
const (
	Server      Code = "api-server"
	Webhook     Code = "webhook"
	Certificate Code = "certificate"
	Injector    Code = "injector"
	Call        Code = "call"
	Settings    Code = "settings"
	Nodes       Code = "nodes"
	Sidecars    Code = "sidecars"
	Pod         Code = "pod"
)

// The codes of everything else.
const (
	ServerSilent         Code = "api-server-silent"
	ServerOld            Code = "api-server-old"
	NotAllowed           Code = "not-allowed"
	WebhookMissing       Code = "webhook-missing"
	WebhookElsewhere     Code = "webhook-elsewhere"
	WebhookIncomplete    Code = "webhook-incomplete"
	FailurePolicyIgnore  Code = "failure-policy-ignore"
	ExclusionsDiffer     Code = "exclusions-differ"
	NamespaceExcluded    Code = "namespace-excluded"
	PolicyMissing        Code = "policy-missing"
	CABundleEmpty        Code = "ca-bundle-empty"
	CABundleInvalid      Code = "ca-bundle-invalid"
	CABundleExpired      Code = "ca-bundle-expired"
	CABundleMismatch     Code = "ca-bundle-mismatch"
	CertificateMissing   Code = "certificate-missing"
	CertificateExpired   Code = "certificate-expired"
	CertificateExpiring  Code = "certificate-expiring"
	CertificateWrongName Code = "certificate-wrong-name"
	ServiceMissing       Code = "service-missing"
	ServicePort          Code = "service-port"
	InjectorMissing      Code = "injector-missing"
	InjectorNotReady     Code = "injector-not-ready"
	InjectorAlone        Code = "injector-alone"
	InjectorAtEdge       Code = "injector-at-edge"
	InjectorsDiffer      Code = "injectors-differ"
	CallRefused          Code = "call-refused"
	CallSilent           Code = "call-silent"
	CallUntrusted        Code = "call-untrusted"
	CallFails            Code = "call-fails"
	CallLeftOut          Code = "call-left-out"
	CallInconclusive     Code = "call-inconclusive"
	SettingsMissing      Code = "settings-missing"
	SettingsRefused      Code = "settings-refused"
	NoUpstreams          Code = "no-upstreams"
	OldKubelets          Code = "old-kubelets"
	DoctorDiffers        Code = "doctor-differs"
	SidecarsOutdated     Code = "sidecars-outdated"
	SidecarsUnhealthy    Code = "sidecars-unhealthy"
	PodsNotInjected      Code = "pods-not-injected"
	PodMissing           Code = "pod-missing"
	PodNotRequested      Code = "pod-not-requested"
	AnnotationMisplaced  Code = "annotation-misplaced"
	PodExcluded          Code = "pod-excluded"
	PodSkipped           Code = "pod-skipped"
	PodRefused           Code = "pod-refused"
	PodNotice            Code = "pod-notice"
	PodOlder             Code = "pod-older"
)

// Advice is the next step for each code.
var Advice = map[Code]string{
	ServerSilent:         "check --kubeconfig and --context, and that the API server runs",
	ServerOld:            "upgrade the control plane to Kubernetes 1.30 or newer: older ones ignore matchConditions or do not have them",
	NotAllowed:           "run the doctor as an administrator; what needs this object is left out",
	WebhookMissing:       "apply the manifests: kubectl apply -k manifests",
	WebhookElsewhere:     "apply the manifests again, or name the Service with --injector-namespace and --service",
	WebhookIncomplete:    "apply the manifests again: both webhooks are needed, for annotations of pods and for labels of namespaces",
	FailurePolicyIgnore:  "set failurePolicy: Fail, unless pods may start without Rockpool while no injector answers",
	ExclusionsDiffer:     "exclude the same namespaces in the webhook's namespaceSelector and in the injector's --excluded-namespaces",
	NamespaceExcluded:    "remove the label, or no longer exclude the namespace; for kube-system see the component kube-system",
	PolicyMissing:        "apply the manifests again: without the policy, pods that another webhook has damaged are admitted",
	CABundleEmpty:        "read the injector's log: it writes the caBundle, and needs its ClusterRole for that; with cert-manager, its cainjector does",
	CABundleInvalid:      "set caBundle to null, so that the injector or cert-manager writes it again",
	CABundleExpired:      "restart the injector's pods: they renew the CA; with cert-manager, renew the Certificate rockpool-ca",
	CABundleMismatch:     "wait for a minute, in which the injector corrects it; then look for who else writes caBundle, such as a GitOps tool",
	CertificateMissing:   "read the injector's log: it makes the Secret, and needs its Role for that; with cert-manager, see the Certificate",
	CertificateExpired:   "restart the injector's pods and read their log; with cert-manager, see the Certificate",
	CertificateExpiring:  "read the injector's log: it should have renewed the certificate already",
	CertificateWrongName: "issue the certificate for the name of the Service, NAME.NAMESPACE.svc",
	ServiceMissing:       "apply the manifests again",
	ServicePort:          "let the port in the webhook's clientConfig, the Service's port and the container's port lead to --listen",
	InjectorMissing:      "see kubectl -n rockpool-system describe deployment rockpool-injector: a quota, or a node selector that no node has",
	InjectorNotReady:     "see kubectl -n rockpool-system describe pod and logs; /readyz says why it is not ready",
	InjectorAlone:        "run two or more replicas: while the only one restarts, pods that ask for Rockpool are not created",
	InjectorAtEdge:       "move the injector to a node beside the control plane, with its nodeAffinity: a cut of that node's link would stop admission",
	InjectorsDiffer:      "wait for the roll-out to end; if it does not, see kubectl -n rockpool-system rollout status deployment rockpool-injector",
	CallRefused:          "check that the injector listens on the Service's targetPort, and no NetworkPolicy rejects the API server",
	CallSilent:           "open the injector's port in the firewall between control plane and nodes, or use another with --listen; if the control plane does not reach pods at all, use the component host-network",
	CallUntrusted:        "compare the caBundle with the certificate: see the findings about them",
	CallFails:            "read the injector's log at this time",
	CallLeftOut:          "compare the webhook's rules, selectors and matchConditions with those of the manifests",
	CallInconclusive:     "try in another namespace: --probe-namespace",
	SettingsMissing:      "apply the manifests again, or create the ConfigMap; until then the injector's flags are in effect",
	SettingsRefused:      "correct the ConfigMap; until then the settings from before stay in effect, and an injector that starts is not ready",
	NoUpstreams:          "name in upstreams the addresses at which edge nodes reach the API server; pods have only the in-cluster one otherwise",
	OldKubelets:          "upgrade these nodes to 1.29 or newer, or keep pods with Rockpool from them",
	DoctorDiffers:        "run the doctor of the injector's own version",
	SidecarsOutdated:     "upgrade them without restarts: rockpool-injector upgrade",
	SidecarsUnhealthy:    "see rockpool-injector status, then kubectl logs POD -c rockpool-sidecar",
	PodsNotInjected:      "create these pods again, as with kubectl rollout restart: they are older than Rockpool, or were created while it was not asked",
	PodMissing:           "check the namespace and the name, as in --pod shop/web-0",
	PodNotRequested:      "add the annotation rockpool.dev/inject: \"true\" to the pod (in a workload: to spec.template), or the label to its namespace",
	AnnotationMisplaced:  "move the annotation to spec.template.metadata.annotations",
	PodExcluded:          "the namespaceSelector of the webhook leaves this namespace out; for kube-system see the component kube-system, else use the command rockpool-injector inject",
	PodSkipped:           "see the reason in docs/annotations.md",
	PodRefused:           "correct the pod as the reason says",
	PodNotice:            "see the reason in docs/annotations.md; this may be intended",
	PodOlder:             "create the pod again, as with kubectl rollout restart",
}
