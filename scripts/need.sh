#!/usr/bin/env bash
# Installs the Debian packages that a set of targets lacks, or says what to type.
#
#   scripts/need.sh [--list] demo|test|node|zoo
#
# demo: what `make demo` uses. test: what the tests use as well. node: also the tests on a real node,
# which only root can run. zoo: also the libraries of the zoo's clients. With --list nothing is installed, and a machine that lacks something is
# an error.
set -euo pipefail

list=
if [ "${1:-}" = --list ]; then
  list=yes
  shift
fi
set_of=${1:-test}

if [ "$(uname -s)" != Linux ]; then
  echo "missing: Linux (pods run in namespaces of its kernel)" >&2
  exit 1
fi

missing=()
need() { # Debian package, purpose, command that succeeds if it is there
  local package=$1 purpose=$2
  shift 2
  "$@" >/dev/null 2>&1 && return
  echo "missing: $package ($purpose)" >&2
  missing+=("$package")
}
program() { command -v "$1"; }
includes() { "${CC:-gcc}" -E - <<<"#include <$1>"; }

roots() { # of the places where Go looks for them
  local f
  for f in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
    if [ -s "$f" ]; then return 0; fi
  done
  return 1
}

need make "the targets are its" program make
need ca-certificates "Go downloads modules by HTTPS" roots
need gcc "SQLite is C" program gcc
need libc6-dev "SQLite is C, and includes the C library's headers" includes stdlib.h
need sqlite3 "the demo and the tests read the cache with it" program sqlite3
if [ "$set_of" != demo ]; then
  need git "the image has the time of the commit" program git
  need openssl "the tests verify certificates with it" program openssl
  need python3-kubernetes "the tests run this client unmodified" /usr/bin/python3 -c 'import kubernetes'
  need curl "a pod of the tests asks the API server with it" program curl
  need chromium "the tests look at the status page with it" program chromium
  need gnutls-bin "the tests verify certificates with it" program gnutls-cli
  need libmbedtls-dev "the tests verify certificates with it" includes mbedtls/ssl.h
  [ "$(id -u)" != 0 ] || need iproute2 "the tests shape a link with ip and tc" program tc
fi
if [[ $set_of =~ ^(node|zoo)$ ]] && [ "$(id -u)" = 0 ]; then
  need pkg-config "runc is built with it" program pkg-config
  need libseccomp-dev "runc, which the tests on a real node build, needs it" pkg-config --exists libseccomp
fi
if [ "$set_of" = zoo ]; then
  need python3-aiohttp "a client of the zoo loops like kopf with it" /usr/bin/python3 -c 'import aiohttp'
  need ruby-kubeclient "a client of the zoo" /usr/bin/ruby -e 'require "kubeclient"'
  need default-jdk-headless "the zoo has a Java client over WebSocket" /usr/bin/javac --version
  need nodejs "the zoo has the official JavaScript client" /usr/bin/node --version
  need npm "it downloads the JavaScript client" program npm
fi

# Go comes first in the messages, because no package of a stable Debian is new enough.
minimum=$(sed -n 's/^go //p' "$(dirname "$0")/../go.mod")
if ! command -v "${GO:-go}" >/dev/null 2>&1; then
  echo "missing: Go $minimum or newer: unpack https://go.dev/dl/ to /usr/local, then type: export PATH=\$PATH:/usr/local/go/bin" >&2
  exit 1
fi

[ ${#missing[@]} -gt 0 ] || exit 0
install="apt-get install -y --no-install-recommends ${missing[*]}"
if ! command -v apt-get >/dev/null 2>&1; then
  echo "This is no Debian or Ubuntu, so nothing was installed. Install by hand what provides: ${missing[*]}" >&2
  exit 1
fi
if [ -n "$list" ]; then
  echo "To install it, type: sudo apt-get update && sudo $install" >&2
  exit 1
fi
as_root=(env)
if [ "$(id -u)" != 0 ]; then
  if ! command -v sudo >/dev/null 2>&1 || { ! sudo -n true 2>/dev/null && [ ! -t 0 ]; }; then
    echo "Only root can install it. As root, type: apt-get update && $install" >&2
    exit 1
  fi
  as_root=(sudo env)
fi
echo "installing: ${missing[*]}" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${as_root[@]}" apt-get update && "${as_root[@]}" DEBIAN_FRONTEND=noninteractive $install; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "The installation failed; the lines above say why. As root, type: apt-get update && $install" >&2
  exit 1
fi
