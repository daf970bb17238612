# Everything that people and CI do here is one of these targets; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TRAIN := .venv-train
CLIENTS := .venv-clients
CODE := healthguard gateway auth records serving models helm k8s tests
EXTRAS := local gateway auth records operator modelserver tensorflow train
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
INSTALL = $(BIN)/uv pip install --quiet --no-deps --require-hashes
ARGS ?=

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## ---- environments: everything goes into virtual ones, from hash-pinned locks

$(VENV)/build.stamp: requirements/build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "HealthGuard needs Python 3.11 or newer; set PYTHON=… to name one."; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "Python's venv module is missing: on Debian and Ubuntu, install python3-venv."; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

$(VENV)/local.stamp: requirements/local.txt $(VENV)/build.stamp pyproject.toml
	@echo "Installing what HealthGuard needs (about 550 MB on disk, once) …"
	@$(INSTALL) --python $(BIN)/python -r $<
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/local.stamp
	@echo "Installing what the tests need …"
	@$(INSTALL) --python $(BIN)/python -r $<
	@touch $@

$(TRAIN)/stamp: requirements/train.txt $(VENV)/build.stamp
	@echo "Installing what training needs: TensorFlow among it (about 1.5 GB on disk, once) …"
	@$(PYTHON) -m venv $(TRAIN)
	@$(INSTALL) --python $(TRAIN)/bin/python -r $<
	@touch $@

$(CLIENTS)/stamp: requirements/clients.txt $(VENV)/build.stamp
	@echo "Installing the clients of other people that the tests use (about 400 MB on disk, once) …"
	@$(PYTHON) -m venv $(CLIENTS)
	@$(INSTALL) --python $(CLIENTS)/bin/python -r $<
	@touch $@

## ---- run

.PHONY: up
up: $(VENV)/local.stamp ## Start the whole product on this machine (ARGS="--help" shows the options)
	@exec $(BIN)/healthguard up $(ARGS)

.PHONY: down
down: $(VENV)/local.stamp ## Stop what `make up ARGS=--detach` started
	@$(BIN)/healthguard down $(ARGS)

.PHONY: smoke
smoke: $(VENV)/local.stamp ## Start everything in a temporary folder, predict, read back, stop
	@$(BIN)/healthguard smoke $(ARGS)

## ---- prove

.PHONY: test-deps
test-deps: $(VENV)/dev.stamp $(TRAIN)/stamp $(CLIENTS)/stamp ## Install all that the test suites need (as root also what a cluster node needs)
	@$(BIN)/python -m tests.cluster deps

.PHONY: test
test: $(VENV)/dev.stamp ## Run every suite; what could not run is named at the end
	@$(BIN)/python -m tests $(ARGS)

.PHONY: check
check: $(VENV)/dev.stamp ## Format, lint, types, imports and unit tests, in under a minute
	@$(BIN)/ruff format --check --quiet $(CODE)
	@$(BIN)/ruff check --quiet $(CODE)
	@report=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$report"; exit 1; }; tail -n 1 <<< "$$report"
	@$(BIN)/mypy
	@$(BIN)/pytest --quiet -n 2 tests/unit $(ARGS)

.PHONY: fmt
fmt: $(VENV)/dev.stamp ## Format the code and mend what the linter can
	@$(BIN)/ruff format --quiet $(CODE)
	@$(BIN)/ruff check --quiet --fix $(CODE)

# The same tests as in `make test`, with the numbers that a figure may be quoted from.
PROVE = HEALTHGUARD_PROVE=1 HEALTHGUARD_CRASH_ROUNDS=20 RECORDS_CRASH_CYCLES=200

PROOFS = $(shell grep --recursive --files-with-matches --include='test_*.py' 'HEALTHGUARD_PROVE\|gateway.fleet' tests)

.PHONY: prove
prove: $(VENV)/dev.stamp ## Run the proofs with their full numbers: crashes, kills, slow clients, hostile files, fresh phantoms (hours)
	@$(PROVE) $(BIN)/pytest tests/integration/records/test_durability.py tests/integration/local/test_crashes.py $(PROOFS) $(ARGS)

## ---- make

.PHONY: models
models: $(TRAIN)/stamp ## Train both models and write their version folders again
	@$(TRAIN)/bin/python -m models make $(ARGS)

.PHONY: protos
protos: $(VENV)/dev.stamp ## Compile the protobuf messages of serving/tfs and of the Open Inference Protocol
	@$(BIN)/python -m serving.tfs.generate
	@$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. gateway/open_inference.proto

.PHONY: manifests
manifests: $(VENV)/dev.stamp ## Write the CRD, the operator's rights and the chart's schema from the typed code
	@$(BIN)/python -m serving.operator.crd > k8s/crd/servedmodels.yaml
	@$(BIN)/python -m serving.operator.rbac > k8s/operator/rbac.yaml
	@cp k8s/crd/servedmodels.yaml helm/healthguard/crds/servedmodels.yaml
	@cp k8s/crd/servedmodels.yaml helm/healthguard-crds/files/servedmodels.yaml
	@$(BIN)/python helm/schema.py

.PHONY: lock
lock: $(VENV)/build.stamp ## Resolve the dependencies again and write the hash-pinned locks
	@$(LOCK) --group pyproject.toml:build --output-file requirements/build.txt
	@$(LOCK) --extra dev pyproject.toml --output-file requirements/dev.txt
	@$(LOCK) --extra clients pyproject.toml --output-file requirements/clients.txt
	@for extra in $(EXTRAS); do \
	  echo "locking $$extra"; \
	  $(LOCK) --extra $$extra --constraint requirements/dev.txt pyproject.toml --output-file requirements/$$extra.txt; \
	done

.PHONY: images
images: ## Build the container images with docker, podman or buildah (BASE=… to build on another base)
	@$(PYTHON) k8s/images/build.py $(ARGS)

.PHONY: cluster cluster-down
cluster: $(VENV)/dev.stamp ## Start a one-node Kubernetes cluster on this machine (as root; the first time builds it)
	@$(BIN)/python -m tests.cluster up

cluster-down: $(VENV)/dev.stamp ## Stop the cluster and leave nothing of it
	@$(BIN)/python -m tests.cluster down

.PHONY: test-cluster
test-cluster: $(VENV)/dev.stamp ## Run the suites that need Kubernetes, helm or a builder of images
	@$(BIN)/python -m tests.cluster deps
	@$(BIN)/python -m tests tests/deploy tests/images tests/cluster $(ARGS)

.PHONY: bench
bench: $(VENV)/dev.stamp $(TRAIN)/stamp ## Measure against this machine's limit (ARGS="--help" shows the options); on a quiet machine
	@$(BIN)/python -m tests.load.bench $(ARGS)
