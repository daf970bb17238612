{{/* Auth, records and gateway look the same to Kubernetes; what differs is given by name.

     root, component, port: as they say; tls: whether it listens with TLS; api: whether it speaks to the API server;
     env: more environment variables; init: init containers; mounts, volumes: more of these. */}}
{{- define "healthguard.deployment" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- $values := index $root.Values $component -}}
{{- $name := include "healthguard.name" (list $root $component) -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "healthguard.metadata" (list $root $component $name nil) | nindent 2 }}
spec:
  {{- if not $values.autoscaling.enabled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  selector:
    matchLabels:
      {{- include "healthguard.selector" (list $root $component) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "healthguard.podLabels" (list $root $component) | nindent 8 }}
      annotations:
        # Settings are read once, at the start: changed settings mean new pods.
        checksum/settings: {{ .settings | toJson | sha256sum }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ $name }}
      automountServiceAccountToken: {{ .api | default false }}
      enableServiceLinks: false
      # Five seconds before the signal, the rest to finish what is in flight.
      terminationGracePeriodSeconds: {{ add 10 (int $values.settings.shutdown_s) }}
      {{- include "healthguard.pullSecrets" $root | nindent 6 }}
      {{- include "healthguard.placement" (list $root $component) | nindent 6 }}
      securityContext:
        {{- include "healthguard.podSecurity" $root | nindent 8 }}
      topologySpreadConstraints:
        {{- include "healthguard.spread" (list $root $component) | nindent 8 }}
      {{- with .init }}
      initContainers:
        {{- . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ $component }}
          image: {{ include "healthguard.image" (list $root $component) }}
          imagePullPolicy: {{ $root.Values.images.pullPolicy }}
          envFrom:
            - configMapRef: {name: {{ $name }}}
          {{- with .env }}
          env:
            {{- . | nindent 12 }}
          {{- end }}
          ports:
            - {name: http, containerPort: {{ .port }}}
            {{- with $values.settings.grpc_port }}
            - {name: grpc, containerPort: {{ . }}}
            {{- end }}
          # Endpoints and load balancers learn that the pod leaves before it is told to.
          lifecycle: {preStop: {sleep: {seconds: 5}}}
          {{- include "healthguard.probes" (list "http" (.tls | ternary "HTTPS" "HTTP")) | nindent 10 }}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            {{- include "healthguard.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- with .mounts }}
            {{- . | nindent 12 }}
            {{- end }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
        {{- with .volumes }}
        {{- . | nindent 8 }}
        {{- end }}
{{- end }}

{{/* A component's settings: root, component, settings (a dict of strings). */}}
{{- define "healthguard.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "healthguard.metadata" (list .root .component (include "healthguard.name" (list .root .component)) nil) | nindent 2 }}
data:
  {{- .settings | toYaml | nindent 2 }}
{{- end }}

{{/* A component's account, of which its pods have no token, but where they speak to the API server: (list $ "gateway"). */}}
{{- define "healthguard.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "healthguard.metadata" (list (index . 0) (index . 1) (include "healthguard.name" .) nil) | nindent 2 }}
automountServiceAccountToken: false
{{- end }}

{{/* Inside the release: (list $ "auth" 8000). */}}
{{- define "healthguard.service" -}}
{{- $of := list (index . 0) (index . 1) -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "healthguard.metadata" (list (index . 0) (index . 1) (include "healthguard.name" $of) nil) | nindent 2 }}
spec:
  selector:
    {{- include "healthguard.selector" $of | nindent 4 }}
  ports:
    - {name: http, port: {{ index . 2 }}, targetPort: http, protocol: TCP}
{{- end }}

{{/* (list $ "gateway") */}}
{{- define "healthguard.horizontalPodAutoscaler" -}}
{{- $root := index . 0 -}}
{{- $autoscaling := (index $root.Values (index . 1)).autoscaling -}}
{{- if $autoscaling.enabled -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "healthguard.metadata" (list $root (index . 1) (include "healthguard.name" .) nil) | nindent 2 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ include "healthguard.name" . }}}
  minReplicas: {{ $autoscaling.minReplicas }}
  maxReplicas: {{ $autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ $autoscaling.targetCPUPercent }}}
  behavior:
    # Up at once, down slowly: a lull of a minute is not the end of a clinic's day.
    scaleUp: {stabilizationWindowSeconds: 0}
    scaleDown: {stabilizationWindowSeconds: 300}
{{- end }}
{{- end }}

{{/* (list $ "gateway") */}}
{{- define "healthguard.podDisruptionBudget" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.podDisruptionBudgets.enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "healthguard.metadata" (list $root (index . 1) (include "healthguard.name" .) nil) | nindent 2 }}
spec:
  maxUnavailable: 1
  # A pod that never gets ready must not keep its node from being emptied.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "healthguard.selector" . | nindent 6 }}
{{- end }}
{{- end }}
