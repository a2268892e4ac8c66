{{- /* Certificates of federation peers. Both ids come from the claims of the one-time token, which only the holder of the
       provisioner's key can write; a token without one, or with one that is not a UUID, gets no certificate. */ -}}
{{- range list "mosaic_grant_id" "mosaic_subject_user_id" -}}
  {{- if not (regexMatch "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" (toString (index $.Token .))) -}}
    {{- fail (printf "the token's %s is not a UUID" .) -}}
  {{- end -}}
{{- end -}}
{
  "subject": {{ toJson .Subject }},
  "sans": {{ toJson .SANs }},
  "keyUsage": ["digitalSignature"],
  "extKeyUsage": ["clientAuth"],
  "extensions": [
    {{- /* A DER UTF8String: tag, length in one octet, text. */ -}}
    {"id": "1.3.6.1.4.1.99999.1", "critical": false, "value": {{ printf "\x0c%c%s" (len .Token.mosaic_grant_id) .Token.mosaic_grant_id | b64enc | toJson }}},
    {"id": "1.3.6.1.4.1.99999.2", "critical": false, "value": {{ printf "\x0c%c%s" (len .Token.mosaic_subject_user_id) .Token.mosaic_subject_user_id | b64enc | toJson }}}
  ]
}
