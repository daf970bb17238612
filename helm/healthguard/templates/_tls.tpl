{{/* The Secret with a service's certificate: (list $ "auth"). */}}
{{- define "healthguard.tlsSecret" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.internalTLS.source "existing" -}}
{{ index $root.Values.internalTLS.existing (index . 1) }}
{{- else -}}
{{ include "healthguard.name" (list $root (printf "%s-tls" (index . 1))) }}
{{- end -}}
{{- end }}

{{- define "healthguard.tlsMount" -}}
- {name: tls, mountPath: /etc/healthguard/tls, readOnly: true}
{{- end }}

{{- define "healthguard.tlsVolume" -}}
- name: tls
  secret: {secretName: {{ include "healthguard.tlsSecret" . }}}
{{- end }}

{{/* The names under which a service is called, as a JSON list: (list $ "auth"). */}}
{{- define "healthguard.tlsNames" -}}
{{- $name := include "healthguard.name" . -}}
{{- $namespace := (index . 0).Release.Namespace -}}
{{- list $name (printf "%s.%s" $name $namespace) (printf "%s.%s.svc" $name $namespace) | toJson -}}
{{- end }}
