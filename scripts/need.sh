#!/usr/bin/env bash
# Lists the programs that the tests and the demo need and that this machine does not have; with the
# argument "node" also those for the tests on a real node, which only root can run.
set -euo pipefail

missing=()
need() { # program, Debian package, what for
  command -v "$1" >/dev/null 2>&1 && return
  echo "missing: $1 ($3)" >&2
  missing+=("$2")
}

need go golang "everything; 1.26 or newer, https://go.dev/dl/"
need gcc gcc "to compile SQLite, which is C"
need sqlite3 sqlite3 "the tests and the demo query the cache with it"
need openssl openssl "the tests check certificates with it"
if ! /usr/bin/python3 -c 'import kubernetes' 2>/dev/null; then
  echo "missing: the Python client of Kubernetes (the tests run it unmodified)" >&2
  missing+=(python3-kubernetes)
fi
if [ "${1:-}" = node ] && [ "$(id -u)" = 0 ] && ! pkg-config --exists libseccomp 2>/dev/null; then
  echo "missing: libseccomp (the tests on a real node build runc with it)" >&2
  missing+=(libseccomp-dev pkg-config)
fi
if [ "$(uname -s)" != Linux ]; then
  echo "missing: Linux (pods run in kernel namespaces)" >&2
  exit 1
fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "On Debian or Ubuntu: apt-get install ${missing[*]}" >&2
  exit 1
fi
