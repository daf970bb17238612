{{/* What the schema cannot say: each failure names the value. */}}
{{- define "healthguard.check" -}}
{{- range $service := list "auth" "records" -}}
{{- $values := index $.Values $service -}}
{{- if and (eq $.Values.database.mode "external") (not $values.database.existingSecret) -}}
{{- fail (printf "%s.database.existingSecret: database.mode is external, so name the Secret that holds the address" $service) -}}
{{- end -}}
{{- end -}}
{{- range $service := list "gateway" "auth" "records" -}}
{{- if and (not $.Values.secrets.create) (not (index $.Values $service).existingSecret) -}}
{{- fail (printf "%s.existingSecret: secrets.create is off, so name the Secret" $service) -}}
{{- end -}}
{{- end -}}
{{- range $service := list "gateway" "auth" "records" -}}
{{- $autoscaling := (index $.Values $service).autoscaling -}}
{{- if and $autoscaling.enabled (gt (int $autoscaling.minReplicas) (int $autoscaling.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling.minReplicas: it is more than maxReplicas" $service) -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.autoscaling.provider "keda") (not .Values.autoscaling.prometheusURL) -}}
{{- fail "autoscaling.prometheusURL: the provider is keda, so say where it asks Prometheus" -}}
{{- end -}}
{{- if eq .Values.autoscaling.provider "builtin" -}}
{{- /* Empty where Helm only renders. */ -}}
{{- $there := lookup "apiregistration.k8s.io/v1" "APIService" "" "v1beta1.external.metrics.k8s.io" -}}
{{- $ours := printf "%s/%s" .Release.Namespace (include "healthguard.name" (list . "operator-metrics")) -}}
{{- with ($there.spec).service -}}
{{- if ne (printf "%s/%s" .namespace .name) $ours -}}
{{- fail (printf "autoscaling.provider: the external metrics API of this cluster is %s/%s's; set keda, prometheus-adapter or none" .namespace .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if ne (empty .Values.gateway.existingSecret) (empty .Values.records.existingSecret) -}}
{{- fail "records.existingSecret: it and gateway.existingSecret share a secret, so name both or none" -}}
{{- end -}}
{{- if and (not .Values.secrets.create) (ne .Values.database.mode "external") -}}
{{- fail "secrets.create: only with database.mode external can it be off" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: name the Gateway that the route joins" -}}
{{- end -}}
{{- if and .Values.grpcRoute.enabled (not .Values.grpcRoute.parentRefs) -}}
{{- fail "grpcRoute.parentRefs: name the Gateway that the route joins" -}}
{{- end -}}
{{- if and .Values.grpcRoute.enabled (not .Values.gateway.settings.grpc_port) -}}
{{- fail "grpcRoute.enabled: it needs gateway.settings.grpc_port, where it leads" -}}
{{- end -}}
{{- if and .Values.ingress.grpc.enabled (not .Values.gateway.settings.grpc_port) -}}
{{- fail "ingress.grpc.enabled: it needs gateway.settings.grpc_port, where it leads" -}}
{{- end -}}
{{- if and .Values.grpcRoute.enabled .Values.httpRoute.enabled (deepEqual .Values.grpcRoute.parentRefs .Values.httpRoute.parentRefs) -}}
{{- range $host := .Values.grpcRoute.hostnames | default (list "") -}}
{{- if or (not $host) (not $.Values.httpRoute.hostnames) (has $host $.Values.httpRoute.hostnames) -}}
{{- fail "grpcRoute.hostnames: name hosts that httpRoute.hostnames has not; a listener takes a host for one kind of route" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.internalTLS -}}
{{- if and .enabled (eq .source "cert-manager") (not .certManager.issuerRef.name) -}}
{{- fail "internalTLS.certManager.issuerRef.name: name the issuer" -}}
{{- end -}}
{{- if and .enabled (eq .source "existing") -}}
{{- range $holder, $_ := include "healthguard.certificates" $ | fromJson -}}
{{- if not (index $.Values.internalTLS.existing $holder) -}}
{{- fail (printf "internalTLS.existing.%s: name the Secret with its certificate" $holder) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .door (not .enabled) -}}
{{- fail "internalTLS.door: it needs internalTLS.enabled, where the certificates come from" -}}
{{- end -}}
{{- end -}}
{{- range $name, $model := .Values.models -}}
{{- $numbers := list -}}
{{- range $model.spec.versions -}}{{- $numbers = append $numbers (int .version) -}}{{- end -}}
{{- if and (dig "enabled" true $model) (not (has (int $model.spec.traffic.stable) $numbers)) -}}
{{- fail (printf "models.%s.spec.traffic.stable: it is none of the versions" $name) -}}
{{- end -}}
{{- end -}}
{{- end }}
