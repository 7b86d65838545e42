# Both programs of Rockpool in one image: /rockpool-sidecar and /rockpool-injector.
#
#   docker build --build-arg VERSION=v1.2.3 -t registry.example.com/rockpool:v1.2.3 .
FROM golang:1.26-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY injector injector
COPY sidecar sidecar
COPY store store
ARG VERSION=dev
# SQLite is C, so the sidecar needs cgo; linked statically it needs nothing else at run time.
# netgo and osusergo keep glibc's resolver, which cannot be static, out of it; loadable
# extensions are for the same reason left out of SQLite.
RUN CGO_ENABLED=1 go build -trimpath -tags netgo,osusergo,sqlite_omit_load_extension \
      -ldflags "-s -w -linkmode external -extldflags '-static' -X main.version=${VERSION}" \
      -o /out/rockpool-sidecar ./sidecar \
 && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" \
      -o /out/rockpool-injector ./injector

FROM scratch
COPY --from=build /out/rockpool-sidecar /out/rockpool-injector /
# By number: the kubelet checks runAsNonRoot, and there is no /etc/passwd.
USER 65532:65532
ENTRYPOINT ["/rockpool-sidecar"]
