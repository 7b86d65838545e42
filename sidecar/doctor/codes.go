package doctor

// Code names a finding. It never changes its meaning.
type Code string

// The codes of checks that have found nothing wrong.
const (
	Sidecar     Code = "sidecar"
	Requests    Code = "requests"
	Account     Code = "account"
	Handshake   Code = "handshake"
	Address     Code = "address"
	Link        Code = "link"
	Permissions Code = "permissions"
	Cache       Code = "cache"
	Lists       Code = "lists"
	Disk        Code = "disk"
	Rehearsal   Code = "rehearsal"
)

// The codes of everything else.
const (
	SidecarSilent      Code = "sidecar-silent"
	SettingsInvalid    Code = "settings-invalid"
	VersionDiffers     Code = "version-differs"
	NoRequests         Code = "no-requests"
	RequestsRefused    Code = "requests-refused"
	AgentNotRecorded   Code = "agent-not-recorded"
	TokenMissing       Code = "token-missing"
	TokenExpired       Code = "token-expired"
	CAMissing          Code = "ca-missing"
	HandshakeFails     Code = "handshake-fails"
	NoAddress          Code = "no-address"
	AddressUnresolved  Code = "address-unresolved"
	AddressRefused     Code = "address-refused"
	AddressSilent      Code = "address-silent"
	AddressUntrusted   Code = "address-untrusted"
	AddressWrongName   Code = "address-wrong-name"
	AddressCertificate Code = "address-certificate"
	AddressBroken      Code = "address-broken"
	AddressForeign     Code = "address-foreign"
	TokenRefused       Code = "token-refused"
	ClockOff           Code = "clock-off"
	LinkDown           Code = "link-down"
	LinkFlaps          Code = "link-flaps"
	Forbidden          Code = "forbidden"
	FilterUnsure       Code = "filter-unsure"
	ReportsRefused     Code = "reports-refused"
	CacheMissing       Code = "cache-missing"
	CacheUnreadable    Code = "cache-unreadable"
	CacheDamaged       Code = "cache-damaged"
	RecordingStopped   Code = "recording-stopped"
	CacheFull          Code = "cache-full"
	ListTooLarge       Code = "list-too-large"
	NothingRecorded    Code = "nothing-recorded"
	ListNotRecorded    Code = "list-not-recorded"
	AnswersOld         Code = "answers-old"
	DiskFull           Code = "disk-full"
	DiskReadOnly       Code = "disk-read-only"
	WouldBeRefused     Code = "would-be-refused"
	RehearsalFails     Code = "rehearsal-fails"
)

// Advice is the next step for each code.
var Advice = map[Code]string{ //nolint:gosec // it speaks of tokens, and has none
	SidecarSilent:      "read the log: kubectl logs POD -c rockpool-sidecar; if metrics.address is empty, metrics are off and some checks are left out",
	SettingsInvalid:    "read the log for the setting, and correct the annotation or the ConfigMap rockpool-cfg",
	VersionDiffers:     "run the doctor of the container itself: kubectl exec POD -c rockpool-sidecar -- /rockpool-sidecar doctor",
	NoRequests:         "check that the programs use KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT (kubectl exec POD -c APP -- env), and are not in rockpool.dev/exclude-containers",
	RequestsRefused:    "compare with `cache ls`: what was never read while the link was up cannot be answered while it is down",
	AgentNotRecorded:   "add the client to cache_agents or rockpool.dev/cache-agents, if its reads are needed in an outage",
	TokenMissing:       "let the pod have a token: automountServiceAccountToken, or the projected volume",
	TokenExpired:       "the kubelet renews the token while the node reaches the API server; check the node's own link, and its clock",
	CAMissing:          "the ConfigMap kube-root-ca.crt of the namespace has the CA; check that the pod mounts it",
	HandshakeFails:     "restart the pod; if that does not help, another program has the sidecar's port, or the volume rockpool-account was replaced",
	NoAddress:          "name the API server's addresses: upstreams in rockpool-cfg, or rockpool.dev/upstreams",
	AddressUnresolved:  "use an IP address, or let the node's DNS resolve the name without the link to the cloud",
	AddressRefused:     "check the port, and that the API server or its load balancer listens at this address",
	AddressSilent:      "check the route and the firewalls between the node and this address",
	AddressUntrusted:   "the certificate is not of the cluster's CA: a proxy is in between, or the address needs ;ca-file=PATH",
	AddressWrongName:   "add ;tls-server-name=NAME to the address, with a name that the certificate has",
	AddressCertificate: "check the node's clock, then renew the API server's certificate",
	AddressBroken:      "something at this address does not speak TLS; check the port",
	AddressForeign:     "a gateway or captive portal answers instead of the API server; check what is at this address",
	TokenRefused:       "the API server does not accept the pod's token: the service account was deleted, or this is another cluster",
	ClockOff:           "set the node's clock (NTP); certificates and tokens depend on it",
	LinkDown:           "see the findings of the addresses; programs get recorded answers meanwhile",
	LinkFlaps:          "check the quality of the uplink; offline.write-patience bridges short breaks for writes",
	Forbidden:          "grant the verbs to the service account with a Role, or ignore this if it is intended",
	FilterUnsure:       "grant list and watch of it to the service account, or say what it would show: rockpool.dev/pool, rockpool.dev/zone, filters_pools",
	ReportsRefused:     "give the pod's service account the role rockpool-report, or take the kind out of rockpool.dev/report; then restart the pod",
	CacheMissing:       "read the log of the sidecar, and check the volume rockpool-cache and its owner on the node",
	CacheUnreadable:    "read the log: the sidecar begins a new file by itself; if another version has written it, run that one's doctor",
	CacheDamaged:       "the sidecar drops what is damaged when it meets it; replace the node's disk if that happens again",
	RecordingStopped:   "free or replace the node's disk; the sidecar tries again by itself",
	CacheFull:          "raise cache-size (or cache-memory-size), or exclude clients with cache-agents",
	ListTooLarge:       "raise cache-size (or cache-memory-size) above the size of the list",
	NothingRecorded:    "wait until the programs have read something while the link is up, and check cache-agents",
	ListNotRecorded:    "a list is recorded when it was read to its end; Tables and lists of excluded clients are not",
	AnswersOld:         "a list that nobody watches is as old as the last time that it was read; let the program watch it, or read it more often",
	DiskFull:           "free space on the node's disk, or lower cache-size",
	WouldBeRefused:     "let the program read it once while the link is up, and its client be in cache-agents; writes wait for the link, but for offline-events and offline-leases",
	RehearsalFails:     "run the doctor in the sidecar's own container, with the same version",
	DiskReadOnly:       "the kernel may have remounted a failing disk: check its log, then replace the disk",
}
