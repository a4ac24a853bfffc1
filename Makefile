# One line of explanation for each target: `make help`.
SHELL := bash
.DEFAULT_GOAL := help

CACHE := $(or $(FLYWEIGHT_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/flyweight)
export CARGO_TARGET_DIR ?= $(CACHE)/target
export FLYWEIGHT_CACHE := $(CACHE)
BIN := $(CARGO_TARGET_DIR)/debug
# What a laptop needs, without the drivers of servers: built in a third of the time, and beside the tests' programs.
EMBEDDED := $(CACHE)/run/debug

PORT ?= 8080
ADMIN_PORT ?= 9090
DATA ?= data
MANIFESTS ?= configs/samples
MEASURED = $(or $(ONLY),memory growth policies serving overload messaging races)
# Those that crash at a failpoint, which only debug builds have; everything else is proven on what is shipped.
CRASHED = failpoints order
# The last release whose topics and keys had no owner: what it wrote is adopted.
FORMER ?= b4e56ad
SOAKED = $(or $(ONLY),attacks durability $(CRASHED) histories ingest orders outage staleness)
# Readers beside writers for a minute each, 1,000 misses on one key, a Redis that is emptied, killed and silent.
RACES = no_reader_ever_sees a_thousand_misses flushes_and_restarts a_silent_server
# Docker, or else Podman. Their names for what is built here.
ENGINE ?= $(or $(shell command -v docker),$(shell command -v podman))
VERSION ?= 0.1.0
IMAGE ?= flyweight/dataplane:$(VERSION)
OPERATOR_IMAGE ?= flyweight/operator:$(VERSION)
# Profiles of compose.yaml besides the embedded stores: full, replicas.
PROFILES ?=
COMPOSE = $(ENGINE) compose --file compose.yaml $(addprefix --profile ,$(PROFILES))

.PHONY: help deps build dev test-race test-coverage benchmark perf-test fmt install-tools release \
	container-engine compose docker-build docker-run docker-up docker-down docker-logs \
	embedded docs prove-h2spec prove-websocket prove-schemathesis prove-upgrade prove-clients prove-keycloak prove-gitops prove-unsafe prove-mechanisms run test soak bench demo demo-up demo-down demo-kubeconfig generate dashboard load-test lint tools images check clean

help: ## Show this help
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2 }'

deps: ## Fetch what the build needs, so that it can go on without a network
	@cargo fetch --locked

build: ## Build the programs as they are shipped, without installing them
	@cargo build --release --locked --package flyweight-dataplane --package flyweight-operator --bins
	@echo "built: $(CARGO_TARGET_DIR)/release/flyweight-dataplane, flyweight-operator, kubectl-flyweight"

run: embedded ## Build, and serve configs/samples on port 8080 with embedded stores in ./data (PORT, DATA, MANIFESTS)
	@exec $(EMBEDDED)/flyweight-dataplane serve --manifests $(MANIFESTS) --data-dir $(DATA) --port $(PORT) --admin-port $(ADMIN_PORT) --drain-delay 0s

dev: ## As run, and build and start anew whenever a source or a manifest changes
	@tests/tools/dev.sh $(EMBEDDED)/flyweight-dataplane $(MANIFESTS) --data-dir $(DATA) --port $(PORT) --admin-port $(ADMIN_PORT) --drain-delay 0s

embedded:
	@[[ -e $(EMBEDDED)/flyweight-dataplane ]] || echo "The first build takes two to four minutes on two cores, later ones seconds." >&2
	@TIMEFORMAT="built in %R s, with %U s of processor time"; time CARGO_TARGET_DIR=$(CACHE)/run \
		cargo build --package flyweight-dataplane --bin flyweight-dataplane --no-default-features \
		--config 'profile.dev.package."*".opt-level=0'

check: embedded ## Check the manifests in MANIFESTS offline, every fault with its path
	@$(EMBEDDED)/flyweight-dataplane check --manifests $(MANIFESTS)

test: ## Run all tests against real servers and a real Kubernetes, which are installed when missing
	@tests/run.sh

