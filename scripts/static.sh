#!/usr/bin/env bash
# Builds both programs as the image has them: static, and the same bytes each time.
# `make image` and the Dockerfile call it, so that both ways give one result.
#
#   scripts/static.sh PLATFORM DIRECTORY     PLATFORM: linux/amd64, linux/arm64, linux/arm/v7
#
# VERSION is what the programs say of themselves. Another platform than this machine's
# needs Debian's cross compiler.
set -euo pipefail

fail() { echo "static.sh: $*" >&2; exit 1; }
[ $# = 2 ] || fail "usage: scripts/static.sh PLATFORM DIRECTORY"
platform=$1 directory=$2
go=${GO:-go}

case $platform in
  linux/amd64) arch=amd64 triple=x86_64-linux-gnu packages="gcc-x86-64-linux-gnu libc6-dev-amd64-cross" ;;
  linux/arm64) arch=arm64 triple=aarch64-linux-gnu packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;;
  linux/arm/v7) arch=arm triple=arm-linux-gnueabihf packages="gcc-arm-linux-gnueabihf libc6-dev-armhf-cross" ;;
  *) fail "platform $platform: is none of linux/amd64, linux/arm64, linux/arm/v7" ;;
esac
if [ "$("$go" env GOHOSTARCH)" = "$arch" ]; then
  compiler=gcc packages="gcc libc6-dev"
else
  compiler=$triple-gcc
fi
command -v "$compiler" >/dev/null || fail "$compiler is not installed; on Debian or Ubuntu: apt-get install $packages"

mkdir -p "$directory"
# GOAMD64 and its like of this machine must not decide what the image runs on.
export GOOS=linux GOARCH=$arch GOARM=7 GOAMD64=v1 GOARM64=v8.0 GOFLAGS=-mod=readonly
# The path of this directory, the state of git and the build ID say where and when it was
# built, and nothing about what it is.
same="-trimpath -buildvcs=false"
ldflags="-s -w -buildid= -X main.version=${VERSION:-dev}"

# SQLite is C, so the sidecar needs cgo; linked statically it needs nothing else at run time.
# netgo and osusergo keep glibc's resolver, which cannot be static, out of it; loadable
# extensions are for the same reason left out of SQLite.
CGO_ENABLED=1 CC=$compiler CGO_CFLAGS="-O2" "$go" build $same -tags netgo,osusergo,sqlite_omit_load_extension \
  -ldflags "$ldflags -linkmode external -extldflags '-static -Wl,--build-id=none'" -o "$directory/rockpool-sidecar" ./sidecar
CGO_ENABLED=0 "$go" build $same -ldflags "$ldflags" -o "$directory/rockpool-injector" ./injector
