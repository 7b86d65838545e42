#!/usr/bin/env bash
# Certificates for the injector's webhook; see usage below.
set -euo pipefail

namespace=rockpool-system
service=rockpool-injector
secret=rockpool-injector-tls
configuration=rockpool-injector
days=365
renew_days=30
force=false
kubectl=${KUBECTL:-kubectl}

usage() {
  cat <<TEXT
Makes a CA and a serving certificate for the injector's Service, writes the certificate
into a TLS Secret and the CA into the MutatingWebhookConfiguration.

Usage: scripts/webhook-certs.sh [options]

  --namespace NAME       namespace of Service and Secret   ($namespace)
  --service NAME         Service that the certificate is for ($service)
  --secret NAME          TLS Secret to write               ($secret)
  --configuration NAME   MutatingWebhookConfiguration      ($configuration)
  --days N               validity of a new certificate     ($days)
  --renew-days N         make a new one when fewer days are left ($renew_days)
  --force                make a new one in any case
  -h, --help             show this

Run it after "kubectl apply -k manifests", and again at any time: a certificate that is valid,
for the right names, and trusted by the configuration is left as it is. At a renewal both the
old and the new CA are trusted, so pods keep being admitted while the replicas, without
restarting, pick up the new certificate. The CA's key is thrown away once it has signed.

Needs bash, openssl 1.1.1 or later and kubectl (or \$KUBECTL), with the right to write
Secrets in the namespace and to patch the MutatingWebhookConfiguration.
TEXT
}

say() { printf '%s\n' "$*"; }
fail() { printf 'webhook-certs: %s\n' "$*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case $1 in
    -h|--help) usage; exit 0 ;;
    --force) force=true; shift; continue ;;
    --namespace|--service|--secret|--configuration|--days|--renew-days)
      [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 needs a value; see --help" ;;
    *) fail "unknown option $1; see --help" ;;
  esac
  case $1 in
    --namespace) namespace=$2 ;;
    --service) service=$2 ;;
    --secret) secret=$2 ;;
    --configuration) configuration=$2 ;;
    --days) days=$2 ;;
    --renew-days) renew_days=$2 ;;
  esac
  shift 2
done
for n in "$days" "$renew_days"; do
  case $n in *[!0-9]*) fail "$n is not a number of days" ;; esac
done
[ "$days" -gt "$renew_days" ] || fail "--days $days must be more than --renew-days $renew_days, or every run would renew"
for tool in openssl "$kubectl"; do
  command -v "$tool" >/dev/null || fail "$tool is not installed"
done

umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

host=$service.$namespace.svc

# What the cluster has now. Absent objects give empty files, and so do webhooks that do not all
# trust the same.
current_bundle() {
  local bundles
  bundles=$("$kubectl" get mutatingwebhookconfiguration "$configuration" \
    -o 'jsonpath={range .webhooks[*]}{.clientConfig.caBundle}{"\n"}{end}' | sort -u)
  case $bundles in *$'\n'*) ;; *) printf '%s' "$bundles" | base64 -d ;; esac
}
secret_key() { # name of the key, with dots escaped for jsonpath
  "$kubectl" -n "$namespace" get secret "$secret" --ignore-not-found -o "jsonpath={.data.$1}" | base64 -d
}

first="run kubectl apply -k manifests first"
"$kubectl" get namespace "$namespace" -o name >/dev/null || fail "namespace $namespace: cannot be read; $first"
names=$("$kubectl" get mutatingwebhookconfiguration "$configuration" -o 'jsonpath={.webhooks[*].name}') ||
  fail "mutatingwebhookconfiguration $configuration: cannot be read; $first"
[ -n "$names" ] || fail "mutatingwebhookconfiguration $configuration: has no webhooks; $first"
current_bundle >"$work/old-bundle.crt"
secret_key 'tls\.crt' >"$work/old.crt"

valid() {
  [ -s "$work/old.crt" ] && [ -s "$work/old-bundle.crt" ] || return 1
  openssl x509 -in "$work/old.crt" -noout -checkend $((renew_days * 86400)) >/dev/null || return 1
  openssl verify -CAfile "$work/old-bundle.crt" -purpose sslserver -verify_hostname "$host" "$work/old.crt" >/dev/null 2>&1
}

if [ "$force" = false ] && valid; then
  say "secret $namespace/$secret: valid $(openssl x509 -in "$work/old.crt" -noout -enddate | sed 's/notAfter=/until /'), trusted by $configuration; nothing to do"
  exit 0
fi

say "making a CA and a certificate for $host, valid for $days days"
# NotBefore is now: clocks of API servers and of this machine should agree to a minute.
cat >"$work/openssl.cnf" <<TEXT
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:$service.$namespace.svc, DNS:$service.$namespace.svc.cluster.local
TEXT
quietly() { "$@" 2>"$work/errors" || { cat "$work/errors" >&2; fail "$1 $2 failed"; }; }
new_key() { quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

new_key "$work/ca.key"
# Each CA has its own name, so that the bundle of two is never ambiguous.
quietly openssl req -x509 -new -config "$work/openssl.cnf" -extensions ca -key "$work/ca.key" -sha256 -days "$days" \
  -subj "/O=Rockpool/CN=rockpool-webhook-$(date -u +%Y%m%d%H%M%S)" -out "$work/ca.crt"
new_key "$work/tls.key"
quietly openssl req -new -config "$work/openssl.cnf" -key "$work/tls.key" -subj "/O=Rockpool/CN=$service" -out "$work/tls.csr"
quietly openssl x509 -req -in "$work/tls.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -sha256 -days "$days" \
  -extfile "$work/openssl.cnf" -extensions server -out "$work/tls.crt"
rm -f "$work/ca.key"
quietly openssl verify -CAfile "$work/ca.crt" -purpose sslserver -verify_hostname "$host" "$work/tls.crt" >/dev/null

# Trust first, then use: the new CA is added before any replica can serve its certificate.
# Of the old bundle only the CA of the certificate still in use stays.
cp "$work/ca.crt" "$work/bundle.crt"
secret_key 'ca\.crt' >>"$work/bundle.crt"
say "mutatingwebhookconfiguration $configuration: setting caBundle ($(grep -c 'BEGIN CERTIFICATE' "$work/bundle.crt") CA)"
bundle=$(base64 <"$work/bundle.crt" | tr -d '\n')
webhooks=
for name in $names; do
  webhooks=$webhooks${webhooks:+,}"{\"name\":\"$name\",\"clientConfig\":{\"caBundle\":\"$bundle\"}}"
done
"$kubectl" patch mutatingwebhookconfiguration "$configuration" --type=strategic -p "{\"webhooks\":[$webhooks]}"

# Server-side apply, which leaves no copy of the key in an annotation.
"$kubectl" -n "$namespace" create secret generic "$secret" --type=kubernetes.io/tls \
  --from-file=tls.crt="$work/tls.crt" --from-file=tls.key="$work/tls.key" --from-file=ca.crt="$work/ca.crt" \
  --dry-run=client -o yaml |
  "$kubectl" apply --server-side --force-conflicts --field-manager=rockpool-webhook-certs -f -

say "done; running replicas use the new certificate as soon as the kubelet has updated their volume, in about a minute"
