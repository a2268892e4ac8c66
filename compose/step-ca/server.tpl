{{- /* Certificates of the sidecar's own listeners: for the names in the one-time token, which only the holder of this provisioner's
       key can write, and for servers alone. One for a peer comes from another provisioner, with federation.tpl. */ -}}
{{- if or (index .Token "mosaic_grant_id") (index .Token "mosaic_subject_user_id") -}}
  {{- fail "the token is for a peer's certificate" -}}
{{- end -}}
{{- if not .SANs -}}
  {{- fail "the token names no host" -}}
{{- end -}}
{
  "subject": {{ toJson .Subject }},
  "sans": {{ toJson .SANs }},
  "keyUsage": ["digitalSignature"],
  "extKeyUsage": ["serverAuth"]
}
