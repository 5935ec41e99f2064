{{/* Liveness is no readiness: only a process that cannot recover is restarted, and a store that is away restarts none. */}}
{{- define "apikeyd.probes" -}}
{{- $tls := ne .Values.tls.existingSecret "" }}
{{- /* The kubelet asks gRPC without TLS only, and has no certificate to show: then METRICS_ADDR tells, which has none. */}}
{{- $live := ternary "httpGet: { path: /healthz, port: metrics }" "grpc: { port: 50051, service: liveness }" $tls }}
livenessProbe:
  {{ $live }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  {{ ternary "httpGet: { path: /readyz, port: metrics }" "grpc: { port: 50051 }" $tls }}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 2
startupProbe:
  {{ $live }}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 150
{{- end -}}

{{- define "apikeyd.env" -}}
{{- $embedded := eq .Values.store.kind "embedded" }}
- { name: GRPC_ADDR, value: "0.0.0.0:50051" }
- { name: HTTP_ADDR, value: "0.0.0.0:8080" }
- { name: METRICS_ADDR, value: "0.0.0.0:9464" }
- { name: LOG_FORMAT, value: json }
- { name: APIKEYD_KEY_FILE, value: /data/admin.key }
{{- if $embedded }}
- { name: STORE_URL, value: "sqlite:/data/apikeyd.db" }
{{- else }}
{{ include "apikeyd.secretEnv" (dict "name" "STORE_URL" "from" .Values.store.mongodb) }}
{{- end }}
- { name: AUDIT_ANCHOR_FILE, value: {{ ternary "/anchor/apikeyd.anchor" "off" (and $embedded .Values.store.embedded.anchor.enabled) | quote }} }
{{- if and $embedded .Values.store.embedded.anchor.enabled }}
- { name: REVOCATION_LOG, value: /anchor/apikeyd.revocations }
{{- end }}
{{- with .Values.bootstrapKey }}{{ if .existingSecret }}
{{ include "apikeyd.secretEnv" (dict "name" "ADMIN_BOOTSTRAP_KEY" "from" .) }}
{{- end }}{{ end }}
{{- with .Values.revocationLog }}{{ if .existingSecret }}
{{ include "apikeyd.secretEnv" (dict "name" "REVOCATION_LOG" "from" .) }}
{{- end }}{{ end }}
{{- with .Values.redis }}{{ if .existingSecret }}
{{ include "apikeyd.secretEnv" (dict "name" "REDIS_URL" "from" .) }}
{{- end }}{{ end }}
{{- with .Values.traceHeaders }}{{ if .existingSecret }}
{{ include "apikeyd.secretEnv" (dict "name" "OTEL_EXPORTER_OTLP_HEADERS" "from" .) }}
{{- end }}{{ end }}
{{- if .Values.auditChainKey.existingSecret }}
- { name: AUDIT_CHAIN_KEY_FILE, value: {{ printf "/secrets/chain/%s" .Values.auditChainKey.key | quote }} }
{{- end }}
{{- if .Values.tls.existingSecret }}
- { name: TLS_CERT_FILE, value: /secrets/tls/tls.crt }
- { name: TLS_KEY_FILE, value: /secrets/tls/tls.key }
{{- end }}
{{- if include "apikeyd.mtls" . }}
- { name: TLS_CLIENT_CA_FILE, value: {{ printf "/secrets/client-ca/%s" .Values.tls.clientCA.key | quote }} }
{{- end }}
{{- range $name, $value := .Values.settings }}
- { name: {{ $name }}, value: {{ if kindIs "float64" $value }}{{ $value | toJson | quote }}{{ else }}{{ $value | toString | quote }}{{ end }} }
{{- end }}
{{- end -}}

{{- define "apikeyd.mounts" -}}
- { name: data, mountPath: /data }
{{- if and (eq .Values.store.kind "embedded") .Values.store.embedded.anchor.enabled }}
- { name: anchor, mountPath: /anchor }
{{- end }}
{{- if .Values.auditChainKey.existingSecret }}
- { name: chain, mountPath: /secrets/chain, readOnly: true }
{{- end }}
{{- if .Values.tls.existingSecret }}
- { name: tls, mountPath: /secrets/tls, readOnly: true }
{{- end }}
{{- if include "apikeyd.mtls" . }}
- { name: client-ca, mountPath: /secrets/client-ca, readOnly: true }
{{- end }}
{{- end -}}

{{- define "apikeyd.volumes" -}}
{{- if eq .Values.store.kind "mongodb" }}
- name: data
  emptyDir: { sizeLimit: 16Mi }
{{- end }}
{{- range $name, $secret := dict "chain" .Values.auditChainKey.existingSecret "tls" .Values.tls.existingSecret "client-ca" .Values.tls.clientCA.existingSecret }}
{{- if $secret }}
- name: {{ $name }}
  secret: { secretName: {{ $secret }}, defaultMode: 0440 }
{{- end }}
{{- end }}
{{- end -}}

{{- define "apikeyd.pod" -}}
metadata:
  labels:
    {{- include "apikeyd.selector" . | nindent 4 }}
    {{- with .Values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- with .Values.podAnnotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  automountServiceAccountToken: false
  # Else a Service of this name puts APIKEYD_PORT into the environment, and the server refuses to start with it.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: { type: RuntimeDefault }
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- if include "apikeyd.several" . }}
  topologySpreadConstraints:
    {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{ include "apikeyd.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: apikeyd
      image: {{ with .Values.image }}{{ if .digest }}{{ printf "%s@%s" .repository .digest | quote }}{{ else }}{{ printf "%s:%s" .repository (default $.Chart.AppVersion .tag) | quote }}{{ end }}{{ end }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: { drop: [ALL] }
      ports:
        - { name: grpc, containerPort: 50051 }
        - { name: http, containerPort: 8080 }
        - { name: metrics, containerPort: 9464 }
      env: {{- include "apikeyd.env" . | nindent 8 }}
      {{- include "apikeyd.probes" . | nindent 6 }}
      lifecycle:
        preStop:
          exec:
            # Until the endpoints have forgotten this pod; the image has no shell.
            command: [node, -e, "setTimeout(() => {}, {{ mul 1000 .Values.preStopSeconds }})"]
      resources: {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts: {{- include "apikeyd.mounts" . | nindent 8 }}
  {{- with include "apikeyd.volumes" . | trim }}
  volumes: {{- . | nindent 4 }}
  {{- end }}
{{- end -}}
