#!/bin/sh
# Throw-away certificates for the servers that are measured beside the sidecar: a P-256 authority, a server
# certificate (localhost, 127.0.0.1, ::1), a client certificate with the two identity extensions, and a CRL.
# usage: certs.sh DIRECTORY [REVOKED]     REVOKED: how many entries the CRL holds (200)
set -eu
mkdir -p "$1"
cd "$1"
revoked=${2:-200}
grant=11111111-2222-4333-8444-555555555555
subject=aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee
: >index.txt
echo 01 >crlnumber

cat >ca.cnf <<END
[ca]
default_ca = authority
[authority]
database = index.txt
crlnumber = crlnumber
default_md = sha256
default_crl_days = 30
crl_extensions = crl
[crl]
authorityKeyIdentifier = keyid
END
cat >extensions.cnf <<END
[ca]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost,IP:127.0.0.1,IP:::1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[client]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
1.3.6.1.4.1.99999.1 = ASN1:UTF8String:$grant
1.3.6.1.4.1.99999.2 = ASN1:UTF8String:$subject
END

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

key ca.key
openssl req -new -key ca.key -subj "/O=bench/CN=bench CA" -out ca.csr
openssl x509 -req -in ca.csr -signkey ca.key -sha256 -days 30 -extfile extensions.cnf -extensions ca -out ca.pem 2>/dev/null
for who in server client; do
  key $who.key
  openssl req -new -key $who.key -subj "/O=bench/CN=bench $who" -out $who.csr
  # The leading 5A keeps the serial positive and free of padding.
  openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -set_serial "0x5A$(openssl rand -hex 15)" \
    -sha256 -days 30 -extfile extensions.cnf -extensions $who -out $who.pem 2>/dev/null
done
now=$(date -u +%y%m%d%H%M%SZ)
later=$(date -u -d '+300 days' +%y%m%d%H%M%SZ)
number=0
while [ $number -lt "$revoked" ]; do
  printf 'R\t%s\t%s\tA0%014X\tunknown\t/O=bench/CN=revoked %s\n' "$later" "$now" $number $number
  number=$((number + 1))
done >>index.txt
openssl ca -gencrl -config ca.cnf -cert ca.pem -keyfile ca.key -out crl.pem 2>/dev/null
openssl verify -CAfile ca.pem -CRLfile crl.pem -crl_check server.pem client.pem >/dev/null
openssl x509 -in client.pem -noout -serial | cut -d= -f2 >client.serial
rm -f ./*.csr
