{{/* A service's environment variable with the address of its database: (list $ "auth" "AUTH_DSN"). */}}
{{- define "healthguard.dsn" -}}
{{- $root := index . 0 -}}
{{- $service := index . 1 -}}
{{- $given := (index $root.Values $service).database -}}
{{- $external := eq $root.Values.database.mode "external" -}}
- name: {{ index . 2 }}
  valueFrom:
    secretKeyRef:
      name: {{ $external | ternary $given.existingSecret (include "healthguard.name" (list $root (printf "%s-database" $service))) }}
      key: {{ $external | ternary $given.key "dsn" }}
{{- if include "healthguard.databaseAuthority" $root }}
# What the address does not say itself; the driver reads these as libpq does. Of a database of one's own a production
# assumes the strictest: without it an address that says nothing would be content with any server, and with none of TLS.
{{- if or (not $external) (eq $root.Values.profile "production") }}
- {name: PGSSLMODE, value: verify-full}
{{- end }}
- {name: PGSSLROOTCERT, value: /etc/healthguard/database/ca.crt}
{{- end }}
{{- end }}

{{/* A container that brings a service's database to the newest schema: (list $ "auth" "AUTH_DSN"). It is safe to run
     twice, and from several places at once. */}}
{{- define "healthguard.migration" -}}
{{- $root := index . 0 -}}
{{- $service := index . 1 -}}
- name: migrate
  image: {{ include "healthguard.image" (list $root $service) }}
  imagePullPolicy: {{ $root.Values.images.pullPolicy }}
  command: [healthguard, {{ $service }}, migrate]
  env:
    {{- include "healthguard.dsn" . | nindent 4 }}
  resources:
    {{- toYaml $root.Values.hooks.resources | nindent 4 }}
  securityContext:
    {{- include "healthguard.containerSecurity" $root | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- with include "healthguard.databaseMount" $root | trim }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}
