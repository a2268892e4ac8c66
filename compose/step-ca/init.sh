#!/bin/sh
# Prepares a step-ca for the federation: root and intermediate, a CRL, and two JWK provisioners with the templates beside this file:
# one for peers, one for the sidecar's own listeners ([tls] step_ca_provisioner).
# Run once, where `step` and `step-ca` (0.23 or later) are; STEPPATH says where everything is kept.
#   sh init.sh DIRECTORY_FOR_THE_SIDECAR [DNS_NAME]
# Writes into the directory what the sidecar's sections [ca] and [tls] name: root.crt, mosaic-fed.jwk and mosaic-server.jwk
# (encrypted), password.
set -eu
out=${1:?"usage: init.sh DIRECTORY [DNS_NAME]"}
name=${2:-step-ca}
here=$(cd "$(dirname "$0")" && pwd)
umask 077
mkdir -p "$out"
if [ -e "$(step path)/config/ca.json" ]; then
  echo "error: there is a step-ca at $(step path) already" >&2
  echo "  do: set STEPPATH to another directory, or add the provisioner by hand as this script does" >&2
  exit 1
fi
[ -s "$out/password" ] || head -c 32 /dev/urandom | base64 | tr -d '\n' >"$out/password"
step ca init --name "Mosaic federation" --dns "$name" --address :9000 --deployment-type standalone \
  --provisioner admin --password-file "$out/password" --provisioner-password-file "$out/password"
# The key is made here, so that its private half never lies unencrypted on a disk.
step crypto jwk create "$out/mosaic-fed.pub" "$out/mosaic-fed.jwk" --kty EC --crv P-256 --use sig --password-file "$out/password"
step ca provisioner add mosaic-fed --type JWK --public-key "$out/mosaic-fed.pub" --private-key "$out/mosaic-fed.jwk" \
  --password-file "$out/password" --x509-template "$here/federation.tpl" \
  --x509-min-dur 5m --x509-default-dur 2160h --x509-max-dur 8760h
step crypto jwk create "$out/mosaic-server.pub" "$out/mosaic-server.jwk" --kty EC --crv P-256 --use sig --password-file "$out/password"
step ca provisioner add mosaic-server --type JWK --public-key "$out/mosaic-server.pub" --private-key "$out/mosaic-server.jwk" \
  --password-file "$out/password" --x509-template "$here/server.tpl" \
  --x509-min-dur 5m --x509-default-dur 168h --x509-max-dur 2160h
# The provisioner that `init` made could sign anything; this authority is for the federation alone.
step ca provisioner remove admin
config=$(step path)/config/ca.json
if grep -q '"crl"' "$config"; then :; else
  sed -i '0,/{/s//{\n\t"crl": {"enabled": true, "generateOnRevoke": true},/' "$config"
fi
cp "$(step path)/certs/root_ca.crt" "$out/root.crt"
echo "ready: start it with  step-ca --password-file $out/password $config" >&2
