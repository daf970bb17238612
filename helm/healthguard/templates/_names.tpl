{{/* The beginning of every object's name: the release's, unless fullnameOverride says another. */}}
{{- define "healthguard.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* The name of a component's objects. Call with (list $ "gateway"). */}}
{{- define "healthguard.name" -}}
{{- printf "%s-%s" (include "healthguard.fullname" (index . 0)) (index . 1) -}}
{{- end }}

{{/* The labels by which a component's pods are selected; they never change. Call with (list $ "gateway"). */}}
{{- define "healthguard.selector" -}}
app.kubernetes.io/name: healthguard
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* All labels of a component's objects. Call with (list $ "gateway"). */}}
{{- define "healthguard.labels" -}}
{{- $root := index . 0 -}}
{{ include "healthguard.selector" . }}
app.kubernetes.io/part-of: healthguard
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The metadata of an object: (list $ "component" "name" annotations-or-nil). */}}
{{- define "healthguard.metadata" -}}
{{- $root := index . 0 -}}
{{- $annotations := merge (dict) (index . 3 | default dict) $root.Values.commonAnnotations -}}
name: {{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "healthguard.labels" (list $root (index . 1)) | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The name of the PriorityClass. It is the cluster's, so the namespace is in it: two releases of one name share none. */}}
{{- define "healthguard.priorityClass" -}}
{{- printf "%s-%s" .Release.Namespace (include "healthguard.name" (list . "serving")) -}}
{{- end }}

{{/* The name of a Secret: the user's, or the one that the hook makes. Call with (list $ "auth"). */}}
{{- define "healthguard.secretName" -}}
{{- $given := (index (index . 0).Values (index . 1)).existingSecret -}}
{{- $given | default (include "healthguard.name" .) -}}
{{- end }}

{{/* The name of the host at which the database of the release answers. */}}
{{- define "healthguard.databaseHost" -}}
{{- $name := include "healthguard.name" (list . "postgresql") -}}
{{- if eq .Values.database.mode "cloudnativepg" }}{{ $name }}-rw{{ else }}{{ $name }}{{ end -}}
{{- end }}
