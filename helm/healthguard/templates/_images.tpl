{{/* The one way to an image: (list $ "gateway"). A digest wins over a tag; global.imageRegistry over every registry. */}}
{{- define "healthguard.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{- $registry := $root.Values.global.imageRegistry | default $image.registry -}}
{{- $name := empty $registry | ternary $image.repository (printf "%s/%s" $registry $image.repository) -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $name $image.digest }}
{{- else -}}
{{ printf "%s:%s" $name ($image.tag | default $root.Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{/* The names of the pull secrets, as a JSON list. */}}
{{- define "healthguard.pullSecretNames" -}}
{{- $names := list -}}
{{- range concat (.Values.global.imagePullSecrets | default list) .Values.images.pullSecrets -}}
{{- $names = append $names (kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") .) -}}
{{- end -}}
{{- $names | uniq | toJson -}}
{{- end }}

{{/* The pull secrets of a pod; nothing where there are none. */}}
{{- define "healthguard.pullSecrets" -}}
{{- with include "healthguard.pullSecretNames" . | fromJsonArray }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
