# The few commands people type; CI calls the same ones. Each line of a recipe is a shell of its own, as in every make.
PYTHON ?= python3
WHEELS ?= ../shared/wheels
VENV ?= .venv
PYTHONS = 3.11 3.12 3.13
BIN = $(VENV)/bin
DEMO ?= examples/fashion-cnn
DEMO_PORT ?= 8080
SOAK ?= 600
JOBS ?= 2
FAST = not slow and not cluster and not gpu
# A cluster: a program that builds images onto its node (`image`) and runs commands in its network (`exec`). Without one, kind; see docs/cluster.md.
CLUSTER ?= ../shared/cluster/cluster
INSIDE = $(if $(wildcard $(CLUSTER)),$(CLUSTER) exec --,docs/kind/inside)
# Of images for kind: what builds them (docker needs BuildKit), the base image, and where torch comes from: PyPI's holds CUDA, PyTorch's CPU index does not.
BUILD ?= DOCKER_BUILDKIT=1 docker build
BASE ?=
PIP_EXTRA_INDEX_URL ?= https://download.pytorch.org/whl/cpu
KIND_CLUSTER ?= boatyard
export KIND_CLUSTER
SHELL = /bin/bash
.PHONY: setup setup-dev data demo test test-beside test-alone test-python test-slow lint schema examples docs constraints wheel bench bench-small bench-answers bench-engines bench-intervals bench-serving bench-serving-small bad-requests soak soak-registry images test-cluster test-kind measure-cluster measure-kills cluster-demo bare-root clean

