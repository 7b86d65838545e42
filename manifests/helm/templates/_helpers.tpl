{{- /* The image of the injector and of injected containers. */ -}}
{{- define "rockpool.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "rockpool.replicas" -}}
{{- .Values.replicas | default (ternary 3 2 .Values.ha) -}}
{{- end -}}

{{- define "rockpool.port" -}}
{{- .Values.port | default (ternary 9443 8443 .Values.hostNetwork) -}}
{{- end -}}

{{- define "rockpool.metricsPort" -}}
{{- .Values.metricsPort | default (ternary 9444 8080 .Values.hostNetwork) -}}
{{- end -}}

{{- /* A value as the string that a ConfigMap has. Helm reads numbers as floating-point ones. */ -}}
{{- define "rockpool.string" -}}
{{- if kindIs "float64" . -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{- /* The data of the ConfigMap with the injector's flags. */ -}}
{{- define "rockpool.flags" -}}
{{- $data := dict -}}
{{- range $flag, $value := .Values.flags -}}
{{- $_ := set $data (printf "ROCKPOOL_INJECTOR_%s" ($flag | upper | replace "-" "_")) (include "rockpool.string" $value) -}}
{{- end -}}
{{- toYaml $data -}}
{{- end -}}

{{- /* The data of rockpool-cfg: values of the chart that are settings, and the settings themselves. */ -}}
{{- define "rockpool.settings" -}}
{{- $data := dict "upstreams" (join "," .Values.upstreams) -}}
{{- with .Values.image -}}
{{- if .pullPolicy -}}{{- $_ := set $data "image_pull_policy" .pullPolicy -}}{{- end -}}
{{- if .copyPullSecrets -}}{{- $_ := set $data "image_pull_secrets" (join "," .pullSecrets) -}}{{- end -}}
{{- end -}}
{{- if .Values.monitoring.enabled -}}{{- $_ := set $data "metrics_address" "pod" -}}{{- end -}}
{{- range $key, $value := .Values.settings -}}
{{- $_ := set $data $key (include "rockpool.string" $value) -}}
{{- end -}}
{{- toYaml $data -}}
{{- end -}}
