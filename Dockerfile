# Both programs of Rockpool in one image: /rockpool-sidecar and /rockpool-injector. `make image`
# builds the same without Docker.
#
#   docker buildx build --platform linux/amd64,linux/arm64,linux/arm/v7 --build-arg VERSION=v1.2.3 \
#     -t registry.example.com/rockpool:v1.2.3 --push .
#
# The build stage runs on the builder's own platform and compiles for the platform of the image.
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
ARG TARGETPLATFORM
# golang:bookworm already has the compiler for the builder's own platform.
RUN case "$TARGETPLATFORM" in \
      "linux/$(dpkg --print-architecture)") cross= ;; \
      linux/amd64) cross="gcc-x86-64-linux-gnu libc6-dev-amd64-cross" ;; \
      linux/arm64) cross="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;; \
      linux/arm/v7) cross="gcc-arm-linux-gnueabihf libc6-dev-armhf-cross" ;; \
      *) echo "unsupported platform $TARGETPLATFORM" >&2; exit 1 ;; \
    esac; \
    [ -z "$cross" ] || { apt-get update && apt-get install -y --no-install-recommends $cross && rm -rf /var/lib/apt/lists/*; }
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY injector injector
COPY sidecar sidecar
COPY store store
COPY scripts/static.sh scripts/static.sh
ARG VERSION=dev
RUN scripts/static.sh "$TARGETPLATFORM" /out

FROM scratch
ARG VERSION=dev
LABEL org.opencontainers.image.title="Rockpool" \
      org.opencontainers.image.description="Keeps the Kubernetes API for a pod when the link to the cloud goes out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/rockpool-sidecar /out/rockpool-injector /
# A numeric user: the kubelet checks runAsNonRoot, and the image has no /etc/passwd.
USER 65532:65532
ENTRYPOINT ["/rockpool-sidecar"]
