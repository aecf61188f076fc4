{{- define "itrex-sweet.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "itrex-sweet.selector" -}}
app.kubernetes.io/name: itrex-sweet
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "itrex-sweet.labels" -}}
{{ include "itrex-sweet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}
