{{/* What the secrets hook is to make, as healthguard/install/plan.py reads it; no secret is in it. */}}
{{- define "healthguard.secretsPlan" -}}
{{- $secrets := dict -}}
{{- $keys := dict
  "gateway" (dict "image-hmac-key" "make:key" "records-secret" "make:password")
  "auth" (dict "key-encryption-key" "make:key")
  "records" (dict "pseudonym-key" "make:key") -}}
{{- if .Values.secrets.create -}}
{{- range $service, $data := $keys -}}
{{- if not (index $.Values $service).existingSecret -}}
{{- $_ := set $secrets (include "healthguard.name" (list $ $service)) (dict "data" $data) -}}
{{- end -}}
{{- end -}}
{{- if not .Values.records.existingSecret -}}
{{- $copy := printf "${%s/records-secret}" (include "healthguard.name" (list . "gateway")) -}}
{{- $_ := set (index $keys "records") "gateway-secret" $copy -}}
{{- end -}}
{{- end -}}
{{- $database := include "healthguard.name" (list . "postgresql") -}}
{{- $host := include "healthguard.databaseHost" . -}}
{{- if ne .Values.database.mode "external" -}}
{{- $evaluation := eq .Values.database.mode "evaluation" -}}
{{- $options := $evaluation | ternary "" "?sslmode=verify-full" -}}
{{- range $service := list "auth" "records" -}}
{{- $password := printf "${%s/%s-password}" $database $service -}}
{{- if not $evaluation -}}
{{- $password = printf "${%s-%s/password}" $database $service -}}
{{- $_ := set $secrets (printf "%s-%s" $database $service) (dict "type" "kubernetes.io/basic-auth" "data" (dict "username" $service "password" "make:password")) -}}
{{- end -}}
{{- $dsn := printf "postgresql://%s:%s@%s:5432/%s%s" $service $password $host $service $options -}}
{{- $_ := set $secrets (include "healthguard.name" (list $ (printf "%s-database" $service))) (dict "data" (dict "dsn" $dsn)) -}}
{{- end -}}
{{- if $evaluation -}}
{{- $_ := set $secrets $database (dict "data" (dict "superuser-password" "make:password" "auth-password" "make:password" "records-password" "make:password")) -}}
{{- end -}}
{{- end -}}
{{- $plan := dict
  "namespace" .Release.Namespace
  "labels" (merge (include "healthguard.selector" (list . "secrets") | fromYaml) (dict "app.kubernetes.io/managed-by" "healthguard-install"))
  "secrets" $secrets -}}
{{- /* Without which of them the data cannot be read, or reached: the addresses keep the passwords that they were made with. */ -}}
{{- $locks := list -}}
{{- range $name := list $database (printf "%s-auth" $database) (printf "%s-records" $database) -}}
{{- $locks = hasKey $secrets $name | ternary (append $locks $name) $locks -}}
{{- end -}}
{{- $keptKeys := list -}}
{{- range $service := list "auth" "records" -}}
{{- $name := include "healthguard.name" (list $ $service) -}}
{{- $keptKeys = hasKey $secrets $name | ternary (append $keptKeys $name) $keptKeys -}}
{{- end -}}
{{- $locks = concat $locks $keptKeys -}}
{{- $claims := dict -}}
{{- if eq .Values.database.mode "evaluation" -}}
{{- $_ := set $claims (printf "data-%s-0" $database) $locks -}}
{{- else if eq .Values.database.mode "cloudnativepg" -}}
{{- range $number := untilStep 1 (add1 (int .Values.database.cloudnativepg.instances) | int) 1 -}}
{{- $_ := set $claims (printf "%s-%d" $database $number) $locks -}}
{{- end -}}
{{- end -}}
{{- if $claims -}}{{- $_ := set $plan "claims" $claims -}}{{- end -}}
{{- /* Where no claim tells that there is data, or its number may have moved on, an upgrade does. Of the keys alone: the
     passwords of a database are new where an upgrade changes its mode. */ -}}
{{- if and .Release.IsUpgrade $keptKeys (ne .Values.database.mode "evaluation") -}}
{{- $_ := set $plan "made_before" $keptKeys -}}
{{- end -}}
{{- if and .Values.internalTLS.enabled (eq .Values.internalTLS.source "hook") -}}
{{- $_ := set $plan "authority" (include "healthguard.name" (list . "ca")) -}}
{{- $certificates := dict -}}
{{- range $holder, $wanted := include "healthguard.certificates" . | fromJson -}}
{{- $_ := set $certificates (include "healthguard.tlsSecret" (list $ $holder)) $wanted -}}
{{- end -}}
{{- $_ := set $plan "certificates" $certificates -}}
{{- end -}}
{{- $plan | toJson -}}
{{- end }}
