{{- define "apikeyd.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "apikeyd.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "apikeyd.labels" -}}
{{ include "apikeyd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "apikeyd.mtls" -}}
{{- if .Values.tls.clientCA.existingSecret -}}yes{{- end -}}
{{- end -}}

{{/* More than one process, now or after scaling. */}}
{{- define "apikeyd.several" -}}
{{- if eq .Values.store.kind "mongodb" -}}
{{- $least := ternary .Values.autoscaling.minReplicas .Values.replicas .Values.autoscaling.enabled | int -}}
{{- if ge $least 2 -}}yes{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the schema cannot say. */}}
{{- define "apikeyd.check" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository: name the registry and repository that the image was pushed to" -}}
{{- end -}}
{{- if eq .Values.store.kind "embedded" -}}
{{- if ne (int .Values.replicas) 1 -}}
{{- fail "replicas: the embedded store belongs to one process; for more set store.kind to mongodb" -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- fail "autoscaling.enabled: the embedded store belongs to one process; for more set store.kind to mongodb" -}}
{{- end -}}
{{- if .Values.revocationLog.existingSecret -}}
{{- fail "revocationLog.existingSecret: the embedded store keeps its log on the anchor's volume" -}}
{{- end -}}
{{- else if not .Values.store.mongodb.existingSecret -}}
{{- fail "store.mongodb.existingSecret: name the Secret that holds the URL of the database" -}}
{{- else if not .Values.bootstrapKey.existingSecret -}}
{{- fail "bootstrapKey.existingSecret: pods without a volume have no place to keep a minted admin key; name the Secret that holds the first one" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas: must not be above autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and (include "apikeyd.mtls" .) (not .Values.tls.existingSecret) -}}
{{- fail "tls.clientCA.existingSecret: needs tls.existingSecret" -}}
{{- end -}}
{{- $least := add (int .Values.preStopSeconds) 15 | int -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) $least -}}
{{- fail (printf "terminationGracePeriodSeconds: must be %d or more: preStopSeconds, and 15 for the calls under way and the store" $least) -}}
{{- end -}}
{{- end -}}

{{/* A setting whose value lies in a Secret. */}}
{{- define "apikeyd.secretEnv" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .from.existingSecret }}
      key: {{ .from.key }}
{{- end -}}
