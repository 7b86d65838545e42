# Rockpool. `make help` lists the targets.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
GO          ?= go
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS     := -s -w -X main.version=$(VERSION)
SOAK        ?= 10m
HISTORIES   ?= 100000
# false builds the soak's sidecar without the race detector, whose memory grows with time.
RACE        ?= true
# The image's name, tag and architecture (amd64, arm64 or arm). They are not taken from the
# environment, because some systems set NAME there.
NAME        := rockpool
TAG         := dev
HOSTARCH    := $(shell $(GO) env GOHOSTARCH)
ARCH        := $(HOSTARCH)
PLATFORM    := linux/$(patsubst arm,arm/v7,$(ARCH))
IMAGE       := dist/rockpool-image$(if $(filter $(HOSTARCH),$(ARCH)),,-$(subst /,,$(ARCH))).tar
# The time of the commit, so that a commit always gives the same bytes.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
GOLANGCI    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.DEFAULT_GOAL := build
.PHONY: help build image chart need need-demo need-test need-node need-zoo tools test test-node unit e2e bench bench-check bench-release instructions lint fmt fuzz model soak thin conformance zoo density demo clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build both binaries into bin/
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/rockpool-sidecar ./sidecar
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/rockpool-injector ./injector

image: ## Build the container image without Docker, into dist/rockpool-image.tar (NAME= TAG= ARCH=arm64)
	GO='$(GO)' VERSION='$(VERSION)' scripts/static.sh $(PLATFORM) dist/$(PLATFORM)
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(GO) run ./scripts/image --name $(NAME):$(TAG) --platform $(PLATFORM) \
	  --version '$(VERSION)' --revision '$(shell git rev-parse HEAD 2>/dev/null)' --output $(IMAGE) \
	  dist/$(PLATFORM)/rockpool-sidecar dist/$(PLATFORM)/rockpool-injector

chart: ## Make the templates of the Helm chart from the manifests, after a change of these
	$(GO) run ./scripts/chart manifests

need: ## List the programs that this machine lacks, and how to install them
	@scripts/need.sh --list node

need-demo:
	@GO='$(GO)' scripts/need.sh demo

need-test:
	@GO='$(GO)' scripts/need.sh test

tools: need-demo ## Build kube-apiserver, etcd and kubectl for the tests (takes minutes once, then cached)
	@$(GO) run ./tests/bed/cmd/tools

need-node:
	@GO='$(GO)' scripts/need.sh node

need-zoo:
	@GO='$(GO)' scripts/need.sh zoo

test: need-node tools ## Run all tests: unit and end-to-end with the race detector, then those on a real node (installs what it needs)
	@$(GO) run ./tests/bed/cmd/tools -monitoring prometheus promtool
	$(GO) vet ./...
	$(GO) test -race -count=1 -timeout 30m ./...
	@$(MAKE) --no-print-directory test-node

# The test of a whole server of another project is here, because the zoo builds that server anyway.
REALSERVERS := -run '^TestRealServersUseTheEndpointsOfTheirNode$$' -servers

test-node: need-node image ## Run the tests on a real kubelet and containerd; needs root (builds them once, then takes about ten minutes)
	ROCKPOOL_NODE_IMAGE='$(abspath $(IMAGE))' $(GO) test -count=1 -v -timeout 20m ./tests/e2enode
	$(GO) test -race -count=1 -v -timeout 20m ./tests/e2e $(REALSERVERS) coredns

density: need-node image ## Measure the memory and the CPU of 1, 10 and 30 injected pods on a real node
	ROCKPOOL_NODE_IMAGE='$(abspath $(IMAGE))' $(GO) test -count=1 -v -timeout 30m ./tests/e2enode -run '^TestTheMemoryOfManyPods$$' -density

zoo: need-zoo image ## Run programs of other projects through an outage on a real node (UPDATE=true writes docs/clients.md)
	ROCKPOOL_NODE_IMAGE='$(abspath $(IMAGE))' $(GO) test -count=1 -v -timeout 90m ./tests/e2enode \
	  -run '^TestRealProgramsOfferTheirFunctionThroughAnOutage$$' -zoo $(if $(UPDATE),-zoo.update='$(VERSION)')
	$(GO) test -race -count=1 -v -timeout 90m ./tests/e2e $(REALSERVERS) coredns,traefik

unit: need-test ## Run the tests that need no API server
	$(GO) test -race $$($(GO) list ./... | grep -v /tests/)

e2e: need-test tools ## Run the end-to-end tests
	$(GO) test -race -count=1 -v -timeout 20m ./tests/e2e

model: ## Judge offline answers after 100,000 random histories (HISTORIES=1000 for fewer)
	$(GO) test -count=1 -v -timeout 3h ./tests/model -run '^TestRandomHistories$$' -model.histories $(HISTORIES)

soak: need-test tools ## Run all kinds of clients through random faults for ten minutes (SOAK=1h for longer; RACE=false checks memory)
	$(GO) test -race -count=1 -v -timeout 24h ./tests/e2e -run '^TestSoak$$' -soak $(SOAK) -race-detector=$(RACE)

thin: need-test tools ## Fill 18 thin links with a list beside a watch, and two for ten minutes (takes about 20 minutes)
	$(GO) test -race -count=1 -v -timeout 60m ./tests/e2e -run '^TestAFullThinLink' -thin -parallel 4

conformance: need-test tools ## Run Kubernetes' own tests of its API directly and through a sidecar, and compare (CONFORMANCE="-focus Watchers" for fewer)
	@$(GO) run ./tests/conformance $(CONFORMANCE)

# KUBECONFIG is taken from the command line only: what runs in a cluster is not left to chance.
ifeq ($(origin KUBECONFIG),command line)
demo: need-demo ## Show the main use: online, link cut, restarts, link restored (KUBECONFIG=file: in that cluster)
	@$(GO) run ./tests/demo -kubeconfig '$(KUBECONFIG)'
else
demo: tools
	@$(GO) run ./tests/demo
endif

bench: tools ## Compare direct access with a sidecar, with and without recording (11 minutes; BENCH="--short" is quicker)
	@mkdir -p dist
	@$(GO) run ./tests/bench --json dist/bench.json --base docs/benchmarks.json $(BENCH)

instructions: ## Count the instructions of a GET with valgrind, online and offline (3 minutes, needs no API server)
	@$(GO) run ./tests/bench --cases instructions $(BENCH)

bench-check: tools ## The same, and fail if anything is worse than in docs/benchmarks.json, the run of the last release
	@mkdir -p dist
	@$(GO) run ./tests/bench --json dist/bench.json --base docs/benchmarks.json --check $(BENCH)

bench-release: tools ## Measure for a release: writes docs/benchmarks.json and the table of docs/benchmarks.md
	@$(GO) run ./tests/bench --base docs/benchmarks.json --json docs/benchmarks.json --table docs/benchmarks.md $(BENCH)

lint: ## Run golangci-lint
	$(GO) run $(GOLANGCI) run ./...

fmt: ## Format the code
	gofmt -w $$(git ls-files '*.go')

fuzz: ## Run each fuzz test for 30 s
	@for p in $$(grep -rl '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$p/*_test.go | cut -c6-); do \
	    echo "== $$p $$f"; $(GO) test $$p -run '^$$' -fuzz "^$$f\$$" -fuzztime 30s -fuzzminimizetime 100x; done; done

clean: ## Remove bin and dist; the tests' tools stay cached
	rm -rf bin dist
