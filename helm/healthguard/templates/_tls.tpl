{{/* Who has a certificate of the internal authority, as JSON: name → DNS names, and whether it shows it to others as a
     client too. Model servers are one name: they come and go with versions, and what they hold is proved otherwise. */}}
{{- define "healthguard.certificates" -}}
{{- $found := dict -}}
{{- $services := list "auth" "records" "gateway" -}}
{{- if include "healthguard.postgresqlTLS" . -}}{{- $services = append $services "postgresql" -}}{{- end -}}
{{- range $service := $services -}}
{{- $names := include "healthguard.tlsNames" (list $ $service) | fromJsonArray -}}
{{- $_ := set $found $service (dict "names" $names "client" (eq $service "gateway")) -}}
{{- end -}}
{{- $_ := set $found "models" (dict "names" (list (include "healthguard.modelsName" .)) "client" true) -}}
{{- $found | toJson -}}
{{- end }}

{{/* Whether the PostgreSQL of this release speaks TLS, and nothing else. */}}
{{- define "healthguard.postgresqlTLS" -}}
{{- if and (eq .Values.database.mode "evaluation") .Values.internalTLS.enabled .Values.internalTLS.postgresql }}yes{{ end -}}
{{- end }}

{{/* The name in the certificate of every model server. */}}
{{- define "healthguard.modelsName" -}}
{{- printf "%s.%s.svc" (include "healthguard.name" (list . "models")) .Release.Namespace -}}
{{- end }}

{{/* The name in the gateway's certificate by which records knows it. */}}
{{- define "healthguard.gatewayName" -}}
{{- printf "%s.%s.svc" (include "healthguard.name" (list . "gateway")) .Release.Namespace -}}
{{- end }}

{{/* The Secret with a certificate: (list $ "auth"). */}}
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
  secret: {secretName: {{ include "healthguard.tlsSecret" . }}, defaultMode: 0440}
{{- end }}

{{/* The names under which a service is called, as a JSON list: (list $ "auth"). */}}
{{- define "healthguard.tlsNames" -}}
{{- $name := include "healthguard.name" . -}}
{{- $namespace := (index . 0).Release.Namespace -}}
{{- list $name (printf "%s.%s" $name $namespace) (printf "%s.%s.svc" $name $namespace) | toJson -}}
{{- end }}

{{/* The Secret that says who PostgreSQL may be; nothing where nobody says it. */}}
{{- define "healthguard.databaseAuthority" -}}
{{- if eq .Values.database.mode "external" -}}
{{ .Values.database.external.authority.existingSecret }}
{{- else if eq .Values.database.mode "cloudnativepg" -}}
{{ include "healthguard.name" (list . "postgresql") }}-ca
{{- else if include "healthguard.postgresqlTLS" . -}}
{{ include "healthguard.tlsSecret" (list . "postgresql") }}
{{- end -}}
{{- end }}

{{- define "healthguard.databaseMount" -}}
{{- if include "healthguard.databaseAuthority" . }}
- {name: database-authority, mountPath: /etc/healthguard/database, readOnly: true}
{{- end }}
{{- end }}

{{- define "healthguard.databaseVolume" -}}
{{- with include "healthguard.databaseAuthority" . }}
- name: database-authority
  # Of the Secret only the authority: the key is the database's.
  secret: {secretName: {{ . }}, items: [{key: {{ eq $.Values.database.mode "external" | ternary $.Values.database.external.authority.key "ca.crt" }}, path: ca.crt}]}
{{- end }}
{{- end }}
