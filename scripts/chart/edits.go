package main

// Conditions under which the chart has objects.
const (
	withMonitoring  = ".Values.monitoring.enabled"
	withCertManager = ".Values.certManager.enabled"
	withJanitor     = ".Values.janitor.enabled"
	withReport      = ".Values.report.enabled"
)

// templates are those that the chart has, by the order in the manifests.
var templates = []template{
	{from: "base/namespace.yaml", name: "namespace.yaml", when: ".Values.namespace.create", edits: []edit{
		{"enforce: restricted", `enforce: {{ ternary "privileged" "restricted" .Values.hostNetwork }}`},
		{"audit: restricted", `audit: {{ ternary "privileged" "restricted" .Values.hostNetwork }}`},
		{"warn: restricted", `warn: {{ ternary "privileged" "restricted" .Values.hostNetwork }}`},
	}},
	{from: "base/serviceaccount.yaml", name: "serviceaccount.yaml"},
	{from: "base/clusterrole.yaml", name: "clusterrole.yaml"},
	{from: "base/clusterrolebinding.yaml", name: "clusterrolebinding.yaml"},
	{from: "base/role.yaml", name: "role.yaml"},
	{from: "base/rolebinding.yaml", name: "rolebinding.yaml"},
	{from: "base/deployment.yaml", name: "deployment.yaml", edits: deployment},
	{from: "base/service.yaml", name: "service.yaml"},
	{from: "base/poddisruptionbudget.yaml", name: "poddisruptionbudget.yaml", edits: []edit{
		{"minAvailable: 1", `minAvailable: {{ sub (include "rockpool.replicas" . | int) 1 }}`},
	}},
	{from: "base/webhook.yaml", name: "webhook.yaml", edits: webhook},
	{from: "base/policy.yaml", name: "policy.yaml", edits: []edit{
		{`values: ["kube-system", "` + releaseNamespace + `"]`, `values: [{{ if not .Values.kubeSystem }}"kube-system", {{ end }}"` + releaseNamespace + `"]`},
	}},
	{from: "base/policybinding.yaml", name: "policybinding.yaml"},
	{from: "base/settingspolicy.yaml", name: "settingspolicy.yaml"},
	{from: "base/settingspolicybinding.yaml", name: "settingspolicybinding.yaml"},
	{from: "base/excludedpolicy.yaml", name: "excludedpolicy.yaml", edits: excludedPolicy},
	{from: "base/excludedpolicybinding.yaml", name: "excludedpolicybinding.yaml"},
	{from: "base/priorityclass.yaml", name: "priorityclass.yaml"},

	{from: "overlays/default/rbac.yaml", name: "certificate-rbac.yaml", when: "not " + withCertManager},
	{from: "overlays/cert-manager/certificate.yaml", name: "certificate.yaml", when: withCertManager, edits: []edit{
		{"apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata:\n  name: rockpool-self-signed\n",
			"{{- if not .Values.certManager.issuerRef }}\napiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata:\n  name: rockpool-self-signed\n"},
		{"    secretName: rockpool-ca\n---\n", "    secretName: rockpool-ca\n{{- end }}\n---\n"},
		{"  secretName: rockpool-injector-tls\n  issuerRef:\n    kind: Issuer\n    name: rockpool-ca\n",
			"  secretName: rockpool-injector-tls\n  issuerRef:\n    {{- with .Values.certManager.issuerRef }}\n    {{- toYaml . | nindent 4 }}\n" +
				"    {{- else }}\n    kind: Issuer\n    name: rockpool-ca\n    {{- end }}\n"},
	}},

	{from: "components/network-policy/networkpolicy.yaml", name: "networkpolicy.yaml", when: ".Values.networkPolicy.enabled", edits: []edit{
		{"    - ipBlock:\n        cidr: 192.0.2.0/24\n",
			"    {{- range .Values.networkPolicy.apiServers }}\n    - ipBlock:\n        cidr: {{ . }}\n    {{- end }}\n"},
	}},
	{from: "components/pull-secrets/rbac.yaml", name: "pull-secrets-rbac.yaml", when: ".Values.image.copyPullSecrets", edits: []edit{
		{"  resourceNames: [\"rockpool-registry\"]\n  verbs: [\"get\"]", "  resourceNames: {{ toJson .Values.image.pullSecrets }}\n  verbs: [\"get\"]"},
		{"  resourceNames: [\"rockpool-registry\"]\n  verbs: [\"create\"", "  resourceNames: {{ toJson .Values.image.pullSecrets }}\n  verbs: [\"create\""},
	}},

	{from: "components/report/clusterrole.yaml", name: "report-clusterrole.yaml", when: withReport},
	{from: "components/report/policy.yaml", name: "report-policy.yaml", when: withReport},
	{from: "components/report/policybinding.yaml", name: "report-policybinding.yaml", when: withReport},

	{from: "monitoring/podmonitor.yaml", name: "podmonitor.yaml", when: withMonitoring, edits: []edit{
		{"  name: rockpool-sidecar\n  labels:\n", "  name: rockpool-sidecar\n  labels:\n" + monitoringLabels},
		{"  name: rockpool-injector\n  labels:\n", "  name: rockpool-injector\n  labels:\n" + monitoringLabels},
	}},
	{from: "monitoring/prometheusrule.yaml", name: "prometheusrule.yaml", when: withMonitoring, edits: []edit{
		{"  name: rockpool\n  labels:\n", "  name: rockpool\n  labels:\n" + monitoringLabels},
	}},

	{from: "overlays/janitor/namespace.yaml", name: "janitor-namespace.yaml", when: withJanitor},
	{from: "overlays/janitor/serviceaccount.yaml", name: "janitor-serviceaccount.yaml", when: withJanitor, edits: []edit{janitorNamespace}},
	{from: "overlays/janitor/daemonset.yaml", name: "janitor-daemonset.yaml", when: withJanitor, edits: []edit{
		janitorNamespace,
		{"image: rockpool\n", "image: {{ include \"rockpool.image\" . }}\n" + pullPolicy},
		{"      serviceAccountName: rockpool-janitor\n", "      serviceAccountName: rockpool-janitor\n" + pullSecrets},
		{"path: /var/lib/rockpool\n", "path: {{ .Values.settings.cache_host_path | default \"/var/lib/rockpool\" }}\n"},
	}},
}

