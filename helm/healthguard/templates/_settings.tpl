{{/* Every service's environment: what values.yaml sets, and what follows from the chart. A test holds it equal to the
     services' own settings. */}}
{{- define "healthguard.internalScheme" -}}
{{ .Values.internalTLS.enabled | ternary "https" "http" }}
{{- end }}

{{/* Whether the gateway's own port speaks TLS. */}}
{{- define "healthguard.door" -}}
{{- if and .Values.internalTLS.enabled .Values.internalTLS.door }}door{{ end -}}
{{- end }}

{{- define "healthguard.authURL" -}}
{{ include "healthguard.internalScheme" . }}://{{ include "healthguard.name" (list . "auth") }}:8000
{{- end }}

{{- define "healthguard.jwksURL" -}}
{{ include "healthguard.authURL" . }}/.well-known/jwks.json
{{- end }}

{{- define "healthguard.auth.settings" -}}
AUTH_HOST: 0.0.0.0
AUTH_PORT: "8000"
# The kubelet's preStop wait does it already.
AUTH_DRAIN_S: "0"
{{- if .Values.internalTLS.enabled }}
AUTH_TLS_CERT_FILE: /etc/healthguard/tls/tls.crt
AUTH_TLS_KEY_FILE: /etc/healthguard/tls/tls.key
{{- end }}
{{- include "healthguard.environment" (list "AUTH" .Values.auth.settings) }}
{{- end }}

{{- define "healthguard.records.settings" -}}
RECORDS_HOST: 0.0.0.0
RECORDS_PORT: "8002"
RECORDS_DRAIN_S: "0"
RECORDS_JWKS_URL: {{ include "healthguard.jwksURL" . }}
{{- if .Values.internalTLS.enabled }}
RECORDS_TLS_CERT_FILE: /etc/healthguard/tls/tls.crt
RECORDS_TLS_KEY_FILE: /etc/healthguard/tls/tls.key
RECORDS_UPSTREAM_CA_FILE: /etc/healthguard/tls/ca.crt
RECORDS_TLS_CLIENT_CA_FILE: /etc/healthguard/tls/ca.crt
RECORDS_GATEWAY_NAME: {{ include "healthguard.gatewayName" . }}
{{- end }}
{{- include "healthguard.environment" (list "RECORDS" .Values.records.settings) }}
{{- end }}

{{- define "healthguard.gateway.settings" -}}
GATEWAY_HOST: 0.0.0.0
GATEWAY_PORT: "8004"
GATEWAY_DRAIN_S: "0"
GATEWAY_AUTH_URL: {{ include "healthguard.authURL" . }}
GATEWAY_JWKS_URL: {{ include "healthguard.jwksURL" . }}
GATEWAY_RECORDS_URL: {{ include "healthguard.internalScheme" . }}://{{ include "healthguard.name" (list . "records") }}:8002
GATEWAY_DISCOVERY: {{ .Values.gateway.discovery }}
{{- if eq .Values.gateway.discovery "kubernetes" }}
GATEWAY_KUBERNETES_NAMESPACE: {{ .Release.Namespace }}
{{- else }}
GATEWAY_MODELS_FILE: /etc/healthguard/models/models.json
{{- end }}
{{- if .Values.internalTLS.enabled }}
GATEWAY_UPSTREAM_CA_FILE: /etc/healthguard/tls/ca.crt
GATEWAY_MODELS_CA_FILE: /etc/healthguard/tls/ca.crt
GATEWAY_MODELS_SERVER_NAME: {{ include "healthguard.modelsName" . }}
GATEWAY_MODELS_CERT_FILE: /etc/healthguard/tls/tls.crt
GATEWAY_MODELS_KEY_FILE: /etc/healthguard/tls/tls.key
GATEWAY_UPSTREAM_CERT_FILE: /etc/healthguard/tls/tls.crt
GATEWAY_UPSTREAM_KEY_FILE: /etc/healthguard/tls/tls.key
{{- if .Values.internalTLS.door }}
GATEWAY_TLS_CERT_FILE: /etc/healthguard/tls/tls.crt
GATEWAY_TLS_KEY_FILE: /etc/healthguard/tls/tls.key
{{- end }}
{{- end }}
{{- include "healthguard.environment" (list "GATEWAY" .Values.gateway.settings) }}
{{- end }}

