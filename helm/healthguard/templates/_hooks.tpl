{{/* The annotations of a hook: (list "pre-install,pre-upgrade" -20). What a hook made goes when it has done its work;
     a failed one stays, to be looked at, until the next try. */}}
{{- define "healthguard.hook" -}}
helm.sh/hook: {{ index . 0 }}
helm.sh/hook-weight: {{ index . 1 | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* The account and rights of a hook's Job: root, component, events, weight, cluster (whether the rights are on objects
     of the whole cluster), rules. */}}
{{- define "healthguard.hookAccount" -}}
{{- $root := .root -}}
{{- $name := include "healthguard.name" (list $root .component) -}}
{{- $annotations := include "healthguard.hook" (list .events .weight) | fromYaml -}}
{{- $metadata := include "healthguard.metadata" (list $root .component $name $annotations) -}}
{{- $clusterName := .cluster | ternary (printf "%s-%s" $root.Release.Namespace $name) $name -}}
{{- $clusterMetadata := include "healthguard.metadata" (list $root .component $clusterName $annotations) -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- $metadata | nindent 2 }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .cluster | ternary "ClusterRole" "Role" }}
metadata:
  {{- $clusterMetadata | nindent 2 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .cluster | ternary "ClusterRoleBinding" "RoleBinding" }}
metadata:
  {{- $clusterMetadata | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: {{ .cluster | ternary "ClusterRole" "Role" }}, name: {{ $clusterName }}}
subjects:
  - {kind: ServiceAccount, name: {{ $name }}, namespace: {{ $root.Release.Namespace }}}
{{- end }}

{{/* A hook's Job: root, component, events, weight, image, container (command, args, env), api (whether it speaks to the
     API server), mounts, volumes, init. */}}
{{- define "healthguard.hookJob" -}}
{{- $root := .root -}}
{{- $name := include "healthguard.name" (list $root .component) -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "healthguard.metadata" (list $root .component $name (include "healthguard.hook" (list .events .weight) | fromYaml)) | nindent 2 }}
spec:
  backoffLimit: 6
  activeDeadlineSeconds: {{ $root.Values.hooks.activeDeadlineSeconds }}
  template:
    metadata:
      labels:
        {{- include "healthguard.labels" (list $root .component) | nindent 8 }}
    spec:
      restartPolicy: OnFailure
      {{- if .api }}
      serviceAccountName: {{ $name }}
      {{- end }}
      automountServiceAccountToken: {{ .api | default false }}
      enableServiceLinks: false
      {{- include "healthguard.pullSecrets" $root | nindent 6 }}
      securityContext:
        {{- include "healthguard.podSecurity" $root | nindent 8 }}
      containers:
        {{- .container | nindent 8 }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
        {{- with .volumes }}
        {{- . | nindent 8 }}
        {{- end }}
{{- end }}

{{/* A container that runs `python -m healthguard.install`: root, args (YAML list), env (YAML), mounts (YAML). */}}
{{- define "healthguard.installContainer" -}}
- name: {{ .name }}
  # Every image of ours has it; auth is the smallest.
  image: {{ include "healthguard.image" (list .root "auth") }}
  imagePullPolicy: {{ .root.Values.images.pullPolicy }}
  command: [python, -m, healthguard.install]
  args: {{ .args | toJson }}
  {{- with .env }}
  env:
    {{- . | nindent 4 }}
  {{- end }}
  terminationMessagePolicy: FallbackToLogsOnError
  resources:
    {{- toYaml .root.Values.hooks.resources | nindent 4 }}
  securityContext:
    {{- include "healthguard.containerSecurity" .root | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- with .mounts }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}