test-race: ## Search for races: readers beside writers under stress (SECONDS_EACH), then concurrent clients and histories under faults
	@tests/tools/install.sh redis mysql mongo kafka
	@SOAK=$(or $(SECONDS_EACH),10) tests/tools/with.sh redis -- cargo test --workspace --lib -- --test-threads=1 --nocapture $(RACES)
	@cargo build --workspace --bins
	@cargo test --workspace --test suites -- --test-threads=1 concurrency:: histories::

test-coverage: ## Say which lines the unit tests reach, as a page in target/llvm-cov/html (needs cargo-llvm-cov)
	@cargo llvm-cov --version >/dev/null 2>&1 || { echo "cargo-llvm-cov is not here: cargo install cargo-llvm-cov && rustup component add llvm-tools-preview" >&2; exit 3; }
	@cargo llvm-cov --workspace --lib --bins --html

bench: ## Measure everything beside its peers (ONLY="memory growth policies serving overload messaging races")
	@tests/tools/install.sh bench redis mysql kafka
	@$(if $(filter races,$(MEASURED)),SOAK=60 cargo test --quiet --workspace --lib -- --test-threads=1 --nocapture $(RACES))
	@$(if $(filter-out races,$(MEASURED)),cargo bench --quiet --workspace --bench engine -- $(filter-out races,$(MEASURED)))

benchmark: bench ## The same as bench

perf-test: ## Measure what a server bears beside its peers, and under overload: a part of bench
	@$(MAKE) --no-print-directory bench ONLY="serving overload"

soak: ## Prove stores, crashes, outages and the operator at full length, some hours (ONLY="durability ingest" for some suites; the operator's part needs root)
	@cargo build --workspace --bins
	@cargo build --workspace --bins --release
	@$(if $(ONLY),true,FLYWEIGHT_SOAK=1 tests/tools/with.sh mysql mariadb mongo -- cargo test --workspace --lib -- --nocapture random_queries)
	@$(if $(ONLY),true,FLYWEIGHT_ROUNDS=5000 cargo test --workspace --lib -- --nocapture whatever_comes_in no_more_is_sold)
	@$(if $(filter $(CRASHED),$(SOAKED)),FLYWEIGHT_SOAK=1 cargo test --workspace --test suites -- --test-threads=1 --nocapture $(addsuffix ::,$(filter $(CRASHED),$(SOAKED))))
	@$(if $(filter-out $(CRASHED),$(SOAKED)),FLYWEIGHT_SOAK=1 FLYWEIGHT_BIN_DIR=$(CARGO_TARGET_DIR)/release cargo test --workspace --test suites -- --test-threads=1 --nocapture $(addsuffix ::,$(filter-out $(CRASHED),$(SOAKED))))
	@$(if $(ONLY),true,$(MAKE) bench ONLY=overload)
	@$(if $(ONLY),true,tests/operator.sh --soak)

prove-upgrade: ## Prove that what a former release wrote and acknowledged is taken over under traffic (FORMER=commit)
	@tests/upgrade.sh $(FORMER)

prove-clients: ## Prove that generated clients build and call: openapi-typescript, openapi-python-client, openapi-generator
	@cargo build --quiet --workspace --bin flyweight-dataplane
	@tests/clients/generated.sh

prove-keycloak: ## Prove with the tokens of a real Keycloak who is let in, also while its keys change and it is away
	@cargo build --quiet --workspace --bin flyweight-dataplane
	@tests/keycloak.sh

prove-gitops: ## Prove what Argo CD and Flux would say of health, by their engines for Lua and CEL (needs Go)
	@cd tests/gitops && go test -count=1 ./...

prove-h2spec: ## Hold pod and gateway against h2spec and curl, over cleartext and TLS (needs Go)
	@cargo build --quiet --workspace --bin flyweight-dataplane
	@tests/h2spec.sh

prove-websocket: ## Run the Autobahn suite against the WebSocket of pod and gateway (needs Python 2.7)
	@cargo build --quiet --workspace --bin flyweight-dataplane --bin websocket-echo
	@tests/websocket.sh