{{- define "healthguard.operator.settings" -}}
OPERATOR_HOST: 0.0.0.0
OPERATOR_PORT: "8080"
OPERATOR_DRAIN_S: "0"
OPERATOR_NAMESPACES: {{ .Values.operator.clusterWide | ternary (list) (list .Release.Namespace) | toJson | quote }}
OPERATOR_SEE_DEVICES: {{ .Values.operator.seeDevices | quote }}
OPERATOR_IMAGE: {{ include "healthguard.image" (list . "operator") }}
OPERATOR_MODELSERVER_IMAGE: {{ include "healthguard.image" (list . "modelserver") }}
OPERATOR_TENSORFLOW_SERVING_IMAGE: {{ include "healthguard.image" (list . "tensorflowServing") }}
OPERATOR_TENSORFLOW_SERVING_GPU_IMAGE: {{ include "healthguard.image" (list . "tensorflowServingGpu") }}
OPERATOR_IMAGE_PULL_POLICY: {{ .Values.images.pullPolicy }}
OPERATOR_IMAGE_PULL_SECRETS: {{ include "healthguard.pullSecretNames" . | quote }}
OPERATOR_GATEWAY_SERVICE: {{ include "healthguard.name" (list . "gateway") }}
{{- if include "healthguard.door" . }}
OPERATOR_GATEWAY_CA_FILE: /etc/healthguard/models-tls/ca.crt
{{- end }}
OPERATOR_METRICS_PROVIDER: {{ .Values.autoscaling.provider }}
{{- if eq .Values.autoscaling.provider "builtin" }}
OPERATOR_METRICS_SERVICE: {{ include "healthguard.name" (list . "operator-metrics") }}
OPERATOR_METRICS_PORT: "8443"
OPERATOR_OWN_NAMESPACE: {{ .Release.Namespace }}
{{- end }}
{{- if eq .Values.autoscaling.provider "keda" }}
OPERATOR_PROMETHEUS_URL: {{ .Values.autoscaling.prometheusURL }}
{{- end }}
OPERATOR_GATEWAY_LABELS: {{ include "healthguard.selector" (list . "gateway") | fromYaml | toJson | quote }}
OPERATOR_DNS_PORTS: {{ .Values.networkPolicies.dns.ports | toJson | quote }}
{{- with .Values.networkPolicies.monitoringNamespaceSelector.matchLabels }}
OPERATOR_SCRAPER_LABELS: {{ toJson . | quote }}
{{- end }}
{{- if .Values.internalTLS.enabled }}
OPERATOR_MODEL_TLS_SECRET: {{ include "healthguard.tlsSecret" (list . "models") }}
OPERATOR_MODEL_TLS_NAME: {{ include "healthguard.modelsName" . }}
OPERATOR_MODEL_TLS_CERT_FILE: /etc/healthguard/models-tls/tls.crt
{{- end }}
{{- include "healthguard.environment" (list "OPERATOR" .Values.operator.settings) }}
{{- end }}

{{/* The gateway's list of models: each that is enabled, and where its stable version answers. */}}
{{- define "healthguard.models" -}}
{{- $models := list -}}
{{- range $name, $model := .Values.models -}}
{{- if dig "enabled" true $model -}}
{{- $stable := int $model.spec.traffic.stable -}}
{{- $host := printf "model-%s-v%d.%s.svc" $name $stable $.Release.Namespace -}}
{{- $models = append $models (dict "name" $name "stable" $stable "endpoints" (list (printf "%s:8500" $host))) -}}
{{- end -}}
{{- end -}}
{{- dict "models" $models | toJson -}}
{{- end }}
