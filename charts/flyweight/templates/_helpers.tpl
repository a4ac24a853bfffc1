{{/* The chart's name, or what it is to be called. */}}
{{- define "flyweight.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* What the objects are called: at most 50 characters, so that suffixes fit. */}}
{{- define "flyweight.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "flyweight.name" .) .Release.Name }}
{{- printf "%s-operator" .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s-operator" .Release.Name (include "flyweight.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What never changes, and selects the pods. */}}
{{- define "flyweight.selectorLabels" -}}
app.kubernetes.io/name: flyweight-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "flyweight.labels" -}}
{{ include "flyweight.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: flyweight
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "flyweight.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "flyweight.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* "true" where a monitor is wanted and the cluster knows its kind, or where it is forced: (list . KIND VALUES). */}}
{{- define "flyweight.monitor" -}}
{{- $root := index . 0 }}{{ $kind := index . 1 }}{{ $values := index . 2 }}
{{- $known := $root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" $kind) }}
{{- if and $values.enabled (or $known $values.force) }}true{{ end }}
{{- end }}

{{- define "flyweight.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* What the operator does in the namespaces that it works in, and nothing else. */}}
{{- define "flyweight.rules" -}}
# Reads what users want, and says in the status what became of it.
- apiGroups: [flyweight.dev]
  resources: [flyweightservices, flyweightpools, cachetiers]
  verbs: [list, watch]
- apiGroups: [flyweight.dev]
  resources: [flyweightservices/status, flyweightpools/status, cachetiers/status]
  verbs: [patch]
# Sets spec.replicas once, where an autoscaler needs a first number, and the finalizer that lets a deleted service publish its events.
- apiGroups: [flyweight.dev]
  resources: [flyweightservices]
  verbs: [patch]
# Makes, changes and removes the children of a service.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# Brings the stores up to another image before its pods come.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
# Where cert-manager is installed and a service names an issuer.
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Finds the pods to ask for figures, and annotates those whose configuration changed, so that kubelet passes it on at once.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
# Follows which Secrets are there (it asks for their metadata only), and makes an encryption key where one is needed.
- apiGroups: [""]
  resources: [secrets]
  verbs: [list, watch, create]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}
