{{/* What Pod Security `restricted` asks of a pod; 10001 is the user of our images. */}}
{{- define "healthguard.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What it asks of a container, and a root file system that nobody writes to. */}}
{{- define "healthguard.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Pods of a component stand on different nodes and in different zones, where there are such. (list $ "gateway") */}}
{{- define "healthguard.spread" -}}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "healthguard.selector" $ | nindent 6 }}
{{- end }}
{{- end }}

{{/* Where a component's pods may stand, and who goes first: (list $ "gateway"). */}}
{{- define "healthguard.placement" -}}
{{- $root := index . 0 -}}
{{- $values := index $root.Values (index . 1) -}}
{{- $class := $values.priorityClassName -}}
{{- if and $root.Values.priorityClasses.create (not $class) (ne (index . 1) "operator") }}
{{- $class = include "healthguard.priorityClass" $root }}
{{- end }}
{{- with $class }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The labels of a component's pods: (list $ "gateway"). What the user adds cannot change what selects them. */}}
{{- define "healthguard.podLabels" -}}
{{- $values := index (index . 0).Values (index . 1) -}}
{{- merge (include "healthguard.labels" . | fromYaml) $values.podLabels | toYaml -}}
{{- end }}

{{/* Settings as environment variables, each under the name that the service reads: (list "GATEWAY" settings). */}}
{{- define "healthguard.environment" -}}
{{- $prefix := index . 0 -}}
{{- range $name, $value := index . 1 }}
{{- if not (kindIs "invalid" $value) }}
{{ $prefix }}_{{ $name | upper }}: {{ kindIs "string" $value | ternary $value ($value | toJson) | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* A container of an HTTP service's probes: (list "http" "HTTP"). */}}
{{- define "healthguard.probes" -}}
{{- $port := index . 0 -}}
{{- $scheme := index . 1 -}}
# Half a minute to start, asked often, so that a pod that takes two seconds is ready after two.
startupProbe:
  httpGet: {path: /livez, port: {{ $port }}, scheme: {{ $scheme }}}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /readyz, port: {{ $port }}, scheme: {{ $scheme }}}
  periodSeconds: 3
  timeoutSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /livez, port: {{ $port }}, scheme: {{ $scheme }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}
