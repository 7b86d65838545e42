#!/usr/bin/env bash
# Lists the programs for the tests and the demo that this machine lacks. With the argument "node",
# the list includes those for the tests on a real node, which only root can run. With "zoo", it has
# also the libraries of the zoo's clients, without which those clients are skipped.
set -euo pipefail

missing=()
need() { # program, Debian package, purpose
  command -v "$1" >/dev/null 2>&1 && return
  echo "missing: $1 ($3)" >&2
  missing+=("$2")
}

need go golang "everything; 1.26 or newer, https://go.dev/dl/"
need gcc gcc "SQLite is C"
need sqlite3 sqlite3 "the tests and the demo read the cache with it"
need openssl openssl "the tests verify certificates with it"
if ! /usr/bin/python3 -c 'import kubernetes' 2>/dev/null; then
  echo "missing: the Python client of Kubernetes (the tests run it unmodified)" >&2
  missing+=(python3-kubernetes)
fi
if [[ "${1:-}" =~ ^(node|zoo)$ ]] && [ "$(id -u)" = 0 ] && ! pkg-config --exists libseccomp 2>/dev/null; then
  echo "missing: libseccomp (the tests on a real node build runc, which needs it)" >&2
  missing+=(libseccomp-dev pkg-config)
fi
if [ "${1:-}" = zoo ]; then
  has() { # purpose, Debian packages, command
    "${@:3}" >/dev/null 2>&1 && return
    echo "missing: $1" >&2
    missing+=($2)
  }
  has "aiohttp for Python (a loop like kopf's)" python3-aiohttp /usr/bin/python3 -c 'import aiohttp'
  has "kubeclient for Ruby" ruby-kubeclient /usr/bin/ruby -e 'require "kubeclient"'
  has "a JDK (the client over WebSocket)" default-jdk-headless /usr/bin/javac --version
  has "Node.js and npm (the official client)" "nodejs npm" sh -c '/usr/bin/node --version && npm --version'
fi
if [ "$(uname -s)" != Linux ]; then
  echo "missing: Linux (pods run in namespaces of its kernel)" >&2
  exit 1
fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "On Debian or Ubuntu: apt-get install ${missing[*]}" >&2
  exit 1
fi