prove-schemathesis: ## Hold the API against its OpenAPI document with all phases of schemathesis (SEED, EXAMPLES)
	@cargo build --quiet --workspace --bin flyweight-dataplane
	@tests/schemathesis.sh

prove-unsafe: ## Run the tests of what is unsafe under valgrind, with a real broker
	@tests/tools/install.sh kafka valgrind
	@cargo test --quiet --package flyweight-events --lib --no-run
	@CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="valgrind --quiet --leak-check=full --errors-for-leak-kinds=definite --error-exitcode=9 --suppressions=$(CURDIR)/tests/tools/valgrind.supp" \
		tests/tools/with.sh kafka -- cargo test --quiet --package flyweight-events --lib -- --test-threads=1 kafka::identity

prove-mechanisms: ## Prove that each mechanism of tests/mechanisms/list.toml has a test that catches its removal, some hours at first (ONLY="name name", AGAIN=1)
	@tests/mechanisms.py $(if $(AGAIN),--again)

demo: ## Show the whole system on a local Kubernetes, step by step, each step checked
	@tests/demo.sh run

demo-up: ## Bring the demo up and leave it running
	@tests/demo.sh up

demo-down: ## End what demo-up left running
	@tests/demo.sh down

demo-kubeconfig: ## Print the path of the demo's kubeconfig
	@tests/tools/cluster.sh kubeconfig

container-engine:
	@[[ -n "$(ENGINE)" ]] || { echo "there is neither docker nor podman: install one of them. make images builds the images without" >&2; exit 3; }

compose: container-engine
	@$(ENGINE) compose version >/dev/null 2>&1 || { echo "$(ENGINE) has no compose: install its plugin (docker-compose-v2, podman-compose)" >&2; exit 3; }

docker-build: container-engine ## Build the images by docker or podman (IMAGE, OPERATOR_IMAGE)
	@$(ENGINE) build --target dataplane --tag $(IMAGE) .
	@$(ENGINE) build --target operator --tag $(OPERATOR_IMAGE) .

docker-run: container-engine ## Serve the samples from the image on PORT until it is interrupted
	@$(ENGINE) run --rm --init --publish $(PORT):8080 --publish $(ADMIN_PORT):9090 $(IMAGE)

docker-up: compose ## Bring compose.yaml up (PROFILES="full replicas")
	@$(COMPOSE) up --detach --build --wait

docker-down: compose ## End what docker-up left running; its data stays
	@$(ENGINE) compose --file compose.yaml --profile '*' down

docker-logs: compose ## Follow the logs of what docker-up left running
	@$(ENGINE) compose --file compose.yaml --profile '*' logs --follow --tail 100

images: ## Build the container images as archives, without a container engine
	@tests/demo.sh images

generate: ## Write the CRDs, for kubectl and for the chart, the reference pages of docs/, and deploy/base
	@cargo run --quiet --package flyweight-crds --features kube --bin crdgen
	@docs/generate.py
	@tests/deploy.sh --write

release: ## Build what a release has into dist: programs, images, chart, manifests, SBOM; nothing is pushed (BIN_DIR, RELEASE_URL)
	@release/build.sh

docs: ## Check the documents and build their site, which works offline, into ./site (needs Python 3.11)
	@tests/tools/docs.sh

dashboard: ## Build the dashboard and gather the pages of /docs into dataplane/assets (needs Node and npm)
	@cd dashboard && npm ci --silent && npm run --silent build

load-test: ## Make load with wrk, send 1,000 events, and say what the API bore (URL, SECONDS_EACH, CONNECTIONS, THREADS)
	@tests/load/run.sh $(URL)

lint: ## Check formatting, lints and generated files
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --package flyweight-dataplane --no-default-features -- -D warnings
	cargo run --quiet --package flyweight-crds --features kube --bin crdgen -- --check
	tests/mechanisms.py --check
	tests/structure.py
	tests/docs.py
	tests/compose.py
	tests/make.sh
	tests/release.py

fmt: ## Format the sources
	@cargo fmt --all

install-tools: tools ## The same as tools

tools: ## Install the real servers that tests and demo use
	@tests/tools/install.sh all

clean: ## Remove the data of make run; what was built stays in the cache
	rm -rf data
