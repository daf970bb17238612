{{/* A policy of one component: root, component, ingress (YAML list), egress (YAML list). What it does not name is denied. */}}
{{- define "healthguard.networkPolicy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "healthguard.metadata" (list .root .component (include "healthguard.name" (list .root .component)) nil) | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "healthguard.selector" (list .root .component) | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- with .ingress }}
  ingress:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with .egress }}
  egress:
    {{- . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* From or to pods of components, at a port: (list $ "from" 8000 "gateway" "records"). */}}
{{- define "healthguard.edge" -}}
{{- $root := index . 0 -}}
- {{ index . 1 }}:
    {{- range slice . 3 }}
    - podSelector:
        matchLabels:
          {{- include "healthguard.selector" (list $root .) | nindent 10 }}
    {{- end }}
  ports: [{port: {{ index . 2 }}, protocol: TCP}]
{{- end }}

{{/* Names are asked for wherever the cluster answers for them. */}}
{{- define "healthguard.edge.dns" -}}
- ports:
    {{- range .Values.networkPolicies.dns.ports }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}

{{/* To addresses outside of the cluster's pods: a value with ports and cidrs; no cidrs: anywhere. */}}
{{- define "healthguard.edge.outside" -}}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .cidrs }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  {{- end }}
{{- end }}

{{/* From the API server, at a port: (list $ 8443). Without its addresses anybody may knock; it lets nobody else in. */}}
{{- define "healthguard.edge.fromAPIServer" -}}
- ports: [{port: {{ index . 1 }}, protocol: TCP}]
  {{- with (index . 0).Values.networkPolicies.apiServer.cidrs }}
  from:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  {{- end }}
{{- end }}

{{/* From the pods that read metrics, at a port; nothing where nobody may: (list $ 8000). */}}
{{- define "healthguard.edge.monitoring" -}}
{{- with (index . 0).Values.networkPolicies.monitoringNamespaceSelector -}}
- from:
    - namespaceSelector: {{ toJson . }}
  ports: [{port: {{ index $ 1 }}, protocol: TCP}]
{{- end }}
{{- end }}

{{/* To the database: (list $ "auth"). */}}
{{- define "healthguard.edge.database" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.database.mode "external" -}}
{{ include "healthguard.edge.outside" $root.Values.networkPolicies.database }}
{{- else if eq $root.Values.database.mode "cloudnativepg" -}}
{{- /* Its pods are its operator's, and so are their policies. */ -}}
- to: [{podSelector: {matchLabels: {cnpg.io/cluster: {{ include "healthguard.name" (list $root "postgresql") }}}}}]
  ports: [{port: 5432, protocol: TCP}]
{{- else -}}
{{ include "healthguard.edge" (list $root "to" 5432 "postgresql") }}
{{- end }}
{{- end }}

{{/* To where a service's traces go, if they go anywhere: (list $ "auth"). */}}
{{- define "healthguard.edge.otlp" -}}
{{- $root := index . 0 -}}
{{- if (index $root.Values (index . 1)).settings.otlp_endpoint -}}
{{ include "healthguard.edge.outside" $root.Values.networkPolicies.otlp }}
{{- end }}
{{- end }}

{{/* YAML lists, one after the other; empty ones leave no line. */}}
{{- define "healthguard.edges" -}}
{{- $found := list -}}
{{- range . }}{{- if trim . }}{{- $found = append $found (trim .) }}{{- end }}{{- end -}}
{{- join "\n" $found -}}
{{- end }}
