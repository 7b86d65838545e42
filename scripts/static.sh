#!/usr/bin/env bash
# Builds both programs for the image: static, and with the same bytes each time. `make image` and
# the Dockerfile call it, so that both give the same result.
#
#   scripts/static.sh PLATFORM DIRECTORY     PLATFORM: linux/amd64, linux/arm64, linux/arm/v7
#
# VERSION is the version that the programs report. A platform other than this machine's needs
# Debian's cross compiler.
set -euo pipefail

fail() { echo "static.sh: $*" >&2; exit 1; }
[ $# = 2 ] || fail "usage: scripts/static.sh PLATFORM DIRECTORY"
platform=$1 directory=$2
go=${GO:-go}

case $platform in
  linux/amd64) arch=amd64 triple=x86_64-linux-gnu packages="gcc-x86-64-linux-gnu libc6-dev-amd64-cross" ;;
  linux/arm64) arch=arm64 triple=aarch64-linux-gnu packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;;
  linux/arm/v7) arch=arm triple=arm-linux-gnueabihf packages="gcc-arm-linux-gnueabihf libc6-dev-armhf-cross" ;;
  *) fail "platform $platform: is not one of linux/amd64, linux/arm64, linux/arm/v7" ;;
esac
if [ "$("$go" env GOHOSTARCH)" = "$arch" ]; then
  compiler=gcc packages="gcc libc6-dev"
else
  compiler=$triple-gcc
fi
command -v "$compiler" >/dev/null || fail "$compiler is not installed; on Debian or Ubuntu: apt-get install $packages"

mkdir -p "$directory"
# GOAMD64 and similar variables of this machine must not affect the image.
export GOOS=linux GOARCH=$arch GOARM=7 GOAMD64=v1 GOARM64=v8.0 GOFLAGS=-mod=readonly
# Leave out the path of this directory, the state of git and the build ID: they depend on where and
# when the programs are built.
same="-trimpath -buildvcs=false"
ldflags="-s -w -buildid= -X main.version=${VERSION:-dev}"

# SQLite is C, so the sidecar needs cgo. A static link makes it run without libraries. glibc's
# resolver cannot be static, so netgo and osusergo replace it. Neither can loadable extensions of
# SQLite.
CGO_ENABLED=1 CC=$compiler CGO_CFLAGS="-O2" "$go" build $same -tags netgo,osusergo,sqlite_omit_load_extension \
  -ldflags "$ldflags -linkmode external -extldflags '-static -Wl,--build-id=none'" -o "$directory/rockpool-sidecar" ./sidecar
CGO_ENABLED=0 "$go" build $same -ldflags "$ldflags" -o "$directory/rockpool-injector" ./injector
