package main

// deployment are the edits of the injector's Deployment, in its order.
var deployment = []edit{
	{"  replicas: 2\n", "  replicas: {{ include \"rockpool.replicas\" . }}\n"},
	// An extra replica during an update would need another node.
	{"      maxUnavailable: 0\n      maxSurge: 1\n", `      maxUnavailable: {{ ternary 1 0 (or .Values.ha .Values.hostNetwork) }}
      maxSurge: {{ ternary 0 1 (or .Values.ha .Values.hostNetwork) }}
`},
	{"        prometheus.io/port: \"8080\"\n", `        prometheus.io/port: {{ include "rockpool.metricsPort" . | quote }}
        # Kustomize puts a hash into the name of the ConfigMap instead.
        checksum/flags: {{ include "rockpool.flags" . | sha256sum }}
`},
	{"      serviceAccountName: rockpool-injector\n", "      serviceAccountName: rockpool-injector\n" + pullSecrets + `      {{- if .Values.hostNetwork }}
      hostNetwork: true
      dnsPolicy: ClusterFirstWithHostNet
      {{- end }}
`},
	{"      nodeSelector:\n        kubernetes.io/os: linux\n", `      nodeSelector:
        {{- toYaml .Values.nodeSelector | nindent 8 }}
      {{- with .Values.tolerations }}
      tolerations:
      {{- toYaml . | nindent 6 }}
      {{- end }}
`},
	{"priorityClassName: rockpool-injector\n", "priorityClassName: {{ ternary \"system-cluster-critical\" \"rockpool-injector\" .Values.ha }}\n"},
	{"        nodeAffinity:\n", `        {{- if .Values.affinity.nodeAffinity }}
        nodeAffinity:
          {{- toYaml .Values.affinity.nodeAffinity | nindent 10 }}
        {{- else }}
        nodeAffinity:
`},
	{"        podAntiAffinity:\n          preferredDuringSchedulingIgnoredDuringExecution:\n", `        {{- end }}
        {{- with .Values.affinity.podAffinity }}
        podAffinity:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        podAntiAffinity:
          {{- if .Values.affinity.podAntiAffinity }}
          {{- toYaml .Values.affinity.podAntiAffinity | nindent 10 }}
          {{- else if .Values.ha }}
          requiredDuringSchedulingIgnoredDuringExecution:
          - topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                app.kubernetes.io/name: rockpool-injector
                app.kubernetes.io/component: injector
          {{- else }}
          preferredDuringSchedulingIgnoredDuringExecution:
`},
	{"      topologySpreadConstraints:\n", "          {{- end }}\n      topologySpreadConstraints:\n"},
	{"        image: rockpool:dev\n", "        image: {{ include \"rockpool.image\" . }}\n" + pullPolicy},
	{"        - --listen=:8443\n        - --metrics-listen=:8080\n", `        - --listen=:{{ include "rockpool.port" . }}
        - --metrics-listen=:{{ include "rockpool.metricsPort" . }}
        {{- if .Values.kubeSystem }}
        - --excluded-namespaces={{ .Release.Namespace }}
        {{- else if ne .Release.Namespace "` + namespace + `" }}
        - --excluded-namespaces=kube-system,{{ .Release.Namespace }}
        {{- end }}
        {{- if .Values.image.copyPullSecrets }}
        - --copy-pull-secrets
        {{- end }}
`},
	{"        env:\n", `        env:
        {{- if .Values.certManager.enabled }}
        - name: ROCKPOOL_INJECTOR_TLS_CERT_FILE
          value: /etc/rockpool/tls/tls.crt
        - name: ROCKPOOL_INJECTOR_TLS_KEY_FILE
          value: /etc/rockpool/tls/tls.key
        {{- end }}
`},
	{"          value: rockpool:dev\n", `          value: {{ include "rockpool.image" . }}
        {{- with .Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
`},
	{"          containerPort: 8443\n", `          containerPort: {{ include "rockpool.port" . }}
          {{- if .Values.hostNetwork }}
          hostPort: {{ include "rockpool.port" . }}
          {{- end }}
`},
	{"          containerPort: 8080\n", `          containerPort: {{ include "rockpool.metricsPort" . }}
          {{- if .Values.hostNetwork }}
          hostPort: {{ include "rockpool.metricsPort" . }}
          {{- end }}
`},
	{`          requests:
            cpu: 20m
            memory: 32Mi
          limits:
            cpu: "1"
            memory: 128Mi
`, `          {{- toYaml .Values.resources | nindent 10 }}
`},
	{"        terminationMessagePolicy: FallbackToLogsOnError\n", `        terminationMessagePolicy: FallbackToLogsOnError
        {{- if .Values.certManager.enabled }}
        volumeMounts:
        - name: tls
          mountPath: /etc/rockpool/tls
          readOnly: true
      volumes:
      - name: tls
        secret:
          secretName: rockpool-injector-tls
          defaultMode: 0440
        {{- end }}
`},
}
