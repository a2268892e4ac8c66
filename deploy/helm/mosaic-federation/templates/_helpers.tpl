{{- define "mf.name" -}}
{{- $full := printf "%s-%s" .Release.Name .Chart.Name -}}
{{- if contains .Chart.Name .Release.Name }}{{ $full = .Release.Name }}{{ end -}}
{{- $full | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "mf.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "mf.labels" -}}
{{ include "mf.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "mf.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "mf.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end -}}
{{- end }}

{{- define "mf.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end }}

{{- /* One value as TOML. Numbers of the settings are whole, and come as floats from YAML. */ -}}
{{- define "mf.value" -}}
{{- if kindIs "string" . }}{{ . | toJson }}
{{- else if kindIs "bool" . }}{{ . }}
{{- else if kindIs "slice" . }}[{{ range $index, $one := . }}{{ if $index }}, {{ end }}{{ include "mf.value" $one }}{{ end }}]
{{- else if kindIs "map" . }}{ {{- $first := true }}{{ range $key, $one := . }}{{ if not $first }}, {{ end }}{{ $first = false }}{{ $key | toJson }} = {{ include "mf.value" $one }}{{ end }} }
{{- else }}{{ . | int64 }}{{ end -}}
{{- end }}

{{- /* The settings file. What the chart decides itself comes last and counts. data_dir is below the volume, whose own directory is the
       group's: the sidecar makes it for itself alone. */ -}}
{{- define "mf.settings" -}}
{{- $own := dict
  "ops" (dict "listen" "0.0.0.0:9464")
  "policy" (dict "dir" "/etc/mosaic-federation/policy.d")
  "seal" (dict "secret_file" "/etc/mosaic-federation/seal/sealing-secret")
  "federation" (dict "listen" "0.0.0.0:8443")
  "enrollment" (dict "listen" "0.0.0.0:8444") }}
{{- $all := mergeOverwrite (deepCopy .Values.settings) $own -}}
data_dir = "/var/lib/mosaic-federation/data"
{{- range $key, $value := $all }}
{{- if not (kindIs "map" $value) }}
{{ $key }} = {{ include "mf.value" $value }}
{{- end }}
{{- end }}
{{- range $section, $keys := $all }}
{{- if kindIs "map" $keys }}

[{{ $section }}]
{{- range $key, $value := $keys }}
{{ $key }} = {{ include "mf.value" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