# $(call install,EXTRAS): the project and what it requires into the environment, by uv where it is there or can be had, else by pip.
define install
	@set -eu; \
	$(PYTHON) -c 'import sys; print("Python", sys.version.split()[0], "at", sys.executable); sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Boatyard needs Python 3.11 or later: make setup PYTHON=python3.12" >&2; exit 1; }; \
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
	if [ -d "$(WHEELS)" ]; then PIP_FIND_LINKS=$$(cd "$(WHEELS)" && pwd); UV_FIND_LINKS=$$PIP_FIND_LINKS; export PIP_FIND_LINKS UV_FIND_LINKS; fi; \
	uv=$$(command -v uv || true); \
	if [ -z "$$uv" ] && { [ -x $(BIN)/uv ] || $(BIN)/python -m pip install -q --disable-pip-version-check uv 2>/dev/null; }; then uv=$(BIN)/uv; fi; \
	if [ -n "$$uv" ]; then "$$uv" pip install --python $(BIN)/python -c constraints.txt -e '.[$(1)]'; \
	else echo "no uv here: pip installs, which takes minutes"; $(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt -e '.[$(1)]'; fi
endef

setup: $(VENV)/.done  ## make the environment

$(VENV)/.done: pyproject.toml constraints.txt
	$(call install,train$(comma)serve)
	@touch $@

setup-dev: $(VENV)/.dev  ## the environment with what tests and checks need as well

$(VENV)/.dev: pyproject.toml constraints.txt
	$(call install,dev)
	@touch $@ $(VENV)/.done

comma = ,

data: data/fashion-mnist/.done  ## put Fashion-MNIST into data/ (FASHION_MNIST=folder to take it from there)

data/fashion-mnist/.done: $(VENV)/.done
	@$(BIN)/python examples/fetch_fashion_mnist.py data/fashion-mnist $(if $(FASHION_MNIST),--source $(FASHION_MNIST))
	@touch $@

demo: setup  ## data to answer: run the pipeline, serve the package, ask it once
	@PATH="$(abspath $(BIN)):$$PATH" MAKE="$(MAKE)" examples/demo.sh $(DEMO) $(DEMO_PORT)

# What measures time runs by itself, after the others; both run, whatever the first of them finds.
test: setup-dev  ## the fast tests, JOBS at a time, then those that must run alone
	@passed=yes; $(MAKE) --no-print-directory test-beside || passed=; $(MAKE) --no-print-directory test-alone && test -n "$$passed"

test-beside: setup-dev
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m '$(FAST) and not alone'

test-alone: setup-dev
	@$(BIN)/python -m pytest -m '$(FAST) and alone' $$(grep -l 'mark\.alone' tests/test_*.py)

test-python:  ## the fast tests with another Python, in an environment of its own: make test-python PYTHON=python3.12 (TESTS=… for some)
	@$(MAKE) --no-print-directory setup-dev PYTHON=$(PYTHON) VENV=build/$(notdir $(PYTHON))
	@build/$(notdir $(PYTHON))/bin/python -m pytest -m '$(FAST)' $(TESTS)

test-slow: setup-dev data  ## the slow ones
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m slow

lint: setup-dev  ## style and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@rm -rf build/types && mkdir -p build/types && cp -r boatyard build/types/boatyard
	@cp -r components pipelines serving build/types/boatyard/
	@cd build/types && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p boatyard

schema: setup-dev  ## the project file's JSON schema and reference
	@$(BIN)/boatyard schema -o boatyard/project/boatyard.schema.json
	@$(BIN)/python docs/reference.py

docs: setup-dev  ## the pages as a site in build/docs, with one made from the docstrings; a broken link is an error
	@$(BIN)/python docs/site.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# One set of versions for every Python that is supported: resolved for the first, and an error where another's differs.
constraints: setup-dev  ## constraints.txt of pyproject.toml, versions as they are (UPGRADE=--upgrade: the newest); needs uv
	@mkdir -p build/constraints; set -eu; uv=$$(command -v uv || echo $(BIN)/uv); \
	resolve() { "$$uv" pip compile -q --extra dev pyproject.toml --no-annotate --custom-compile-command 'make constraints' "$$@"; }; \
	resolve --python-version $(firstword $(PYTHONS)) -o constraints.txt $(UPGRADE); \
	for version in $(PYTHONS); do \
	    resolve --python-version $$version -c constraints.txt -o build/constraints/$$version.txt; \
	    diff constraints.txt build/constraints/$$version.txt && echo "constraints.txt is what Python $$version takes"; \
	done

examples: setup-dev  ## what examples/cluster has for a cluster: two pipelines, an InferenceService; and components/*.yaml
	@$(BIN)/python examples/cluster/make.py examples/cluster
	@$(BIN)/python examples/mixed/make.py components

wheel: setup-dev  ## build/dist
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m build -q --outdir build/dist $$(test -x $(BIN)/uv && echo --installer uv)

bench: setup-dev data  ## the measures, as tables: needs a quiet machine, a trained examples/fashion-cnn and 9 GB of disk
	@$(BIN)/python benchmarks/help_time.py
	@$(BIN)/python benchmarks/step_overhead.py --steps 20 --rounds 5
	@$(BIN)/python benchmarks/training_speed.py
	@$(BIN)/python benchmarks/preprocess_memory.py --gigabytes 4
	@$(MAKE) bench-answers

bench-intervals: setup-dev  ## the error of each end of each interval and of the slices' marks, simulated
	@$(BIN)/python benchmarks/intervals.py

bench-serving: setup-dev data  ## this server against its peers, 25 minutes: needs wrk and h2load, a quiet machine and the network once
	@$(BIN)/python -m benchmarks.serving

bench-serving-small: setup-dev data  ## the same, three minutes, against KServe alone and with floors, for CI
	@$(BIN)/python -m benchmarks.serving --small

bench-answers: setup-dev  ## the served answers against the report's, every test row (after make demo)
	@set -eu; package=$$($(BIN)/boatyard show $(DEMO) --path); \
	dataset=$$($(BIN)/python -c 'import boatyard; print(boatyard.runs("$(DEMO)")[0].dataset.path)'); \
	$(BIN)/python benchmarks/answers.py "$$package" "$$dataset"

bench-engines: setup-dev  ## ONNX Runtime beside OpenVINO with PACKAGE (the demo's), paired
	@$(BIN)/python benchmarks/engines.py "$${PACKAGE:-$$($(BIN)/boatyard show $(DEMO) --path)}"

bad-requests: setup-dev  ## 100 000 generated mistakes: each refused, none in the way of others (after make demo)
	@$(BIN)/python benchmarks/bad_requests.py "$$($(BIN)/boatyard show $(DEMO) --path)"

soak: setup-dev  ## ten minutes of mixed load: does the server's memory stay flat? (after make demo)
	@$(BIN)/python benchmarks/soak.py "$$($(BIN)/boatyard show $(DEMO) --path)" $(SOAK)

bench-small: setup-dev data  ## the same, small, for CI
	@$(BIN)/python benchmarks/help_time.py
	@$(BIN)/python benchmarks/step_overhead.py --steps 5 --rounds 1
	@$(BIN)/python benchmarks/training_speed.py --rows 6400 --repeats 1
	@$(BIN)/python benchmarks/preprocess_memory.py
	@$(MAKE) bench-answers
	@$(MAKE) soak SOAK=60

soak-registry: setup-dev  ## pushes, removals, moves, restores and damage in random order, some twenty minutes
	@REGISTRY_TIMES=25 $(BIN)/python -m pytest -m slow tests/test_registry_machine.py

images:  ## boatyard/serve:dev and boatyard/train:dev onto the cluster's node
	@set -eu; for target in serve train; do \
	    if [ -x "$(CLUSTER)" ]; then \
	        $(CLUSTER) image . --target $$target -t boatyard/$$target:dev; \
	    else \
	        $(BUILD) -f Containerfile --target $$target -t boatyard/$$target:dev \
	            $(if $(BASE),--build-arg BASE=$(BASE)) --build-arg PIP_EXTRA_INDEX_URL=$(PIP_EXTRA_INDEX_URL) .; \
	        kind load docker-image boatyard/$$target:dev --name $(KIND_CLUSTER); \
	    fi; \
	done

test-cluster: setup-dev  ## the tests on a cluster that has KServe, Trainer and an S3 store (after make images)
	@$(INSIDE) $(BIN)/python -m pytest -m cluster

test-kind: setup-dev  ## a kind cluster from nothing: its installation, the images, the tests (docs/cluster.md)
	@docs/kind/install
	@$(MAKE) images test-cluster CLUSTER=

measure-cluster: setup-dev  ## rolling five times there and back under load, 1 → 3 → 1 pods, a pod's start (after make images)
	@ROLLS=5 $(INSIDE) $(BIN)/python -m pytest -m cluster tests/cluster/test_rollouts.py -s

measure-kills: setup-dev  ## 20 kills of a training's pods at random moments; the weights must be an unbroken run's (after make images)
	@KILLS=20 $(INSIDE) $(BIN)/python -m pytest -m cluster tests/cluster/test_training.py -k killed -s

cluster-demo: setup images  ## data to an endpoint that scales, on the cluster: TrainJob, S3, plan, deploy, curl, load
	@PATH="$(abspath $(BIN)):$$PATH" $(INSIDE) examples/cluster_demo.sh

bare-root:  ## the set-up and the demo in a bare Debian 12 (root, debootstrap, 8 GB of disk)
	@.ci/bare-root build/bare $(wildcard $(WHEELS))

clean:  ## remove what was made
	rm -rf build .venv data