const monitoringLabels = `    {{- with .Values.monitoring.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
`

// The janitor has a namespace of its own, whatever that of the release is.
var janitorNamespace = edit{"metadata:\n  name: rockpool-janitor\n", "metadata:\n  name: rockpool-janitor\n  namespace: rockpool-janitor\n"}

const pullPolicy = `        {{- with .Values.image.pullPolicy }}
        imagePullPolicy: {{ . }}
        {{- end }}
`

const pullSecrets = `      {{- with .Values.image.pullSecrets }}
      imagePullSecrets:
      {{- range . }}
      - name: {{ quote . }}
      {{- end }}
      {{- end }}
`

var excludedPolicy = []edit{
	{".orValue('false') != 'false'\n", `.orValue('false') != 'false'
      {{- if .Values.kubeSystem }}
      && (request.namespace != 'kube-system' || variables.template.?metadata.?labels[?'rockpool.dev/inject'].orValue('') != 'true')
      {{- end }}
`},
	{"    messageExpression: >-\n", "    messageExpression: >-\n      {{- if .Values.kubeSystem }}" + `
      'rockpool: excluded-namespace: pods in the namespace ' + request.namespace + ' are not injected, although this one asks for it: '
      + (request.namespace == 'kube-system' ? 'add the label rockpool.dev/inject: "true" to the pod'
        : 'use the command rockpool-injector inject')
      {{- else }}
`},
	{"', or the component kube-system of the manifests' : '')\n", "', or the component kube-system of the manifests' : '')\n      {{- end }}\n"},
}

var webhook = []edit{
	{"  name: rockpool\n", `  name: rockpool
  {{- if .Values.certManager.enabled }}
  annotations:
    cert-manager.io/inject-ca-from: ` + releaseNamespace + `/rockpool-injector
  {{- end }}
`},
	{"webhooks:\n", `webhooks:
{{- if .Values.kubeSystem }}
# Pods in kube-system that have the label. They start without Rockpool while no injector runs.
- name: inject-kube-system.rockpool.dev
  admissionReviewVersions: ["v1"]
  clientConfig:
    service:
      name: rockpool-injector
      namespace: ` + releaseNamespace + `
      path: /inject/namespace
      port: 443
  rules:
  - apiGroups: [""]
    apiVersions: ["v1"]
    operations: ["CREATE"]
    resources: ["pods"]
    scope: Namespaced
  objectSelector:
    matchLabels:
      rockpool.dev/inject: "true"
  matchConditions:
  - name: pod-does-not-decline
    expression: >-
      !(has(object.metadata.annotations)
      && 'rockpool.dev/inject' in object.metadata.annotations
      && object.metadata.annotations['rockpool.dev/inject'] == 'false')
  namespaceSelector:
    matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: In
      values: ["kube-system"]
  failurePolicy: Ignore
  matchPolicy: Equivalent
  reinvocationPolicy: IfNeeded
  sideEffects: NoneOnDryRun
  timeoutSeconds: 5
{{- end }}
`},
}
